"""Images as a network takes them: its channels, and a mirrored border where it scores less than it sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv import images
from fullyconv.inference.sources import Source
from fullyconv.models import SegmentationModel

Slices = tuple[slice, slice]


class MirroredImage:
    """An image with the network's channels, as large as the network needs it to score every pixel.

    This is the overlap-tile strategy of Ronneberger et al. (arXiv 1505.04597, figure 2). Beyond its
    border the image is mirrored without repeating the border, as often as it takes (NumPy's "reflect"), as it
    is in training. The mirrored whole is never made: `read` makes the part asked for.

    Parameters
    ----------
    source
        Of any size.
    model
        A network without a `margin` needs nothing mirrored.

    Attributes
    ----------
    size : tuple[int, int]
        (height, width) of the mirrored image, which fits the network.
    scored : tuple[int, int]
        (height, width) of the scores of all of it: the image's size, or a little more at the end.

    Examples
    --------
    >>> from fullyconv.inference.sources import ArraySource
    >>> from fullyconv.models import UNet
    >>> image = MirroredImage(ArraySource(np.zeros((388, 300, 1))), UNet.published(2))
    >>> image.size, image.scored
    ((572, 492), (388, 308))
    """

    def __init__(self, source: Source, model: SegmentationModel) -> None:
        self.image_size = source.size
        self.size = model.valid_input_size(source.size)
        self.scored = (self.size[0] - 2 * model.margin, self.size[1] - 2 * model.margin)
        self._source = source
        self._channels, self._dtype = model.channels, model.normalization.dtype
        self._margin = model.margin

    def read(self, part: Slices) -> NDArray[Any]:
        """Return rows and columns of the mirrored image, h×w×C.

        Raises
        ------
        ImageError
            Channels or type do not fit the network.
        """
        axes = zip(part, self.size, self.image_size, strict=True)
        rows, columns = (self._places(*axis) for axis in axes)
        top, left = int(rows.min()), int(columns.min())
        seen = self._source.read(slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1))
        if seen.shape[:2] != (len(rows), len(columns)) or rows[0] > top or columns[0] > left:
            seen = seen[np.ix_(rows - top, columns - left)]
        window, _ = images.conform(seen, self._channels, self._dtype)
        return window

    def _places(self, kept: slice, needed: int, length: int) -> NDArray[np.intp]:
        """Return which positions of an axis of the image are mirrored to a part of the longer axis."""
        start, stop, _ = kept.indices(needed)
        if length == 1:
            return np.zeros(stop - start, np.intp)
        period = 2 * (length - 1)
        distance = np.abs(np.arange(start, stop) - self._margin) % period
        places: NDArray[np.intp] = np.minimum(distance, period - distance)
        return places
