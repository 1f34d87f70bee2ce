"""Plans of tiles: what each reads of the image, and which part of the answer is its to write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from fullyconv.geometry import Interval


class Rectangle(NamedTuple):
    """Rows and columns of an image."""

    rows: Interval
    columns: Interval

    @property
    def slices(self) -> tuple[slice, slice]:
        """What to index an H×W or H×W×C array with."""
        return slice(*self.rows), slice(*self.columns)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.rows.size, self.columns.size


@dataclass(frozen=True, slots=True)
class Tile:
    """One piece of work.

    Parameters
    ----------
    index
        Its number in the plan.
    read
        The part of the image to give to the network.
    write
        The part of the whole output that it makes.
    inside
        That part within the output of this tile.
    """

    index: int
    read: Rectangle
    write: Rectangle
    inside: Rectangle


@dataclass(frozen=True)
class AxisPlan:
    """The tiles along one axis.

    Parameters
    ----------
    image_size, output_size
        The positions of the image and of the network's output for the whole of it.
    tile_size, tile_output_size
        The same of one tile.
    step
        Image positions per output position.
    halo
        The output positions that a cut before and a cut after a tile spoil.
    boundary
        Where the second tile begins to write.
    start
        Where the output of the second tile begins.
    advance
        How far later tiles lie apart in the output.
    count
        How many tiles there are.
    """

    image_size: int
    output_size: int
    tile_size: int
    tile_output_size: int
    step: Fraction
    halo: tuple[int, int] = (0, 0)
    boundary: int = 0
    start: int = 0
    advance: int = 0
    count: int = 1

    def begins(self, index: int) -> int:
        """Return where in the output the output of tile ``index`` begins, its halo included."""
        if index == 0:
            return 0
        return min(self.start + (index - 1) * self.advance, self.output_size - self.tile_output_size)

    def read(self, index: int) -> Interval:
        """Return the image positions of tile ``index``."""
        begin = int(self.begins(index) * self.step)
        return Interval(begin, begin + self.tile_size)

    def write(self, index: int) -> Interval:
        """Return the output positions that tile ``index`` is the one to write."""
        begin = 0 if index == 0 else self.boundary + (index - 1) * self.advance
        end = self.output_size if index == self.count - 1 else self.boundary + index * self.advance
        return Interval(begin, end)

    def inside(self, index: int) -> Interval:
        """Return `write` counted from where the tile's own output begins."""
        return self.write(index).shifted(-self.begins(index))


@dataclass(frozen=True)
class TilePlan:
    """All tiles of one image, made as they are asked for: a plan takes the same memory for any image.

    Parameters
    ----------
    rows, columns
        The plans of both axes.
    reasons
        Why the tiles cannot reproduce the whole image, one line each; empty where they do. Where it is not
        empty, neighbouring tiles share half their length, so that their outputs can be blended.
    """

    rows: AxisPlan
    columns: AxisPlan
    reasons: tuple[str, ...] = ()

    @classmethod
    def whole(cls, image_size: tuple[int, int], output_size: tuple[int, int]) -> TilePlan:
        """Return the plan of one tile: the image itself."""
        rows, columns = (
            AxisPlan(size, made, size, made, Fraction(1))
            for size, made in zip(image_size, output_size, strict=True)
        )
        return cls(rows, columns)

    @property
    def exact(self) -> bool:
        """Whether the tiles reproduce the prediction of the whole image."""
        return not self.reasons

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return self.rows.count * self.columns.count

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.rows.image_size, self.columns.image_size

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the output."""
        return self.rows.output_size, self.columns.output_size

    @property
    def tile_size(self) -> tuple[int, int]:
        """(height, width) of what every tile reads: one shape for the whole plan."""
        return self.rows.tile_size, self.columns.tile_size

    @property
    def halo(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Output positions spoilt at a cut: ((above, below), (left, right)); zeros where nothing is cut."""
        return self.rows.halo, self.columns.halo

    @property
    def overlap_cost(self) -> float:
        """Output positions computed for each one written, 1.0 or more."""
        computed = self.count * self.rows.tile_output_size * self.columns.tile_output_size
        return computed / (self.rows.output_size * self.columns.output_size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tile:
        if not 0 <= index < self.count:
            raise IndexError(index)
        row, column = divmod(index, self.columns.count)
        return Tile(
            index,
            Rectangle(self.rows.read(row), self.columns.read(column)),
            Rectangle(self.rows.write(row), self.columns.write(column)),
            Rectangle(self.rows.inside(row), self.columns.inside(column)),
        )

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(self.count))
