"""Labels to polygons along the edges of pixels, without a loop over pixels, edges or rings.

Every side of a pixel whose neighbour has another label is an edge, directed so that the pixel lies to its
right on the screen. Edges in a row make a segment. Around a ring, horizontal and vertical segments alternate,
so two sorted joins of ends with starts link all segments, and pointer jumping (Wyllie, *The complexity of
parallel computations*, 1979) puts the segments of every ring in order at once.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ImageError
from fullyconv.labels import Labels
from fullyconv.outlines._polygon import Polygon

Indices = NDArray[np.int64]
Rows = NDArray[np.signedinteger[Any]]

_OUTSIDE = -1
_BAND_PIXELS = 2**22

# Sides of a pixel: travelled to the left or up, and travelled to the right or down.
_BOTTOM, _TOP = 0, 1
_LEFT, _RIGHT = 0, 1


class LabelRows(Protocol):
    """H×W labels that give bands of rows, such as an array, or a Zarr array on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width)."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return these rows as an array."""


def trace_polygons(labels: Labels | LabelRows, *, leave_out: Collection[int] = ()) -> list[Polygon]:
    """Outline every connected region of equal labels exactly along the edges of its pixels.

    Pixels are connected by their sides (4-connectivity): two that touch only at a corner are two regions, for
    one polygon of both would not be valid in geographic software.

    Parameters
    ----------
    labels
        H×W whole numbers of 0 or more. Read once, in bands of rows: the memory used grows with the length
        of the outlines, not with the image.
    leave_out
        Labels without polygons, such as the ignore index and the background.

    Returns
    -------
    list of Polygon
        In order of their first pixel (row by row). Corners are whole numbers, and only where the outline
        turns. With x = column and y = row, outer rings have positive signed area and holes negative (RFC 7946
        section 3.1.6). Rings never cross; they may touch each other, never themselves, at single corners
        (OGC 06-103r4, section 6.1.11). The areas of a label's polygons sum to its number of pixels, and
        filling them gives the labels back.

    Raises
    ------
    ImageError
        The labels are not H×W whole numbers of 0 or more.

    Examples
    --------
    >>> (region,) = trace_polygons(np.array([[0, 7], [7, 7]]), leave_out=(0,))
    >>> region.label, region.area, region.rings[0].tolist()
    (7, 3.0, [[0, 1], [0, 2], [2, 2], [2, 0], [1, 0], [1, 1]])
    """
    if len(labels.shape) != 2:
        raise ImageError(f"labels of shape {tuple(labels.shape)}", "height × width", "pass one label image")
    horizontal, vertical, run_starts = _segments(labels, leave_out)
    if not len(horizontal.label):
        return []
    width = labels.shape[1]
    known, rank = np.unique(horizontal.label, return_inverse=True)
    group = rank, np.searchsorted(known, vertical.label)
    rings = _link(horizontal, vertical, group, width, cross=False)
    outer = _regions(horizontal, vertical, run_starts, rings, labels.shape[0])
    # Now that regions are known: a ring that touches itself is made two, as OGC's simple features want it.
    group = outer[rings.of_horizontal], outer[rings.of_vertical]
    rings = _link(horizontal, vertical, group, width, cross=True)
    outer = _regions(horizontal, vertical, run_starts, rings, labels.shape[0])
    return _polygons(horizontal, rings, outer)


class _Segments(NamedTuple):
    """Straight pieces of outline, ordered by line, side and position.

    ``line`` is the row (of horizontal ones) or column they lie on, from ``low`` to ``high`` along it.
    """

    line: Indices
    side: Indices
    low: Indices
    high: Indices
    label: Indices

    @property
    def start(self) -> Indices:
        return np.where(self.side == 1, self.low, self.high)

    @property
    def end(self) -> Indices:
        return np.where(self.side == 1, self.high, self.low)


