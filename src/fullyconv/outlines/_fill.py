"""Polygons to labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fullyconv.errors import ImageError
from fullyconv.labels import Labels
from fullyconv.outlines._polygon import Polygon

Indices = NDArray[np.int64]

_PAINTED_AT_ONCE = 2**22


def fill_polygons(
    polygons: Iterable[Polygon], size: tuple[int, int], *, outside: int = 0, dtype: DTypeLike = np.uint8
) -> Labels:
    """Paint polygons onto an empty label image.

    A pixel lies inside where a ray from its centre to the left crosses the rings an odd number of times (the
    even-odd rule, so holes need no direction); an edge through the very centre counts as crossed if it is a
    left or upper border. Later polygons cover earlier ones, and what lies beyond the image is cut off.

    Parameters
    ----------
    polygons
        Of any origin: corners may be fractions.
    size
        (height, width).
    outside
        The label of pixels in no polygon.
    dtype
        A whole type that holds every label.

    Returns
    -------
    ndarray
        H×W.

    Raises
    ------
    ImageError
        The type cannot hold a label.

    Examples
    --------
    >>> triangle = Polygon(1, (np.array([[0, 0], [0, 4], [4, 0]]),))
    >>> fill_polygons([triangle], (3, 4)).tolist()
    [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    """
    kept = list(polygons)
    values = np.array([polygon.label for polygon in kept], np.int64)
    limits = np.iinfo(dtype)
    for value in (int(values.min(initial=outside)), int(values.max(initial=outside))):
        if not limits.min <= value <= limits.max:
            raise ImageError(
                f"label {value} for {limits.dtype}", f"{limits.min} to {limits.max}", "use a wider dtype"
            )
    labels = np.full(size, outside, dtype)
    owner, first, length = _spans(kept, size)
    ends = np.cumsum(length)
    # A few spans at a time: indices of pixels take more memory than the pixels.
    chunk = ends // _PAINTED_AT_ONCE
    for part in np.split(np.arange(len(ends)), np.flatnonzero(np.diff(chunk)) + 1):
        run = length[part]
        within = np.arange(run.sum()) - np.repeat(np.cumsum(run) - run, run)
        labels.ravel()[np.repeat(first[part], run) + within] = np.repeat(values[owner[part]], run)
    return labels


def _spans(polygons: list[Polygon], size: tuple[int, int]) -> tuple[Indices, Indices, Indices]:
    """Return polygon, first pixel (counted row by row) and length of every run of pixels inside."""
    height, width = size
    rings = [(k, ring) for k, polygon in enumerate(polygons) for ring in polygon.rings]
    if not rings:
        return (np.zeros(0, np.int64),) * 3
    begin = np.concatenate([ring for _, ring in rings]).astype(np.float64)
    corners = np.array([len(ring) for _, ring in rings])
    after = np.arange(1, len(begin) + 1)
    after[np.cumsum(corners) - 1] -= corners
    end = begin[after]
    owner = np.repeat([k for k, _ in rings], corners)
    upper, lower = np.minimum(begin[:, 0], end[:, 0]), np.maximum(begin[:, 0], end[:, 0])
    # Rows whose centres lie from the upper end (included) to the lower one (excluded).
    top, bottom = (np.ceil(rows - 0.5).clip(0, height).astype(np.int64) for rows in (upper, lower))
    count = bottom - top
    edge = np.repeat(np.arange(len(owner)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + top[edge]
    height_of_edge = (end - begin)[edge, 0]
    crossing = begin[edge, 1] + (row + 0.5 - begin[edge, 0]) / height_of_edge * (end - begin)[edge, 1]
    column = np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)
    order = np.lexsort((column, row, owner[edge]))
    left, right = order[::2], order[1::2]
    return owner[edge[left]], row[left] * width + column[left], column[right] - column[left]
