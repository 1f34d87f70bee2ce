"""Cross-validation: as many runs as folds, each validated on what the others trained on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fullyconv.datasets import Dataset
from fullyconv.errors import ConfigError
from fullyconv.progress import Lines, Progress
from fullyconv.training.config import TrainConfig
from fullyconv.training.preparation import opened
from fullyconv.training.recipes import NAME
from fullyconv.training.result import TrainResult
from fullyconv.training.runs import resume, train


@dataclass(frozen=True)
class Folds:
    """The runs of a cross-validation.

    Parameters
    ----------
    results
        One for each fold.
    """

    results: tuple[TrainResult, ...]

    @property
    def mean_ius(self) -> tuple[float, ...]:
        """The mean IU of each fold."""
        return tuple(result.evaluation.scores.mean_iu for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return the mean over the folds, its deviation, and all results, JSON-ready."""
        return {
            "mean_iu": mean(self.mean_ius),
            "standard_deviation": stdev(self.mean_ius),
            "folds": [result.to_dict() for result in self.results],
        }

    def __str__(self) -> str:
        rows = [f"{value:.4f}  {each.model}" for value, each in zip(self.mean_ius, self.results, strict=True)]
        spread = f"standard deviation between folds {stdev(self.mean_ius):.4f}"
        return "\n".join([*rows, f"mean IU {mean(self.mean_ius):.4f}, {spread}"])


def cross_validate(
    data: Dataset | str | Path,
    *,
    folds: int,
    out: str | Path,
    config: TrainConfig | None = None,
    classes: str | Path | None = None,
    progress: Progress | None = None,
) -> Folds:
    """Train one network for each fold, in ``out/fold-1`` and so on; called again, it goes on where it was.

    Parameters
    ----------
    data
        Images of "test" stay out; all others are divided, whatever their split.
    folds
        How many, at least 2.
    out, config, classes, progress
        As for `train`.

    Raises
    ------
    ConfigError
        Fewer than two folds, or more than images.
    """
    config, progress = config or TrainConfig(), progress or Lines()
    dataset = opened(data, classes, progress)
    results = []
    for number, fold in enumerate(divide(dataset, folds, config.seed), 1):
        folder = Path(out) / f"fold-{number}"
        progress.say(f"fold {number} of {folds}: {folder}")
        results.append(
            resume(folder, data=fold, progress=progress)
            if (folder / NAME).exists()
            else train(None, fold, out=folder, config=config, progress=progress)
        )
    return Folds(tuple(results))


def divide(dataset: Dataset, folds: int, seed: int) -> Iterator[Dataset]:
    """Yield the dataset once for each fold, which validates there; every image validates once."""
    free = [sample for sample in dataset.samples if sample.split != "test"]
    if not 2 <= folds <= len(free):
        raise ConfigError(
            f"{folds} folds of {len(free)} images", f"2 to {len(free)}", "choose another number by --folds"
        )
    drawn = sorted(free, key=lambda sample: hashlib.sha256(f"{seed}/{sample.name}".encode()).digest())
    for number in range(folds):
        chosen = {sample.name for sample in drawn[number::folds]}
        samples = (
            sample
            if sample.split == "test"
            else dataclasses.replace(sample, split="val" if sample.name in chosen else "train")
            for sample in dataset.samples
        )
        yield dataclasses.replace(dataset, samples=tuple(samples))
