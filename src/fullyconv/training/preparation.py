"""What a run learns from: the dataset, its splits, where it is kept, and what of it counts how much."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from fullyconv.datasets import Dataset, decoded_bytes, open_dataset, split_dataset
from fullyconv.inference.memory import available, show_bytes
from fullyconv.losses import CLASS_WEIGHTS
from fullyconv.progress import Progress
from fullyconv.training.border import BorderWeights
from fullyconv.training.config import TrainConfig

MEMORY_SHARE = 0.25  # of what is free, for decoded images
DISK_SHARE = 0.5


class Keeping(TypedDict):
    """Where decoded images are kept, as `CropSampler` takes it."""

    cache_bytes: int
    cache_folder: Path | None


def opened(data: Dataset | str | Path, classes: str | Path | None, progress: Progress) -> Dataset:
    """Return the dataset, opened and checked if it is a folder."""
    if isinstance(data, Dataset):
        return data
    return open_dataset(data, classes=Path(classes) if classes else None, progress=progress)


def divided(dataset: Dataset, config: TrainConfig, progress: Progress) -> Dataset:
    """Return the dataset with a validation split, and say what it is."""
    for note in dataset.notes:
        progress.say(note)
    if not dataset.split("val"):
        dataset = split_dataset(dataset, validation=config.validation, seed=config.seed)
        progress.say(
            f"split: {config.validation:.0%} of the images validate, seed {config.seed}"
            " (--validation, --seed)"
        )
    progress.say(f"images: {len(dataset.split('train'))} train, {len(dataset.split('val'))} validate")
    return dataset


def weighing(dataset: Dataset, config: TrainConfig) -> BorderWeights | None:
    """Return how much each pixel counts, where not all count alike."""
    if not config.border_weight:
        return None
    return BorderWeights.balanced(dataset, dataset.split("train"), config.border_weight, config.border_sigma)


def class_weights_for(dataset: Dataset, config: TrainConfig, progress: Progress) -> list[float] | None:
    """Return the weights of the classes, measured on the training masks and said, where they have any."""
    if config.class_weights is None:
        return None
    training = dataset.split("train")
    counts = np.array([dataset.pixels[sample.name] for sample in training])
    weights = [float(weight) for weight in CLASS_WEIGHTS[config.class_weights](counts)]
    named = zip(dataset.classes.names, weights, strict=True)
    progress.say("class weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in named))
    return weights


def keeping(dataset: Dataset, config: TrainConfig, out: Path, progress: Progress) -> Keeping:
    """Choose where decoded training images are kept, and say it: in memory, else on the run's disk.

    Where they fit on neither, as many as fit in memory are kept, and the others decoded each time.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # each on this machine keeps what it reads
    size = decoded_bytes(dataset, dataset.split("train"), weighed=bool(config.border_weight))
    memory = int(MEMORY_SHARE * max(0, available(torch.device("cpu")))) // processes
    disk = int(DISK_SHARE * shutil.disk_usage(out).free) // processes
    fitting = "memory" if size <= memory else "disk" if size <= disk else "part"
    where = fitting if config.cache == "auto" else config.cache
    said = {
        "memory": "kept in memory",
        "disk": f"kept on the disk of {out} while it trains",
        "part": f"more than fits; {show_bytes(memory)} of them are kept in memory",
        "none": "decoded for every crop",
    }
    progress.say(f"decoded images: {show_bytes(size)}, {said[where]} (--set cache)")
    limit = {"memory": size, "disk": size, "part": memory, "none": 0}[where]
    return {"cache_bytes": limit, "cache_folder": out if where == "disk" else None}
