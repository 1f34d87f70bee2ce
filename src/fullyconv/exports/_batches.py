"""Which batches of images an exported network takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.engines import least_side
from fullyconv.models import SegmentationModel

Size = tuple[int, int]
LARGEST = 512  # pixels along each axis, and images at once, for which bounded programs plan memory
MOST = 4


@dataclass(frozen=True)
class Batches:
    """Images N×H×W×C in raw values that an exported network takes.

    Parameters
    ----------
    model
        The network.
    size
        (height, width) of all images; None for any of `least` or more, in steps of `step`.
    bounded
        Whether it plans all memory ahead: sizes are then free up to `most`, for `MOST` images at once; images
        of one size go in one at a time.
    dtypes
        The types of pixels that its format knows; all if empty.
    """

    model: SegmentationModel
    size: Size | None = None
    bounded: bool = False
    dtypes: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """Of the pixels: that of the training images, or float32 where the format does not know it."""
        dtype = self.model.normalization.dtype
        return dtype if not self.dtypes or dtype in self.dtypes else "float32"

    @property
    def least(self) -> Size:
        """The smallest (height, width), in pixels."""
        side = least_side(self.model)
        return self.size or self.model.valid_input_size((side, side))

    @property
    def most(self) -> Size:
        """The largest (height, width) of a bounded program, in pixels."""
        if self.size is not None:
            return self.size
        height, width = (
            least + (max(LARGEST, 2 * least) - least) // self.step * self.step for least in self.least
        )
        return height, width

    @property
    def step(self) -> int:
        """Pixels from one height or width that it takes to the next: 1; of unpadded networks the stride."""
        return self.model.stride if self.model.margin else 1

    def shapes(self) -> list[tuple[int, int, int]]:
        """Return (N, height, width) to compare at: of free sizes the smallest, and odd ones if any."""
        if self.size is not None:
            return [(count, *self.size) for count in ((1,) if self.bounded else (1, 2, 3))]
        side = least_side(self.model)
        sizes = [(side, side), (side + 1, side + 38), (side + 33, side + 11)]
        shapes = [(count, *self.model.valid_input_size(size)) for count, size in enumerate(sizes, 1)]
        if self.bounded:  # not all of the largest at once: the library's scores may take gigabytes
            (_, tall, wide), (tallest, widest) = shapes[1], self.most
            shapes += [(1, tallest, wide), (MOST, tall, widest)]
        return shapes

    def samples(self) -> Iterator[NDArray[Any]]:
        """Yield a batch of each of `shapes`: blots and noise as bright as the training images."""
        from scipy.ndimage import gaussian_filter

        random = np.random.default_rng(0)
        dtype = np.dtype(self.dtype)
        mean, std = (np.asarray(getattr(self.model.normalization, name)) for name in ("mean", "std"))
        for shape in self.shapes():
            noise = random.normal(size=(*shape, self.model.channels))
            blots = gaussian_filter(noise, (0, 9, 9, 0), mode="wrap")
            values = mean + std * (0.5 * noise + blots / max(float(blots.std()), 1e-12))
            if dtype.kind in "iu":
                limits = np.iinfo(dtype)
                values = np.rint(values).clip(limits.min, limits.max)
            yield values.astype(dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return what it takes as JSON-ready values."""
        (height, width), (tallest, widest) = self.least, self.most

        def axis(least: int, most: int) -> int | dict[str, int]:
            if self.size:
                return least
            return {"least": least, "step": self.step} | ({"most": most} if self.bounded else {})

        bound = 1 if self.size else {"most": MOST}
        return {
            "axes": "NHWC",
            "dtype": self.dtype,
            "batch": bound if self.bounded else "any",
            "height": axis(height, tallest),
            "width": axis(width, widest),
            "channels": self.model.channels,
        }
