"""Pieces of a whole answer: tiles computed one after another, cut to what each is the one to write."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from fullyconv.inference.blend import blend
from fullyconv.inference.plans import Rectangle, TilePlan

Read = Callable[[tuple[slice, slice]], NDArray[Any]]
Run = Callable[[Iterable[NDArray[Any]]], Iterator[NDArray[Any]]]
Tag = TypeVar("Tag")


class Piece(NamedTuple):
    """A part of the answer.

    Parameters
    ----------
    number
        Of the tile, or, where tiles are blended, of the row of tiles.
    where
        The rows and columns of the answer.
    values
        Labels h×w or probabilities h×w×K.
    """

    number: int
    where: Rectangle
    values: NDArray[Any]


def count_pieces(plan: TilePlan) -> int:
    """Return how many pieces a plan has: its tiles, or its rows of tiles where these are blended."""
    return plan.count if plan.exact else plan.rows.count


def compute_pieces(
    plan: TilePlan, read: Read, run: Run, wanted: Iterable[int], *, align: int = 1
) -> Iterator[Piece]:
    """Compute pieces in the order given.

    Parameters
    ----------
    plan
        Of the tiles.
    read
        Returns a window of the image, h×w×C.
    run
        Turns windows into answers, in order, such as `Runner.run`: labels, or probabilities, which those that
        are blended need to be.
    wanted
        Numbers of pieces below `count_pieces`.
    align
        Borders between pieces that are blended fall on multiples of this; those of exact ones are the plan's.
    """
    if plan.exact:
        tiles = (plan[index] for index in wanted)
        for tile, answer in in_step(run, ((tile, read(tile.read.slices)) for tile in tiles)):
            yield Piece(tile.index, tile.write, answer[tile.inside.slices])
    else:
        for index, where, values in blend(plan, read, run, wanted, align):
            yield Piece(index, where, values)


def in_step(run: Run, windows: Iterable[tuple[Tag, NDArray[Any]]]) -> Iterator[tuple[Tag, NDArray[Any]]]:
    """Run windows, and return with each answer what came with its window."""
    waiting: deque[Tag] = deque()

    def alone() -> Iterator[NDArray[Any]]:
        for tag, window in windows:
            waiting.append(tag)
            yield window

    for answer in run(alone()):
        yield waiting.popleft(), answer
