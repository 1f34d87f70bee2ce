"""Shares and means that are not a number where there is nothing to divide by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ratio(
    part: NDArray[Any], whole: NDArray[Any], defined: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return part / whole, and ``nan`` where ``whole`` is 0 or the ratio is not defined."""
    where = whole > 0 if defined is None else defined & (whole > 0)
    shares: NDArray[np.float64] = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=where)
    return shares


def mean_over_classes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is a number there."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1))
