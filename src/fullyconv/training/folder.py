"""The folder of a run: begun once, gone on with by name."""

from __future__ import annotations

from pathlib import Path

from fullyconv.datasets import Dataset
from fullyconv.errors import ConfigError
from fullyconv.images import make_folder
from fullyconv.models import SegmentationModel, save
from fullyconv.training.recipes import NAME, Recipe, write_recipe

CHECKPOINTS = "checkpoints"
START = "start.safetensors"
MODEL = "model.safetensors"


def require_new(out: Path) -> None:
    """Make sure that a run can begin in a folder: none yet, an empty one, or one where a run did not begin.

    Raises
    ------
    ConfigError
        It holds something.
    """
    if out.exists() and (not out.is_dir() or not {path.name for path in out.iterdir()} <= {CHECKPOINTS}):
        begun = (out / NAME).exists()
        raise ConfigError(
            f"{out}, which exists",
            "a new or an empty folder",
            f"go on with that run by --resume {out}, or choose another --out"
            if begun
            else "choose another --out, or remove it first",
        )


def begin(out: Path, model: SegmentationModel, recipe: Recipe, dataset: Dataset) -> None:
    """Write all that a run can be gone on with; the recipe comes last, and makes it a run."""
    save(model, make_folder(out / CHECKPOINTS) / START, overwrite=True)
    lists = make_folder(out / "split")
    for split in ("train", "val"):
        names = [sample.name for sample in dataset.split(split)]
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    write_recipe(recipe, out / NAME)


def require_begun(out: Path) -> None:
    """Make sure that there is a run to go on with, and remove what a killed process left half-written.

    Raises
    ------
    ConfigError
        There is none.
    """
    if not (out / NAME).is_file():
        raise ConfigError(
            f"{out}, where no run has begun",
            f"the folder of a run, with its {NAME}",
            f"begin it: fullyconv train DATA --out {out}",
        )
    for half in out.rglob(".*.part"):
        half.unlink()
