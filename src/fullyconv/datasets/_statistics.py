"""What a dataset is like, measured: class sizes, channel values, whether up is up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.datasets._checks import in_threads
from fullyconv.datasets._dataset import Dataset
from fullyconv.datasets._samples import Sample
from fullyconv.errors import DataError

# How much more of a class one half of the image must hold, and how many standard errors that must be.
_CLEAR_DIFFERENCE = 0.1
_CLEAR_ERRORS = 5.0
_FEWEST_IMAGES = 10


def class_counts(dataset: Dataset, samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Return the number of pixels of each class, K, int64; ignored pixels are not counted."""
    counts = np.zeros(len(dataset.classes), np.int64)
    for sample in samples:
        counts += np.array(dataset.pixels[sample.name], np.int64)
    return counts


def channel_statistics(
    dataset: Dataset, samples: Sequence[Sample], *, seed: int, limit: int = 200
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure the mean and standard deviation of each channel, in the images' own units.

    Each image weighs the same, however large, as each is about equally often trained on.

    Parameters
    ----------
    dataset, samples
        Which images.
    seed, limit
        At most ``limit`` of them are read, drawn with ``seed``.

    Returns
    -------
    mean, std
        One number per channel; a channel that never changes has std 1.

    Raises
    ------
    DataError
        No samples.
    """
    if not samples:
        raise DataError(f"{dataset.root}: no samples to measure", "at least one", "check the splits")
    order = np.random.default_rng(seed).permutation(len(samples))[:limit]
    moments = np.array(
        list(in_threads(lambda k: _moments(dataset.load(samples[k])[0]), [int(k) for k in order]))
    )
    mean, square = moments.mean(0)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-30), std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def looks_upright(dataset: Dataset, samples: Sequence[Sample], *, seed: int, limit: int = 100) -> bool:
    """Whether a class keeps to the upper or the lower half of the images, as the sky does.

    Then turning images upside down would teach a network what it never sees. Objects that have an
    orientation but lie anywhere (letters, say) are not noticed, nor is anything in fewer than 10 images.

    Parameters
    ----------
    dataset, samples
        Which images.
    seed, limit
        At most ``limit`` of them are read, drawn with ``seed``.
    """
    order = np.random.default_rng(seed).permutation(len(samples))[:limit]
    if len(order) < _FEWEST_IMAGES:
        return False
    differences = np.array(list(in_threads(lambda k: _upper_share(dataset, samples[int(k)]), order.tolist())))
    mean = np.abs(differences.mean(0))
    error = differences.std(0) / np.sqrt(len(differences))
    return bool(((mean > _CLEAR_DIFFERENCE) & (mean > _CLEAR_ERRORS * error)).any())


def _upper_share(dataset: Dataset, sample: Sample) -> NDArray[np.float64]:
    """Return each class's share of the upper half minus its share of the lower half, K."""
    labels = dataset.load(sample)[1]
    middle = len(labels) // 2
    halves = []
    for half in (labels[:middle], labels[len(labels) - middle :]):
        counts = np.bincount(half[half != dataset.classes.ignore_index], minlength=len(dataset.classes))
        halves.append(counts / max(counts.sum(), 1))
    difference: NDArray[np.float64] = halves[0] - halves[1]
    return difference


def _moments(image: NDArray[Any]) -> NDArray[np.float64]:
    pixels = image.reshape(-1, image.shape[2]).astype(np.float64)
    return np.stack([pixels.mean(0), np.square(pixels).mean(0)])
