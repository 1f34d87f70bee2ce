"""What a prediction would take, said before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fullyconv.images import open_image
from fullyconv.inference.files import LARGE
from fullyconv.inference.job import plan_job
from fullyconv.inference.memory import resident, show_bytes
from fullyconv.inference.mirrored import MirroredImage
from fullyconv.inference.outputs import Outputs
from fullyconv.inference.plans import TilePlan
from fullyconv.inference.predictor import Predictor


@dataclass(frozen=True)
class Estimate:
    """What predicting some images would take; measured on one tile of the largest.

    Parameters
    ----------
    images, pixels
        How many there are.
    largest
        (height, width) of the largest.
    tile
        (height, width) of its tiles; its own size where it is taken whole.
    tiles
        How many of them.
    halo
        Pixels spoilt at a cut: ((above, below), (left, right)).
    overlap_cost
        Pixels computed for each one written.
    approximate
        Why its tiles are not exact; empty where they are.
    memory
        Bytes the process would hold, about.
    seconds
        For all images, about.
    engine, precision
        What would compute.
    outputs
        What would be written of the largest image.
    """

    images: int
    pixels: int
    largest: tuple[int, int]
    tile: tuple[int, int]
    tiles: int
    halo: tuple[tuple[int, int], tuple[int, int]]
    overlap_cost: float
    approximate: tuple[str, ...]
    memory: int
    seconds: float
    engine: str
    precision: str
    outputs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON-ready values."""
        return asdict(self)

    def __str__(self) -> str:
        (above, below), (left, right) = self.halo
        size, tile = ("×".join(map(str, pair)) for pair in (self.largest, self.tile))
        cut = (
            f"{self.tiles} tiles of {tile}, halo {above}+{below} rows and {left}+{right} columns, "
            f"{self.overlap_cost:.2f} pixels computed per pixel"
            if self.tiles > 1
            else "whole"
        )
        hours, rest = divmod(round(self.seconds), 3600)
        lines = [
            f"images:    {self.images}, {self.pixels / 1e6:.1f} megapixels; the largest has {size}",
            f"tiles:     {cut}",
            f"memory:    about {show_bytes(self.memory)}",
            f"time:      about {f'{hours} h ' if hours else ''}{rest // 60} min {rest % 60} s",
            f"engine:    {self.engine}, {self.precision}",
            f"outputs:   {', '.join(self.outputs)}",
            "nothing was written",
        ]
        return "\n".join(lines + [f"approximate: {reason}" for reason in self.approximate])


def estimate_files(predictor: Predictor, files: Sequence[Path], out: Path, outputs: Outputs) -> Estimate:
    """Measure one tile of the largest image, and scale it to all.

    Parameters
    ----------
    predictor
        The network.
    files
        Images.
    out, outputs
        Where results would go, and what they would be.

    Raises
    ------
    ImageError
        A file is missing, no image or damaged.
    MachineError
        Memory does not suffice.
    """
    sizes = {}
    for path in files:
        with open_image(path) as source:
            sizes[path] = source.size
    largest = max(sizes, key=lambda path: prod(sizes[path]))
    with open_image(largest) as source:
        is_large = prod(source.size) >= LARGE
        shares = outputs.shares is not None
        plan = (
            plan_job(source, predictor, shares)[1]
            if is_large
            else predictor.plan(source, probabilities=shares)
        )
        answer = predictor.answer(plan, probabilities=shares)
        runner = predictor.runner(plan, answer)
        window = MirroredImage(source, predictor.model).read(plan[0].read.slices)
        seconds = _seconds_per_tile(runner.run, window, runner.workers)
        written = tuple(str(path) for path in outputs.paths(out, source).values())
    pixels = sum(prod(size) for size in sizes.values())
    return Estimate(
        len(files),
        pixels,
        sizes[largest],
        plan.tile_size,
        plan.count,
        plan.halo,
        plan.overlap_cost,
        plan.reasons,
        _memory(predictor, plan, runner.in_flight),
        seconds * plan.count * pixels / prod(sizes[largest]),
        runner.engine,
        runner.precision,
        written,
    )


def _seconds_per_tile(run: Any, window: np.ndarray[Any, Any], at_once: int) -> float:
    """Time as many windows as are computed at once, after as many that warm up."""
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        for _ in run(repeat(window, at_once)):
            pass
        seconds = time.perf_counter() - started
    return seconds / at_once


def _memory(predictor: Predictor, plan: TilePlan, in_flight: int) -> int:
    ends = in_flight * prod(plan.tile_size) * predictor.model.channels
    return resident() + predictor.fitting.window_bytes(plan.tile_size) + ends
