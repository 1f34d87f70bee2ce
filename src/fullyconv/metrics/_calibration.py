"""Whether a network that says 90 % is right in 90 % of cases (Guo et al., ICML 2017, section 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fullyconv.labels import Labels
from fullyconv.metrics._ratios import ratio

BINS = 15


def calibration_sums(
    probabilities: NDArray[np.float32], truth: Labels, ignore_index: int
) -> NDArray[np.float64]:
    """Count pixels, rightly answered ones and confidence by the confidence of the answer, in one image.

    Parameters
    ----------
    probabilities
        H×W×K; the answer is the most probable class, its probability the confidence.
    truth
        Labels H×W.
    ignore_index
        Pixels whose truth is this count nowhere.

    Returns
    -------
    ndarray
        15×3, float64: pixels, rightly answered pixels and the sum of confidences in each of 15 bins of equal
        width from 0 to 1, a bin holding its upper end. Those of several images add up.
    """
    counted = truth != ignore_index
    confidence = probabilities.max(2)[counted]
    right = probabilities.argmax(2)[counted] == truth[counted]
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    weights = (None, right, confidence)
    return np.stack([np.bincount(place, weight, BINS).astype(np.float64) for weight in weights], -1)


def score_calibration(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Score calibration from the totals …×15×3 of `calibration_sums`.

    Returns
    -------
    dict
        "expected_calibration_error" …: the mean over pixels of |accuracy − confidence| of their bin;
        "bin_pixels", "bin_accuracy", "bin_confidence" …×15: what a reliability diagram shows, ``nan`` in
        empty bins.
    """
    pixels, right, confidence = np.moveaxis(sums, -1, 0)
    return {
        "expected_calibration_error": ratio(np.abs(right - confidence).sum(-1), pixels.sum(-1)),
        "bin_pixels": pixels,
        "bin_accuracy": ratio(right, pixels),
        "bin_confidence": ratio(confidence, pixels),
    }
