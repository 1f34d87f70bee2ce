"""Blending of tiles that cannot be exact: where several overlap, their probabilities are averaged.

Near its middle a tile knows more of what surrounds a pixel than near its border, so each weighs in with a
Gaussian around its middle, as in nnU-Net (Isensee et al., arXiv 1809.10486). Rows of tiles are added up in a
buffer as high as a tile and let go as soon as no further tile reaches them: the memory does not grow with
the height of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.geometry import Interval
from fullyconv.inference.plans import AxisPlan, Rectangle, TilePlan

# The Gaussian's standard deviation as a share of the tile, and the least weight of a pixel, which keeps those
# that one tile alone reaches.
SIGMA = 1 / 8
LEAST_WEIGHT = 1e-3


def blend(
    plan: TilePlan,
    read: Callable[[tuple[slice, slice]], NDArray[Any]],
    run: Callable[[Iterable[NDArray[Any]]], Iterator[NDArray[Any]]],
    wanted: Iterable[int],
    align: int = 1,
) -> Iterator[tuple[int, Rectangle, NDArray[np.float32]]]:
    """Yield (number, rows and columns, probabilities h×w×K) of full-width bands: one per row of tiles.

    Bands that follow each other share the tiles they overlap on; the first of each run of numbers computes
    those of the band before as well, so that every band has the same values whichever are wanted.

    Parameters
    ----------
    plan
        Of tiles that overlap by half.
    read, run
        What returns windows, and what turns windows into probabilities, in order.
    wanted
        Numbers of bands: of rows of tiles.
    align
        Borders between bands fall on multiples of this. A band may be empty.
    """
    for first, last in _runs(wanted):
        yield from _blend_run(plan, read, run, first, last, align)


def _blend_run(
    plan: TilePlan,
    read: Callable[[tuple[slice, slice]], NDArray[Any]],
    run: Callable[[Iterable[NDArray[Any]]], Iterator[NDArray[Any]]],
    first: int,
    last: int,
    align: int,
) -> Iterator[tuple[int, Rectangle, NDArray[np.float32]]]:
    rows, columns = plan.rows, plan.columns
    height, width = rows.tile_output_size, columns.output_size
    top = band(rows, first, align).start
    start = next(row for row in range(rows.count) if rows.begins(row) + height > top)
    weights = np.outer(_gaussian(height), _gaussian(columns.tile_output_size))[..., None]
    across = _total(columns, Interval(0, width))
    answers = run(
        read((slice(*rows.read(row)), slice(*columns.read(column))))
        for row in range(start, last + 1)
        for column in range(columns.count)
    )
    sums: NDArray[np.float32] | None = None
    for row in range(start, last + 1):
        below = rows.begins(row)
        for column in range(columns.count):
            answer = next(answers)
            if sums is None:
                top = below  # what lies above the wanted bands is added up too, and left
                sums = np.zeros((height, width, answer.shape[2]), np.float32)
            if below + height - top > len(sums):
                more = np.zeros((below + height - top - len(sums), *sums.shape[1:]), np.float32)
                sums = np.concatenate([sums, more])
            left = columns.begins(column)
            inside = np.s_[below - top : below - top + height, left : left + columns.tile_output_size]
            sums[inside] += answer * weights
        assert sums is not None  # a row has at least one tile
        done = band(rows, row, align)
        if row >= first:
            totals = np.outer(_total(rows, done), across)[..., None]
            yield row, Rectangle(done, Interval(0, width)), sums[done.start - top : done.stop - top] / totals
        keep = max(done.stop - top, 0)
        sums, top = sums[keep:].copy(), top + keep


def band(rows: AxisPlan, row: int, align: int) -> Interval:
    """Return the rows of output that are final once row ``row`` of the tiles is added."""

    def final(row: int) -> int:
        return rows.output_size if row == rows.count - 1 else rows.begins(row + 1) // align * align

    return Interval(0 if row == 0 else final(row - 1), final(row))


def _gaussian(length: int) -> NDArray[np.float32]:
    distance = (np.arange(length) - (length - 1) / 2) / max(1.0, length * SIGMA)
    return np.maximum(np.exp(-(distance**2) / 2), LEAST_WEIGHT).astype(np.float32)


def _total(axis: AxisPlan, part: Interval) -> NDArray[np.float32]:
    """Return the sum of the weights of all tiles at each position of a part of an axis."""
    gaussian = _gaussian(axis.tile_output_size)
    total = np.zeros(part.size, np.float32)
    for index in range(axis.count):
        begin = axis.begins(index) - part.start
        low, high = max(begin, 0), min(begin + len(gaussian), part.size)
        if low < high:
            total[low:high] += gaussian[low - begin : high - begin]
    return total


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each run of numbers that follow each other."""
    kept: Sequence[int] = list(numbers)
    for _, group in groupby(enumerate(kept), lambda pair: pair[1] - pair[0]):
        found = [number for _, number in group]
        yield found[0], found[-1]
