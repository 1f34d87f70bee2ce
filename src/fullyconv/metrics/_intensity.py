"""What the best single threshold on brightness would score: the simplest rival for two classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.labels import Labels
from fullyconv.metrics._confusion import score_regions

_BITS = 18  # of a float32's sign, exponent and mantissa: exact for whole numbers to 1024, else to 0.1 %
_LEVELS = 1 << _BITS


@dataclass(frozen=True)
class Threshold:
    """Brighter pixels are one class, darker ones the other.

    Parameters
    ----------
    level
        The least brightness of the brighter, as the place of a float32 in order.
    brighter
        The class of the brighter pixels, 0 or 1.
    """

    level: int
    brighter: int

    def value(self, channels: int) -> float:
        """Return the least brightness of the brighter, as the mean of ``channels`` channels."""
        ordered = np.array((self.level - _LEVELS // 2) << (32 - _BITS), np.int32)
        return float(_in_order(ordered).view(np.float32)) / channels

    def predict(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Label an image H×W×C of any real type, H×W."""
        bright = _levels(image) >= self.level
        return np.where(bright, self.brighter, 1 - self.brighter).astype(np.uint8)


class IntensityHistogram:
    """Counts pixels of two classes by brightness, the sum of their channels, image after image.

    Examples
    --------
    >>> histogram = IntensityHistogram()
    >>> image = np.array([[[10], [20], [200], [220]]], np.uint8)
    >>> histogram.update(image, np.array([[0, 0, 1, 1]]), ignore_index=255)
    >>> best = histogram.best_threshold()
    >>> best.value(channels=1), best.predict(image).tolist()
    (200.0, [[0, 0, 1, 1]])
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros((2, _LEVELS), np.int64)

    def update(self, image: NDArray[Any], truth: Labels, ignore_index: int) -> None:
        """Count an image H×W×C with labels H×W."""
        levels = _levels(image)
        for index in range(2):
            self.counts[index] += np.bincount(levels[truth == index], minlength=_LEVELS)

    def best_threshold(self) -> Threshold:
        """Return the threshold and the polarity of the highest mean IU over all that was counted.

        Among equal ones the lowest threshold, and there class 1 for the brighter.
        """
        (levels,) = np.nonzero(self.counts.any(0))
        bright = self.counts[:, levels][:, ::-1].cumsum(1)[:, ::-1]  # 2×T; from the lowest on, all are bright
        true = self.counts.sum(1)[:, None]
        mean_iu = []
        for brighter in (1, 0):
            darker = 1 - brighter
            right, given = np.empty((2, *bright.shape))
            right[brighter], right[darker] = bright[brighter], (true - bright)[darker]
            given[brighter], given[darker] = bright.sum(0), (true - bright).sum(0)
            sums = np.stack([right, np.broadcast_to(true, right.shape), given], -1)
            mean_iu.append(np.nan_to_num(score_regions(np.moveaxis(sums, 1, 0))["mean_iu"]))
        place, flipped = np.unravel_index(np.argmax(np.stack(mean_iu, -1)), (len(levels), 2))
        return Threshold(int(levels[place]), 1 - int(flipped))


def _levels(image: NDArray[Any]) -> NDArray[np.int64]:
    """Return brightness as whole numbers in the order of the sums over channels."""
    total = image.sum(-1, dtype=np.float64).astype(np.float32) + np.float32(0)  # −0 becomes 0
    return (_in_order(total.view(np.int32)).astype(np.int64) >> (32 - _BITS)) + _LEVELS // 2


def _in_order(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Turn the bits of floats into whole numbers of their order, and back: negative ones run backwards."""
    return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
