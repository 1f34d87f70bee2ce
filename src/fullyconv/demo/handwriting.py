"""Handwritten digits as pen strokes of any size: the 1,797 images that scikit-learn ships, made smooth.

Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI repository, 1998.
Each is 8×8 with ink counts of 0 to 16; four in five are for training, the rest are held out.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fullyconv.errors import MachineError
from fullyconv.labels import ClassTable

CLASSES = ClassTable(
    ("background", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
)

_MARGIN = 2  # empty cells around the 8×8 image, so that a stroke at its edge ends softly
_HELD_OUT_SHARE = 0.2


class Handwriting:
    """A set of digit images that :meth:`stroke` draws at any size and angle.

    Parameters
    ----------
    held_out
        False for the images to train on, True for those kept for testing.

    Attributes
    ----------
    digits
        What each image shows, N integers of 0 to 9.

    Raises
    ------
    MachineError
        scikit-learn is not installed.
    """

    def __init__(self, *, held_out: bool) -> None:
        images, digits = _all_digits()
        order = np.random.default_rng(0).permutation(len(digits))
        cut = round(len(digits) * _HELD_OUT_SHARE)
        chosen = order[:cut] if held_out else order[cut:]
        self.digits: NDArray[np.int64] = digits[chosen]
        # Spline coefficients, once, instead of filtering again for every drawing.
        self._splines = [
            ndimage.spline_filter(np.pad(image / 16.0, _MARGIN), order=3, output=np.float32)
            for image in images[chosen]
        ]

    def __len__(self) -> int:
        return len(self.digits)

    def stroke(
        self, index: int, height: float, *, angle: float = 0.0, slant: float = 0.0, weight: float = 0.0
    ) -> NDArray[np.float32]:
        """Draw image ``index`` as coverage by ink.

        Parameters
        ----------
        index
            Which image, 0 to ``len(self) - 1``.
        height
            Pixels that the 8 rows of the image become.
        angle
            Degrees, counter-clockwise.
        slant
            Columns that a stroke leans to the right per row upwards.
        weight
            Thickness: about -0.15 for a fine pen to 0.05 for a broad one.

        Returns
        -------
        coverage
            h×w, 0 (paper) to 1 (ink), cut to the ink.
        """
        zoom = height / 8
        side = int(np.ceil(zoom * (8 + 2 * _MARGIN) * 1.2))
        radians = np.deg2rad(angle)
        rotation = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
        to_source = rotation @ np.array([[1.0, 0.0], [slant, 1.0]]) / zoom
        centre = np.full(2, (7 + 2 * _MARGIN) / 2)
        ink = ndimage.affine_transform(
            self._splines[index],
            to_source,
            offset=centre - to_source @ np.full(2, (side - 1) / 2),
            output_shape=(side, side),
            order=3,
            prefilter=False,
            output=np.float32,
        )
        # A pen's edge is about one and a half pixels wide whatever the size of the digit.
        softness = min(max(2.0 / zoom, 0.16), 0.6)
        coverage: NDArray[np.float32] = np.clip((ink - 0.42 + weight) / softness + 0.5, 0, 1)
        rows, columns = (np.flatnonzero(coverage.max(axis=axis) > 0.5) for axis in (1, 0))
        if not rows.size:
            return coverage[:0, :0]
        return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@cache
def _all_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MachineError(
            "scikit-learn is not installed",
            "it, for the handwritten digits it ships",
            "pip install 'fullyconv[demo]'",
        ) from None
    bunch = load_digits()
    return bunch.images, bunch.target.astype(np.int64)
