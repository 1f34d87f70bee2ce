"""Which tiles an image is cut into: as few pixels computed twice as the memory allows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from math import ceil, lcm, prod
from typing import Literal

from fullyconv.errors import ConfigError, MachineError
from fullyconv.inference.memory import activation_bytes, available, resident, show_bytes
from fullyconv.inference.plans import TilePlan
from fullyconv.inference.tiles import draft_tiles, find_halo, plan_tiles
from fullyconv.models import Averaged, SegmentationModel
from fullyconv.receptive_fields import Geometry, trace_geometry

Size = tuple[int, int]
TileSize = int | Literal["auto"] | None

WHOLE_PIXELS = 1 << 20  # up to here an image is taken in one piece, where it fits in memory
LARGEST_TILE = 1 << 22  # pixels; in larger tiles engines compute a pixel no faster, and take more memory
_CACHE = 1 << 28
_BLENDED_TILES = (1024, 768, 512, 384, 256)


class Fitting:
    """Chooses tiles for images of one network.

    Parameters
    ----------
    model
        The network.
    tile
        The most pixels of a tile along each axis; None takes every image whole; "auto" takes images up to
        `WHOLE_PIXELS` whole, and of larger ones the tiles that fit in memory and take the least time.
    max_memory
        Bytes that the process may hold; None takes half of what is free.

    Attributes
    ----------
    at_once : int
        How many tiles are computed at once, each of which takes memory; 0 until somebody knows.
    bytes_per_value : int
        Of the numbers the engine computes with.
    """

    def __init__(
        self, model: SegmentationModel, tile: TileSize = "auto", max_memory: int | None = None
    ) -> None:
        self._model, self._tile, self._max_memory = model, tile, max_memory
        self.at_once, self.bytes_per_value = 0, 4

    @cached_property
    def geometry(self) -> Geometry:
        """Of the network, as it looks at the image itself."""
        model = self._model.straight if isinstance(self._model, Averaged) else self._model
        return trace_geometry(model, model.channels)

    @property
    def mirrored(self) -> tuple[bool, bool]:
        """Whether the network looks at every window upside down too, and left to right."""
        return self._model.mirrored if isinstance(self._model, Averaged) else (False, False)

    def cut(self, image_size: Size, tile: int | Size, *, align: int = 1) -> TilePlan:
        """Plan tiles of a size that somebody chose; see `plan_tiles`."""
        return plan_tiles(self.geometry, image_size, tile, align=align, mirrored=self.mirrored)

    @property
    def room(self) -> int:
        """The bytes that windows may take, beside what the process holds and the network compiled."""
        if self._max_memory is None:
            return available(next(self._model.parameters()).device) // 2
        return self._max_memory - resident() - self._weights - self.cache

    @property
    def _weights(self) -> int:
        return sum(part.nbytes for part in self._model.parameters())

    @cached_property
    def cache(self) -> int:
        """The bytes of decoded parts that an open image may keep."""
        if self._max_memory is None:
            return _CACHE
        return min(max((self._max_memory - resident()) // 8, _CACHE // 16), _CACHE)

    def window_bytes(self, size: Size) -> int:
        """Return what computing windows of (height, width) takes, in bytes: estimated, rather too high."""
        seen = self._model.valid_input_size((1024, 1024))
        per_pixel = activation_bytes(self._model, seen) / prod(seen) * self.bytes_per_value / 4
        ends = 4 * self._model.channels + 8 * len(self._model.classes)  # what goes in and comes out
        return self.at_once * round(prod(size) * (per_pixel + ends))

    def plan(self, image_size: Size, scored: Size, *, align: int = 1) -> TilePlan:
        """Plan the tiles of an image.

        Parameters
        ----------
        image_size
            (height, width) of what the network sees.
        scored
            (height, width) of its scores of all of that.
        align
            See `plan_tiles`.

        Raises
        ------
        ConfigError
            The tile asked for cannot hold the halo.
        MachineError
            Memory does not suffice for the tile asked for, or for the smallest.
        """
        whole = TilePlan.whole(image_size, scored)
        if self._tile is None or isinstance(self._tile, int):
            fits = self._tile is None or max(image_size) <= self._tile
            plan = whole if fits else self.cut(image_size, self._tile or 0, align=align)
            if self._max_memory is not None:
                self._require_room(plan)
            return plan
        # What a megapixel takes is not worth measuring, which alone takes a second, unless memory is bounded.
        if prod(image_size) <= WHOLE_PIXELS and (self._max_memory is None or self._fits(whole)):
            return whole
        plans = [whole, *self._plans(image_size, align)]
        most = max(LARGEST_TILE, min(prod(plan.tile_size) for plan in plans))
        fitting = [plan for plan in plans if prod(plan.tile_size) <= most and self._fits(plan)]
        if not fitting:
            fitting = [min(plans, key=lambda plan: prod(plan.tile_size))]
            self._require_room(fitting[0])
        best = min(fitting, key=self._cost)
        return best if best.count == 1 else self.cut(image_size, best.tile_size, align=align)

    def _cost(self, plan: TilePlan) -> float:
        """Return how long a plan takes, 1 being no pixel twice and no processor that waits for others."""
        rounds = ceil(plan.count / self.at_once)
        return plan.overlap_cost * rounds * self.at_once / plan.count

    def _fits(self, plan: TilePlan) -> bool:
        return self.window_bytes(plan.tile_size) <= self.room

    def _require_room(self, plan: TilePlan) -> None:
        if self._fits(plan):
            return
        height, width = plan.tile_size
        needed = self.window_bytes(plan.tile_size)
        limit = "" if self._max_memory is None else f" of {show_bytes(self._max_memory)} (--max-memory)"
        raise MachineError(
            f"{show_bytes(max(self.room, 0))} of memory for tiles{limit}",
            f"{show_bytes(needed)} for one of {height}×{width}; the program and the model hold "
            f"{show_bytes(resident())}",
            f"{self._remedy(needed)}, take a smaller --tile, or a network with fewer channels or a smaller "
            "receptive field",
        )

    def _remedy(self, needed: int) -> str:
        if self._max_memory is None:
            return "free some memory"
        taken = needed + self._weights
        least = resident() + max(8 * taken // 7, taken + _CACHE // 16)  # an eighth is for the cache
        return f"use --max-memory {ceil(1.05 * least / 1e7) * 10}MB or more"

    def _plans(self, image_size: Size, align: int) -> Iterator[TilePlan]:
        """Yield drafts of what there is to choose from: square tiles, and strips as wide as the image."""
        width = image_size[1]
        if self.geometry.global_context:
            limits = [(side, side) for side in _BLENDED_TILES]
        else:
            halo = max(map(sum, find_halo(self.geometry, image_size, self.mirrored))) + max(
                self.geometry.stride
            )
            unit = lcm(align, 256)
            sides = [kept + halo for kept in (align, *range(unit, max(2560, 4 * halo), unit))]
            limits = [(side, side) for side in sides] + [(side, width) for side in sides]
        for limit in limits:
            with suppress(ConfigError):
                yield draft_tiles(self.geometry, image_size, limit, align=align, mirrored=self.mirrored)
