"""Intervals by resampling images (Efron, 1979): how much a score would differ on other images of the kind."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLINGS = 2000
_DRAWN_AT_ONCE = 1 << 22  # numbers held while drawing


def resample(sums: NDArray[Any], *, resamplings: int = RESAMPLINGS, seed: int = 0) -> NDArray[np.float64]:
    """Return the totals of the images of each resampling, drawn with replacement.

    The same seed and number of images draw the same images, so that differences of two models are paired.

    Parameters
    ----------
    sums
        What each of N images adds, N×…
    resamplings
        How many to draw, R.
    seed
        Of the draws.

    Returns
    -------
    ndarray
        R×…, float64.

    Examples
    --------
    >>> sums = np.array([[1, 2], [3, 4]])
    >>> resample(sums, resamplings=4).tolist()
    [[4.0, 6.0], [4.0, 6.0], [6.0, 8.0], [6.0, 8.0]]
    """
    images = len(sums)
    flat = sums.reshape(images, -1).astype(np.float64)
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWN_AT_ONCE // images)
    totals = [
        rng.multinomial(images, np.full(images, 1 / images), min(rows, resamplings - start)) @ flat
        for start in range(0, resamplings, rows)
    ]
    return np.concatenate(totals).reshape(resamplings, *sums.shape[1:])


def interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds that hold the middle 95 % of resampled values R×…, each of shape ….

    Resamplings in which a value is not defined (no true pixel of its class was drawn) are left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # never defined: the bounds are nan, as they should
        low, high = np.nanpercentile(values, (2.5, 97.5), axis=0)
    return low, high