def _segments(labels: Labels | LabelRows, leave_out: Collection[int]) -> tuple[_Segments, _Segments, Indices]:
    """Return horizontal and vertical segments, and where the run of labels above each bottom side begins."""
    height, width = labels.shape
    rows = max(1, _BAND_PIXELS // max(width, 1))
    across, down = [], []
    above: Rows = np.full((1, width + 2), _OUTSIDE)
    for top in range(0, height + 1, rows):
        band = _padded(labels[top : top + rows], leave_out, last=top + rows > height)
        band = np.concatenate([above.astype(band.dtype, copy=False), band])
        above = band[-1:]
        across.append(_horizontal_edges(band, top))
        down.append(_vertical_edges(band, top))
    across_key, across_label, begins = (np.concatenate(part) for part in zip(*across, strict=True))
    # A horizontal edge is counted row by row, a vertical one column by column.
    horizontal, kept = _merge(across_key, across_label, width + 1)
    line, side, position, down_label = (np.concatenate(part) for part in zip(*down, strict=True))
    key = (line * 2 + side) * (height + 1) + position
    by_line = np.argsort(key)
    vertical, _ = _merge(key[by_line], down_label[by_line], height + 1)
    return horizontal, vertical, begins[kept]


def _padded(band: Any, leave_out: Collection[int], *, last: bool) -> Rows:
    """Return rows with a column of no label on both sides, and below the last row of the image one row."""
    band = np.asarray(band)
    if band.dtype.kind not in "bui" or (band.dtype.kind == "i" and band.size and band.min() < 0):
        raise ImageError(
            f"labels of type {band.dtype}" + (" below 0" if band.dtype.kind == "i" else ""),
            "whole numbers of 0 or more",
            "take the arg-max over the classes first",
        )
    signed = np.promote_types(band.dtype, np.int16) if band.dtype.itemsize <= 2 else np.dtype(np.int64)
    values = np.pad(band.astype(signed), ((0, int(last)), (1, 1)), constant_values=_OUTSIDE)
    for label in leave_out:
        values[values == label] = _OUTSIDE
    return values


def _horizontal_edges(band: Rows, top: int) -> tuple[Indices, Indices, Indices]:
    """Return key, label and beginning of the run of labels of every edge above the rows after the first."""
    width = band.shape[1] - 2
    above, below = band[:-1, 1:-1], band[1:, 1:-1]
    differs = above != below
    sides = np.stack([differs & (above != _OUTSIDE), differs & (below != _OUTSIDE)], axis=1)
    line, side, column = np.nonzero(sides)
    label = band[line + side, column + 1]
    # The left end of the run that a pixel above an edge lies in: the nearest left side up to it.
    lefts = np.flatnonzero((band[:-1, 1:] != band[:-1, :-1]) & (band[:-1, 1:] != _OUTSIDE))
    begins = np.zeros(len(line), np.int64)
    bottom = side == _BOTTOM
    pixel = line[bottom] * (width + 1) + column[bottom]
    begins[bottom] = lefts[np.searchsorted(lefts, pixel, side="right") - 1] % (width + 1)
    return ((line + top) * 2 + side) * (width + 1) + column, label, begins


def _vertical_edges(band: Rows, top: int) -> tuple[Indices, Indices, Indices, Indices]:
    """Return line, side, row and label of every edge beside the pixels of the rows after the first."""
    left, right = band[1:, :-1], band[1:, 1:]
    differs = left != right
    found = [
        (line, np.full(len(line), side), row + top, pixels[row, line])
        for side, pixels in ((_LEFT, right), (_RIGHT, left))
        for row, line in [np.nonzero(differs & (pixels != _OUTSIDE))]
    ]
    line, side, row, label = (np.concatenate(part) for part in zip(*found, strict=True))
    return line, side, row, label


def _merge(key: Indices, label: Indices, length: int) -> tuple[_Segments, Indices]:
    """Join edges that follow each other on a line of ``length`` places; return also each one's first edge."""
    follows = (key[1:] == key[:-1] + 1) & (label[1:] == label[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~follows])) if len(key) else np.zeros(0, np.int64)
    last = np.append(first[1:], len(key)) - 1
    line_side, low = np.divmod(key[first], length)
    high = low + last - first + 1
    return _Segments(line_side // 2, line_side % 2, low, high, label[first]), first


class _Rings(NamedTuple):
    """Closed outlines: the segments of all, ring after ring, each beginning with its first in row order."""

    order: Indices  # horizontal segments; the vertical ones lie between
    begins: Indices  # where in ``order`` each ring begins
    of_horizontal: Indices
    of_vertical: Indices


def _link(
    horizontal: _Segments, vertical: _Segments, group: tuple[Indices, Indices], width: int, *, cross: bool
) -> _Rings:
    """Follow the outlines; where two pixels of a group touch at a corner, stay with it or cross over."""
    count = int(group[0].max()) + 1

    def place(row: Indices, column: Indices, group: Indices, way: Indices) -> Indices:
        return ((row * (width + 1) + column) * count + group) * 2 + way

    way = 1 - vertical.side if cross else vertical.side
    vertical_after = _join(
        place(horizontal.line, horizontal.end, group[0], horizontal.side),
        place(vertical.start, vertical.line, group[1], way),
    )
    horizontal_after = _join(
        place(vertical.end, vertical.line, group[1], 1 - way),
        place(horizontal.line, horizontal.start, group[0], horizontal.side),
    )
    of_horizontal, order, begins = _cycles(horizontal_after[vertical_after])
    of_vertical = np.empty(len(of_horizontal), np.int64)
    of_vertical[vertical_after] = of_horizontal
    return _Rings(order, begins, of_horizontal, of_vertical)


def _join(ends: Indices, starts: Indices) -> Indices:
    """Return for each end the start at the same place; both are the same set of places."""
    joined = np.empty(len(ends), np.int64)
    joined[np.argsort(ends)] = np.argsort(starts)
    return joined


def _cycles(after: Indices) -> tuple[Indices, Indices, Indices]:
    """Take a permutation apart into cycles, numbered by their smallest elements and beginning with them.

    Returns the cycle of each element, all elements cycle by cycle, and where in that list each cycle begins.
    """
    smallest, jump = np.arange(len(after)), after
    while not np.array_equal(smallest, lower := np.minimum(smallest, smallest[jump])):
        smallest, jump = lower, jump[jump]
    is_last = after == smallest
    remaining, jump = np.where(is_last, 0, 1), np.where(is_last, np.arange(len(after)), after)
    while (more := remaining[jump]).any():
        remaining, jump = remaining + more, jump[jump]
    first = np.flatnonzero(smallest == np.arange(len(after)))
    lengths = remaining[first] + 1
    begins = np.cumsum(lengths) - lengths
    cycle = np.searchsorted(first, smallest)
    order = np.empty(len(after), np.int64)
    order[begins[cycle] + lengths[cycle] - 1 - remaining] = np.arange(len(after))
    return cycle, order, begins


def _regions(
    horizontal: _Segments, vertical: _Segments, run_starts: Indices, rings: _Rings, height: int
) -> Indices:
    """Return for each ring the outer ring of its region: itself, or the one around a hole."""
    first = rings.order[rings.begins]
    # A ring is highest at its first segment: on an outer ring a top side, on a hole the bottom of a pixel.
    holes = np.flatnonzero(horizontal.side[first] == _BOTTOM)
    above = first[holes]
    # The run of labels that this pixel lies in begins at a left side of the same region, of its outer ring or
    # of a hole that begins higher up: following them ends at the outer ring.
    line, row = run_starts[above], horizontal.line[above] - 1
    key = (vertical.line * 2 + vertical.side) * (height + 1) + vertical.low
    beside = np.searchsorted(key, (line * 2 + _LEFT) * (height + 1) + row, side="right") - 1
    outer = np.arange(len(first))
    outer[holes] = rings.of_vertical[beside]
    while not np.array_equal(outer, further := outer[outer]):
        outer = further
    return outer


def _polygons(horizontal: _Segments, rings: _Rings, outer: Indices) -> list[Polygon]:
    """Cut the corners ring from ring, and put every hole behind its outer ring."""
    corners = np.empty((len(rings.order), 2, 2), np.int64)
    corners[..., 0] = horizontal.line[rings.order, None]
    corners[:, 0, 1] = horizontal.start[rings.order]
    corners[:, 1, 1] = horizontal.end[rings.order]
    parts = _cut(corners.reshape(-1, 2), 2 * rings.begins)
    label = horizontal.label[rings.order[rings.begins]].tolist()
    members = np.argsort(outer, kind="stable")
    groups = _cut(members.tolist(), np.flatnonzero(np.diff(outer[members], prepend=-1)))
    return [Polygon(label[group[0]], tuple(parts[member] for member in group)) for group in groups]


def _cut(sequence: Any, begins: Indices) -> list[Any]:
    """Cut before each of ``begins``: ``np.split``, much faster for many parts."""
    bounds = [*begins.tolist(), len(sequence)]
    return [sequence[begin:end] for begin, end in pairwise(bounds)]
