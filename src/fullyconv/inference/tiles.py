"""Tiles of an image whose predictions, put together, equal the prediction of the whole image.

Three things make a tile exact. It starts at a multiple of the network's total stride and is as long as the
image modulo that stride, so every layer meets the same phase; it ends where the image ends or is cut; and
only outputs that look at nothing beyond a cut are written. What that leaves out at each cut, the halo, is
computed from the network's geometry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

from fullyconv.errors import ConfigError, GeometryError
from fullyconv.geometry import Graph, Interval
from fullyconv.inference.plans import AxisPlan, TilePlan
from fullyconv.receptive_fields import Geometry

# Of tiles that cannot be exact, neighbours share this part of their length, for blending.
_BLENDED_SHARE = Fraction(1, 2)


def plan_tiles(
    geometry: Geometry,
    image_size: tuple[int, int],
    tile: int | tuple[int, int],
    *,
    align: int = 1,
    shrink: bool = True,
    mirrored: tuple[bool, bool] = (False, False),
) -> TilePlan:
    """Plan the tiles of an image.

    Parameters
    ----------
    geometry
        Of the network, from `fullyconv.receptive_fields.trace_geometry`.
    image_size
        (height, width) of the image.
    tile
        The most pixels a tile may have along each axis. An axis that is no longer is not cut.
    align
        Borders between what two tiles write fall on multiples of this, so that with the chunk size of a store
        here no two tiles write one chunk.
    shrink
        Take the smallest tile that needs as many tiles as the largest allowed one; otherwise the largest.
    mirrored
        Whether each tile is also given to the network upside down, and left to right (see
        `fullyconv.models.Averaged`): then a cut spoils as much on either side as it does on the worse one.

    Returns
    -------
    TilePlan
        Its tiles' ``write`` rectangles partition the output. Ask ``exact`` whether they reproduce the whole.

    Raises
    ------
    ConfigError
        The tile cannot hold the halo and something to write; the smallest possible one is named.
    GeometryError
        The network does not run at the size of the image or of the tile.
    """
    rows, columns = _axes(geometry, image_size, tile, align, mirrored)
    if not rows.is_cut and not columns.is_cut:
        return TilePlan(rows.uncut(), columns.uncut())
    reasons = _obstacles(geometry, rows, columns)
    if not reasons:
        plan = TilePlan(rows.exact(align, shrink), columns.exact(align, shrink))
        reasons = _differences(geometry, plan)
        if not reasons:
            return plan
    plan = TilePlan(rows.blended(align, shrink), columns.blended(align, shrink), tuple(reasons))
    made = geometry.output_size(plan.tile_size)
    if made != (plan.rows.tile_output_size, plan.columns.tile_output_size):
        raise GeometryError(
            f"a network that makes {made[0]}×{made[1]} of a tile of {plan.tile_size[0]}×{plan.tile_size[1]}",
            f"{plan.rows.tile_output_size}×{plan.columns.tile_output_size}, by its strides",
            "predict images whole, or let the network return scores of its input's size",
        )
    return plan


def draft_tiles(
    geometry: Geometry,
    image_size: tuple[int, int],
    tile: int | tuple[int, int],
    *,
    align: int = 1,
    mirrored: tuple[bool, bool] = (False, False),
) -> TilePlan:
    """Plan tiles as `plan_tiles` does, but do not ask whether each layer treats them as it treats the whole.

    That question takes most of the time of planning: among many drafts it is asked of the best alone.
    """
    rows, columns = _axes(geometry, image_size, tile, align, mirrored)
    reasons = tuple(_obstacles(geometry, rows, columns))
    if reasons:
        return TilePlan(rows.blended(align, True), columns.blended(align, True), reasons)
    return TilePlan(rows.exact(align, True), columns.exact(align, True))


def find_halo(
    geometry: Geometry, image_size: tuple[int, int], mirrored: tuple[bool, bool] = (False, False)
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the output positions spoilt at a cut of an image: ((above, below), (left, right))."""
    rows, columns = (axis.halo for axis in _axes(geometry, image_size, 1, 1, mirrored))
    return rows, columns


def _axes(
    geometry: Geometry,
    image_size: tuple[int, int],
    tile: int | tuple[int, int],
    align: int,
    mirrored: tuple[bool, bool],
) -> tuple[_Axis, _Axis]:
    limits = (tile, tile) if isinstance(tile, int) else tile
    if min(limits) < 1 or align < 1:
        raise ConfigError(
            f"tile {tile} and align {align}", "pixels, at least 1", "leave them out, or use 1024 and 1"
        )
    known = (
        geometry.graphs(image_size),
        image_size,
        limits,
        geometry.stride,
        geometry.output_stride,
        mirrored,
    )
    rows, columns = (_Axis(*of_axis) for of_axis in zip(*known, strict=True))
    return rows, columns


def _obstacles(geometry: Geometry, rows: _Axis, columns: _Axis) -> list[str]:
    """Name what keeps any tiles of this image from being exact."""
    reasons = [f"{context} depends on the whole image" for context in geometry.global_context]
    return reasons + [
        f"the layers' strides differ from the usual at {axis.size} pixels"
        for axis in (rows, columns)
        if axis.is_cut and axis.graph.period() != axis.stride
    ]


