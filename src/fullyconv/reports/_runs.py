"""What a run's folder holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fullyconv.datasets import Dataset
from fullyconv.errors import ConfigError
from fullyconv.training import Recipe, read_recipe
from fullyconv.training.recipes import NAME


@dataclass(frozen=True)
class Run:
    """A folder that `fullyconv.training.train` wrote.

    Parameters
    ----------
    folder
        Where it is.
    recipe
        What was trained on, and how.
    history
        The rows of ``history.jsonl``.
    splits
        Names of the images of each split, as they were drawn.
    """

    folder: Path
    recipe: Recipe
    history: tuple[dict[str, Any], ...]
    splits: dict[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def model(self) -> Path:
        """The file of the best network."""
        return self.folder / "model.safetensors"

    def divided(self, dataset: Dataset) -> Dataset:
        """Return the dataset with the split of this run.

        Raises
        ------
        ConfigError
            Images that the run validated on are not there.
        """
        place = {name: split for split, names in self.splits.items() for name in names}
        missing = sorted(set(self.splits.get("val", ())) - {sample.name for sample in dataset.samples})
        if missing:
            raise ConfigError(
                f"{len(missing)} of the images that {self.folder} validated on are not in {dataset.root}: "
                f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}",
                "the data that the run was trained on",
                "name its folder with --data",
            )
        return replace(
            dataset,
            samples=tuple(
                replace(sample, split=place.get(sample.name, sample.split)) for sample in dataset.samples
            ),
        )


def read_run(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises
    ------
    ConfigError
        It is not one, has not validated yet, or its recipe is damaged.
    """
    folder = Path(folder)
    try:
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text("utf-8").splitlines()]
        splits = {
            file.stem: tuple(file.read_text("utf-8").splitlines())
            for file in sorted((folder / "split").glob("*.txt"))
        }
    except FileNotFoundError as error:
        raise _not_a_run(folder, f"no {Path(error.filename).name} in it") from error
    except (ValueError, NotADirectoryError) as error:
        raise _not_a_run(folder, str(error)) from error
    for name in (NAME, "model.safetensors"):
        if not (folder / name).is_file():
            raise _not_a_run(folder, f"no {name} in it")
    return Run(folder, read_recipe(folder / NAME), tuple(history), splits)


def _not_a_run(folder: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{folder}: {reason}",
        "the folder of a run that has validated at least once",
        "name the folder given to fullyconv train --out",
    )
