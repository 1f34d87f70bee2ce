"""The learning rate, found by trying: a short run in which it grows from nothing to too much.

Smith, *Cyclical Learning Rates for Training Neural Networks* (arXiv 1506.01186), section 3.3.
"""

from __future__ import annotations

import csv
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fullyconv.datasets import Dataset
from fullyconv.errors import ConfigError
from fullyconv.images import atomic_file, make_folder
from fullyconv.models import SegmentationModel
from fullyconv.progress import Lines, Progress
from fullyconv.training.config import TrainConfig
from fullyconv.training.runs import prepare

LOWEST, HIGHEST = 1e-6, 1.0
MEMORY = 0.9  # of the running mean of the losses
DIVERGED = 4.0  # times the lowest loss: no higher rate needs trying


@dataclass(frozen=True)
class RateCurve:
    """The loss at each learning rate.

    Parameters
    ----------
    rates
        Learning rates, rising geometrically.
    losses
        The running mean of the loss at each of them.
    suggestion
        A tenth of the rate at which the loss was lowest: still falling, with room to the edge.
    table
        The file with both.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    table: Path

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, JSON-ready."""
        return {
            "suggestion": self.suggestion,
            "rates": list(self.rates),
            "losses": list(self.losses),
            "table": str(self.table),
        }

    def __str__(self) -> str:
        return f"learning rate: {self.suggestion:.2g} (--learning-rate)\nlosses by rate: {self.table}"


def find_rate(
    model: SegmentationModel | None,
    data: Dataset | str | Path,
    *,
    out: str | Path,
    config: TrainConfig | None = None,
    classes: str | Path | None = None,
    steps: int = 100,
    progress: Progress | None = None,
) -> RateCurve:
    """Train a few steps at rising learning rates, and suggest one.

    Parameters
    ----------
    model, data, config, classes, progress
        As for `train`; the network is spoiled.
    out
        A folder for ``rates.csv``, and ``rates.png`` where matplotlib is installed.
    steps
        How many rates are tried.

    Raises
    ------
    ConfigError
        The loss never fell.
    """
    progress = progress or Lines()
    out = make_folder(out)
    config = (config or TrainConfig()).replace(epochs=None, minutes=None, steps=steps, track=())
    rates, losses = [], []
    with tempfile.TemporaryDirectory() as scratch:
        run = prepare(model, data, out=Path(scratch), config=config, classes=classes, progress=progress)
        run.batches = run.open_batches()
        run.prepare_epoch()
        mean, lowest = 0.0, math.inf
        with run.batches:
            for number in range(steps):
                rate = LOWEST * (HIGHEST / LOWEST) ** (number / max(steps - 1, 1))
                try:
                    loss = run.step(next(run.batches), rate)
                except ConfigError:  # no number any more: too much
                    break
                mean = MEMORY * mean + (1 - MEMORY) * loss
                smooth = mean / (1 - MEMORY ** (number + 1))
                rates.append(rate)
                losses.append(smooth)
                lowest = min(lowest, smooth)
                if smooth > DIVERGED * lowest:
                    break
    best = int(np.argmin(losses)) if losses else 0
    if best == 0:
        raise ConfigError(
            f"losses that never fell from {losses[0] if losses else math.nan:.3g}",
            "a loss that some rate lowers",
            "look at the data (fullyconv check) and at the loss (--loss)",
        )
    table = out / "rates.csv"
    with atomic_file(table, overwrite=True) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([("learning_rate", "loss"), *zip(rates, losses, strict=True)])
    _draw(rates, losses, rates[best] / 10, out / "rates.png", progress)
    return RateCurve(tuple(rates), tuple(losses), rates[best] / 10, table)


def _draw(rates: list[float], losses: list[float], suggestion: float, file: Path, progress: Progress) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        progress.say("no picture of the rates: pip install 'fullyconv[plot]'")
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(rates, losses)
    axes.axvline(suggestion, linestyle="--", color="gray")
    axes.set(xlabel="learning rate", ylabel="loss", title=f"suggested: {suggestion:.2g}")
    with atomic_file(file, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