@dataclass(frozen=True)
class _Axis:
    """An axis of an image, and what is known of the network along it."""

    graph: Graph
    size: int
    limit: int
    stride: int
    step: Fraction
    mirrored: bool

    @property
    def is_cut(self) -> bool:
        return self.size > self.limit

    @property
    def made(self) -> int:
        return self.graph.output_size(self.size)

    @property
    def halo(self) -> tuple[int, int]:
        before, after = _halo(self.graph, self.size)
        return (max(before, after),) * 2 if self.mirrored else (before, after)

    def uncut(self) -> AxisPlan:
        return AxisPlan(self.size, self.made, self.size, self.made, Fraction(1))

    def exact(self, align: int, shrink: bool) -> AxisPlan:
        if not self.is_cut:
            return self.uncut()
        cutting = _Cutting(self.size, self.made, self.stride, self.step, self.halo, align)
        return _cut(cutting, self.limit, shrink)

    def blended(self, align: int, shrink: bool) -> AxisPlan:
        if not self.is_cut:
            return self.uncut()
        # Outputs as many as pixels are the pixels, whatever the layers between did with them.
        step = Fraction(1) if self.made == self.size else self.step
        stride = self.stride if 4 * self.stride <= self.limit else step.numerator
        shared = ceil(self.limit / step * _BLENDED_SHARE / 2)
        return _cut(_Cutting(self.size, self.made, stride, step, (shared, shared), align), self.limit, shrink)


def _halo(graph: Graph, size: int) -> tuple[int, int]:
    """Count the outputs after a cut and before a cut that look beyond it, in any layer."""
    sizes = graph.sizes(size)
    made = sizes[graph.output]

    def clear_before(skipped: int) -> bool:
        return all(seen.start >= 0 for seen in graph.reach(Interval(skipped, skipped + 1), size).values())

    def clear_after(skipped: int) -> bool:
        looked = graph.reach(Interval(made - skipped - 1, made - skipped), size)
        return all(seen.stop <= sizes[name] for name, seen in looked.items())

    return _least(clear_before), _least(clear_after)


def _least(holds: Callable[[int], bool]) -> int:
    """Return the least number, zero or more, from which on ``holds`` is true."""
    if holds(0):
        return 0
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class _Cutting:
    """An axis to be cut into tiles; the halo is in output positions."""

    size: int
    made: int
    stride: int
    step: Fraction
    halo: tuple[int, int]
    align: int

    def plan(self, tile: int) -> AxisPlan | None:
        """Return the plan with tiles of ``tile`` pixels, the size modulo the stride; None if too small."""
        period = int(self.stride / self.step)
        before, after = self.halo
        tile_made = self.made - int((self.size - tile) / self.step)
        last = self.made - tile_made
        boundary = (tile_made - after) // self.align * self.align
        start = (boundary - before) // period * period
        if start <= 0:
            return None
        if start >= last:
            advance, count = 0, 2
        else:
            room = tile_made - after - (boundary - start)
            unit = lcm(period, self.align)
            advance = room // unit * unit
            if advance <= 0:
                return None
            count = 2 + -(-(last - start) // advance)
        return AxisPlan(
            self.size, self.made, tile, tile_made, self.step, self.halo, boundary, start, advance, count
        )


def _cut(cutting: _Cutting, limit: int, shrink: bool) -> AxisPlan:
    largest = limit - (limit - cutting.size) % cutting.stride
    best = cutting.plan(largest) if largest > 0 else None
    if best is None:
        least = next(
            tile
            for tile in range(largest + cutting.stride, cutting.size + cutting.stride, cutting.stride)
            if tile == cutting.size or cutting.plan(tile) is not None
        )
        raise ConfigError(
            f"a tile of {limit} pixels along an axis of {cutting.size}",
            f"at least {least}: the network spoils {cutting.halo[0]} positions of output after a cut and "
            f"{cutting.halo[1]} before one, and tiles start at multiples of {cutting.stride}",
            f"use --tile {least} or more",
        )
    if shrink:
        for tile in range(largest - cutting.stride, 0, -cutting.stride):
            smaller = cutting.plan(tile)
            if smaller is None or smaller.count > best.count:
                break
            best = smaller
    return best


def _differences(geometry: Geometry, plan: TilePlan) -> list[str]:
    """Name the layers that do another thing to a tile than to the whole image."""
    whole = geometry.graphs(plan.image_size)
    part = geometry.graphs(plan.tile_size)
    found: dict[str, None] = {}
    for whole_axis, part_axis, axis in zip(whole, part, (plan.rows, plan.columns), strict=True):
        if axis.count == 1:
            continue
        if [node.name for node in whole_axis.nodes] != [node.name for node in part_axis.nodes]:
            return ["the network takes other steps for a tile than for the whole image"]
        steps = whole_axis.steps()
        sizes, part_sizes = whole_axis.sizes(axis.image_size), part_axis.sizes(axis.tile_size)
        cut = axis.image_size - axis.tile_size
        for node, other in zip(whole_axis.nodes, part_axis.nodes, strict=True):
            step = steps[node.name]
            if node != other or step is None or (sizes[node.name] - part_sizes[node.name]) * step != cut:
                found[
                    f"{node.name} works by the size of its input: another for a tile than for the whole image"
                ] = None
    return list(found)
