"""The proof that tiles change nothing, on the user's own network and pixels."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.engines import Runner, compile_model
from fullyconv.errors import ConfigError
from fullyconv.inference.mirrored import MirroredImage
from fullyconv.inference.pieces import in_step
from fullyconv.inference.plans import TilePlan
from fullyconv.inference.predictor import Predictor
from fullyconv.inference.sources import Source, middle

TOLERANCE = 1e-4  # of the scores, relative to the largest where that is above 1
CLEAR = 1e-3  # a margin between the two best scores that rounding cannot turn round
_SIDES = (2048, 1536, 1024, 768, 512, 384, 256, 128, 64)


@dataclass(frozen=True)
class Verification:
    """How the scores of tiles differ from those of a whole crop, in float32.

    Parameters
    ----------
    engine
        What computed both.
    crop, tile
        (height, width) of the crop, from the middle of the image, and of its tiles.
    tiles
        How many tiles.
    max_difference
        The largest absolute difference of two scores, divided by the largest absolute score where that is
        above 1.
    different_labels
        How many pixels have another label.
    different_clear_labels
        How many of them have a margin between the two best scores above `CLEAR`.
    least_margin
        The smallest margin of any pixel of the crop.
    reasons
        Why the tiles are not exact; empty where they are.
    """

    engine: str
    crop: tuple[int, int]
    tile: tuple[int, int]
    tiles: int
    max_difference: float
    different_labels: int
    different_clear_labels: int
    least_margin: float
    reasons: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the tiles are as good as the whole."""
        return self.max_difference <= TOLERANCE and not self.different_clear_labels

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON-ready values."""
        return {**asdict(self), "holds": self.holds}

    def __str__(self) -> str:
        size, tile = ("×".join(map(str, pair)) for pair in (self.crop, self.tile))
        verdict = "tiles equal the whole" if self.holds else "tiles DIFFER from the whole"
        lines = [
            f"{verdict}: {size} pixels from the image's middle, whole and in {self.tiles} tiles of {tile}",
            f"max |difference| of scores: {self.max_difference:.2e} (at most {TOLERANCE:.0e}, in float32)",
            f"labels that differ: {self.different_labels}, where the margin exceeds {CLEAR:g}: "
            f"{self.different_clear_labels} (least margin: {self.least_margin:.2e})",
        ]
        return "\n".join(lines + [f"approximate: {reason}" for reason in self.reasons])


def verify_tiles(predictor: Predictor, source: Source) -> Verification:
    """Compare tiles with the whole on the largest crop of an image that fits in memory.

    Parameters
    ----------
    predictor
        The network and its engine; the comparison is in float32, whatever its precision.
    source
        The image.

    Raises
    ------
    ConfigError
        The image, or what of it fits in memory, is too small to be cut into tiles by this network.
    """
    model, fitting = predictor.model, predictor.fitting
    for side in _SIDES:
        seen = MirroredImage(middle(source, (side, side)), model)
        if 3 * fitting.window_bytes(seen.size) > fitting.room:
            continue
        plan = _small_tiles(predictor, seen)
        if plan is None:
            break
        runner = compile_model(model, engine=predictor.engine, answer="scores")
        with closing(runner):
            whole = next(iter(runner.run([seen.read(np.s_[: seen.size[0], : seen.size[1]])])))
            tiled = _put_together(plan, seen, runner, whole.shape)
        return _compare(runner.engine, seen, plan, whole, tiled)
    height, width = source.size
    raise ConfigError(
        f"an image of {height}×{width} that leaves no room for two tiles in what fits in memory",
        "a larger image, or more memory",
        "nothing needs verifying: such images are taken whole",
    )


def _small_tiles(predictor: Predictor, seen: MirroredImage) -> TilePlan | None:
    """Return tiles as small as the network allows, but no smaller than half the crop."""
    longest = max(seen.size)
    for limit in range(longest // 2, longest, max(1, longest // 16)):
        try:
            return predictor.fitting.cut(seen.size, limit)
        except ConfigError:
            continue
    return None


def _put_together(
    plan: TilePlan, seen: MirroredImage, runner: Runner, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    tiled = np.full(shape, np.nan, np.float32)
    windows: Iterable[Any] = ((tile, seen.read(tile.read.slices)) for tile in plan)
    for tile, answer in in_step(runner.run, windows):
        tiled[(slice(None), *tile.write.slices)] = answer[(slice(None), *tile.inside.slices)]
    return tiled


def _compare(
    engine: str, seen: MirroredImage, plan: TilePlan, whole: NDArray[np.float32], tiled: NDArray[np.float32]
) -> Verification:
    best = np.partition(whole, -2, axis=0)
    margin = best[-1] - best[-2]
    different = whole.argmax(0) != tiled.argmax(0)
    return Verification(
        engine,
        seen.size,
        plan.tile_size,
        plan.count,
        float(np.abs(whole - tiled).max() / max(1.0, float(np.abs(whole).max()))),
        int(different.sum()),
        int((different & (margin > CLEAR)).sum()),
        float(margin.min()),
        plan.reasons,
    )
