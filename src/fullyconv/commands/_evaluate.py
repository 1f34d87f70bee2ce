"""From a model and a folder of images and masks to scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fullyconv.progress import Lines, Progress

if TYPE_CHECKING:
    from fullyconv.evaluation import Evaluation


def evaluate(
    model: Path,
    data: Path,
    *,
    split: str | None = None,
    classes: Path | None = None,
    flips: Literal["none", "horizontal", "both"] = "none",
    boundaries: bool = True,
    objects: Literal["auto", "regions", "split", "none"] = "auto",
    calibration: bool = False,
    precision: Literal["auto", "f32", "bf16", "int8"] = "f32",
    tile: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on a folder of images and masks, beside a constant answer and a threshold on intensity.

    Parameters
    ----------
    model
        A model file, or the folder of train --folds, whose networks are averaged.
    data
        A folder as for train.
    split
        Which part to score: train, val or test (default val, else test, else all).
    classes
        A classes.toml where the data has none.
    flips
        Average over mirror images too: left to right, or both ways, which takes two or four times as long.
    boundaries
        Also score borders: boundary F1 and boundary IU.
    objects
        Also score objects: connected regions, or touching ones split; auto takes regions where the data
        numbers its objects.
    calibration
        Also compare the network's confidence with how often it is right (slower).
    precision
        What to compute in; of int8 the change in mean IU against f32 is told, which takes the time of both.
    tile
        Side of square tiles in pixels (default: chosen by size).
    seed
        Of the resamplings behind the intervals.

    Examples
    --------
    fullyconv evaluate runs/first/model.safetensors data/
    """
    from fullyconv.datasets import open_dataset
    from fullyconv.evaluation import evaluate as score
    from fullyconv.inference import Predictor

    progress = progress or Lines()
    predictor = Predictor(model, flips=flips, precision=precision, tile=tile or "auto", progress=progress)
    dataset = open_dataset(data, classes=classes, progress=progress)
    numbered = any(sample.instances is not None for sample in dataset.samples)
    evaluation = score(
        predictor,
        dataset,
        split=split,
        boundaries=boundaries,
        objects=(
            ("regions" if numbered else None) if objects == "auto" else None if objects == "none" else objects
        ),
        calibration=calibration,
        threshold=True,
        seed=seed,
        progress=progress,
    )
    if precision == "int8":
        exact = score(
            Predictor(model, flips=flips, precision="f32", tile=tile or "auto"), dataset, split=split
        )
        before, after = exact.scores.mean_iu, evaluation.scores.mean_iu
        progress.say(f"int8: mean IU {after:.4f}, {after - before:+.4f} against f32")
    return evaluation
