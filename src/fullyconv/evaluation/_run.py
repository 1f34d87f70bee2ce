"""Predict image after image and count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fullyconv.datasets import Dataset, Sample, find_instances, open_dataset
from fullyconv.errors import ConfigError, DataError
from fullyconv.evaluation._evaluation import Evaluation, Rival
from fullyconv.inference import Predictor
from fullyconv.labels import ClassTable, Labels
from fullyconv.metrics import (
    ConfusionMatrix,
    IntensityHistogram,
    Threshold,
    boundary_sums,
    calibration_sums,
    find_objects,
    object_sums,
    region_sums,
)
from fullyconv.models import Network
from fullyconv.progress import Progress, Quiet

ObjectSource = Literal["regions", "split"]

_THRESHOLD_IMAGES = 200  # as many training images as choose a threshold


def evaluate(
    model: Network | Sequence[Network] | Predictor,
    data: Dataset | str | Path,
    *,
    split: str | None = None,
    boundaries: bool = False,
    objects: ObjectSource | None = None,
    calibration: bool = False,
    threshold: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a network on a dataset; by default only what one confusion matrix says.

    Parameters
    ----------
    model
        A network, a model file, a folder of folds, or several of these, whose probabilities are averaged; in
        float32. Or a `Predictor` with options of its own, such as flips.
    data
        A folder of images and masks, or an opened dataset.
    split
        ``"train"``, ``"val"``, ``"test"``; ``None`` takes ``val``, else ``test``, else every image.
    boundaries
        Also score borders (`boundary_sums`).
    objects
        Also score objects: predicted ones are connected "regions", or touching ones "split"
        (`find_objects`). True ones are the dataset's instances, else found in the same way.
    calibration
        Also compare confidence with accuracy (`calibration_sums`), from probabilities, which take longer.
    threshold
        Also look for the best threshold on intensity, where there are two classes.
    seed
        Of the intervals' resamplings, and of the training images that choose the threshold.
    progress
        Told how many images are done.

    Raises
    ------
    DataError
        The split is empty or without masks, or the dataset's classes are not the network's.
    ConfigError
        ``objects`` is neither of both.
    """
    if objects not in (None, "regions", "split"):
        raise ConfigError(f"objects {objects!r}", "'regions', 'split' or None", "use 'regions'")
    progress = progress or Quiet()
    dataset = data if isinstance(data, Dataset) else open_dataset(data, progress=progress)
    predictor = model if isinstance(model, Predictor) else Predictor(model, precision="f32")
    split, samples = _choose(dataset, split)
    _require_same_classes(predictor.model.classes, dataset)
    ignore_index, K = dataset.classes.ignore_index, len(dataset.classes)
    chosen = _choose_threshold(dataset, split, samples, seed, progress) if threshold and K == 2 else None
    total = np.zeros((K, K), np.int64)
    counted: dict[str, list[NDArray[Any]]] = {}
    for done, sample in enumerate(samples):
        image, truth = dataset.load(sample)
        prediction = predictor.predict(image, probabilities=calibration)
        labels = prediction.labels
        counts = _confusion(truth, labels, K, ignore_index)
        total += counts
        sums: dict[str, NDArray[Any]] = {"regions": region_sums(counts)}
        if boundaries:
            sums["boundaries"] = boundary_sums(truth, labels, K, ignore_index)
        if objects:
            sums["objects"] = _match_objects(sample, truth, labels, ignore_index, objects == "split")
        if prediction.probabilities is not None:
            sums["calibration"] = calibration_sums(prediction.probabilities, truth, ignore_index)
        if chosen:
            sums["threshold"] = region_sums(_confusion(truth, chosen[0].predict(image), K, ignore_index))
        for name, each in sums.items():
            counted.setdefault(name, []).append(each)
        progress.advance("evaluating", done + 1, len(samples), "images")
    stacked = {name: np.stack(each) for name, each in counted.items()}
    return Evaluation(
        classes=predictor.model.classes,
        split=split,
        names=tuple(sample.name for sample in samples),
        counts=total,
        sums=stacked["regions"],
        boundaries=stacked.get("boundaries"),
        objects=stacked.get("objects"),
        object_source=objects,
        calibration=stacked.get("calibration"),
        threshold=Rival("threshold", chosen[1], stacked["threshold"]) if chosen else None,
        seed=seed,
    )


def _choose(dataset: Dataset, split: str | None) -> tuple[str, tuple[Sample, ...]]:
    for name in [split] if split else ["val", "test"]:
        samples = dataset.split(name)
        if samples:
            return name, _with_masks(dataset, samples)
    if split:
        raise DataError(
            f"no images in split {split!r} of {dataset.root}",
            f"one of {sorted({sample.split for sample in dataset.samples if sample.split})}",
            "choose another split, or none for validation",
        )
    return "all", _with_masks(dataset, dataset.samples)


def _with_masks(dataset: Dataset, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    masked = tuple(sample for sample in samples if sample.mask is not None)
    if not masked:
        raise DataError(
            f"{len(samples)} images of {dataset.root} without masks",
            "images with masks to score against",
            "add their masks, or choose another split (--split)",
        )
    return masked


def _require_same_classes(classes: ClassTable, dataset: Dataset) -> None:
    if len(dataset.classes) != len(classes):
        raise DataError(
            f"{len(dataset.classes)} classes in {dataset.root} ({', '.join(dataset.classes.names)})",
            f"the {len(classes)} of the model ({', '.join(classes.names)})",
            "evaluate on data with the model's classes, or train on this data",
        )


def _confusion(truth: Labels, labels: Labels, K: int, ignore_index: int) -> NDArray[np.int64]:
    matrix = ConfusionMatrix(K)
    matrix.update(truth, labels, ignore_index)
    return matrix.counts


def _match_objects(
    sample: Sample, truth: Labels, labels: Labels, ignore_index: int, split: bool
) -> NDArray[np.float64]:
    if sample.instances is not None:
        true = find_instances(sample, truth, ignore_index=ignore_index)
    else:
        true = find_objects(truth, ignore_index, split=split)
    given = find_objects(labels, ignore_index, split=split)
    return object_sums(true, given, truth != ignore_index, truth == labels)


def _choose_threshold(
    dataset: Dataset, split: str, samples: tuple[Sample, ...], seed: int, progress: Progress
) -> tuple[Threshold, str]:
    """Return the best threshold on the training images, where there are any besides these, and its origin."""
    training = [sample for sample in dataset.split("train") if sample.mask is not None]
    own = split == "train" or not training
    candidates = list(samples) if own else training
    order = np.random.default_rng(seed).permutation(len(candidates))[:_THRESHOLD_IMAGES]
    histogram = IntensityHistogram()
    for done, place in enumerate(order):
        image, truth = dataset.load(candidates[place])
        histogram.update(image, truth, dataset.classes.ignore_index)
        progress.advance("choosing a threshold", done + 1, len(order), "images")
    threshold = histogram.best_threshold()
    brighter = dataset.classes.names[threshold.brighter]
    origin = f"{len(order)} of these very images" if own else f"{len(order)} training images"
    value = threshold.value(dataset.channels)
    return threshold, f"answering {brighter!r} from an intensity of {value:.4g} on, the best for {origin}"
