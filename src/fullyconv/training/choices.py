"""What a run chooses by itself, each choice said in one line with the option that overrides it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Literal

import torch

from fullyconv.datasets import AUGMENTATIONS, AugmentConfig, Dataset, looks_upright
from fullyconv.engines import Precision
from fullyconv.errors import ConfigError
from fullyconv.hardware import has_native_bf16
from fullyconv.models import SegmentationModel
from fullyconv.progress import Progress
from fullyconv.training.compilation import choose_compilation
from fullyconv.training.config import TrainConfig
from fullyconv.training.trials import Trial, best_seconds

Turns = Literal["all", "mirror", "none"]

CROP = 256
BATCH = 8
TRAINABLE: tuple[Precision, ...] = ("f32", "bf16")
EPOCHS = 40
LEAST_STEPS = 32  # of an epoch: below, validation would cost more than training


@dataclass(frozen=True)
class Plan:
    """What a run does, with nothing left open.

    Parameters
    ----------
    config
        The configuration, with what it left open.
    augment
        The augmentation; ``augment.crop`` is the crops' size in pixels.
    batch
        Crops per step.
    precision
        What the steps compute in.
    epoch_steps
        Steps per epoch: as many as show about every training pixel once.
    steps
        Of the whole run; ``None`` where only ``config.minutes`` ends it.
    validate_every
        Epochs from one validation to the next: it has at most a fifth of the work.
    workers
        Processes that prepare crops.
    """

    config: TrainConfig
    augment: AugmentConfig
    batch: int
    precision: Precision
    epoch_steps: int
    steps: int | None
    validate_every: int
    workers: int


def choose_augmentation(
    dataset: Dataset,
    *,
    seed: int,
    progress: Progress,
    crop: int = CROP,
    turns: Turns | None = None,
    variation: str = "varied",
) -> AugmentConfig:
    """Return the augmentation for square crops, after a look at whether the images have a top.

    Parameters
    ----------
    dataset
        Looked at where ``turns`` is ``None``.
    seed
        Of the images looked at.
    progress
        Told the choice.
    crop
        Side of the crops in pixels.
    turns
        "all": mirrored both ways and turned by 90°; "mirror": left to right only; "none".
    variation
        A key of `fullyconv.datasets.AUGMENTATIONS`.

    Raises
    ------
    ConfigError
        There is no such variation.
    """
    if variation not in AUGMENTATIONS:
        raise ConfigError(
            f"variation {variation!r}", f"one of {', '.join(AUGMENTATIONS)}", "choose one of them"
        )
    if turns is None:
        turns = "mirror" if looks_upright(dataset, dataset.samples, seed=seed) else "all"
        reason = "the images have a top and a bottom" if turns == "mirror" else "the images have no top"
        progress.say(f"mirroring and turning of crops: {turns}, {reason} (--turns)")
    progress.say(f"crops: {crop}×{crop} (--crop)")
    progress.say(f"variation of crops: {variation} (--variation)")
    chosen = AUGMENTATIONS[variation]((crop, crop))
    if turns == "all":
        return chosen
    flips: Literal["horizontal", "none"] = "horizontal" if turns == "mirror" else "none"
    return replace(chosen, flips=flips, quarter_turns=False, rotation=min(chosen.rotation, 10))


def choose_plan(
    model: SegmentationModel,
    dataset: Dataset,
    config: TrainConfig,
    device: torch.device,
    progress: Progress,
) -> Plan:
    """Resolve what the configuration leaves open, and say each choice and its option."""
    augment = config.augment or choose_augmentation(
        dataset,
        seed=config.seed,
        progress=progress,
        crop=config.crop,
        turns=config.turns,
        variation=config.variation,
    )
    augment = _fitted(augment, model, progress)
    batch = config.batch or BATCH
    samples = dataset.split("train")
    pixels = sum(math.prod(dataset.sizes[sample.name]) for sample in samples)
    crops = max(len(samples), math.ceil(pixels / math.prod(augment.crop)))
    epoch_steps = max(LEAST_STEPS, math.ceil(crops / batch))
    epochs = config.epochs or (None if config.minutes or config.steps else EPOCHS)
    ends = [epochs and epochs * epoch_steps, config.steps]
    steps = min((end for end in ends if end), default=None)
    # A pixel is trained on forward and back, which is three times the work of validating it.
    validated = sum(math.prod(dataset.sizes[sample.name]) for sample in dataset.split("val"))
    trained = 3 * epoch_steps * batch * math.prod(augment.crop)
    validate_every = math.ceil(4 * validated / trained) or 1
    workers = _workers(device) if config.workers is None else config.workers
    if config.border_weight:
        numbered = sum(sample.instances is not None for sample in samples)
        progress.say(
            f"weights: classes balanced, borders by w0 {config.border_weight:g} (--border-weight), objects "
            f"from instances/ for {numbered} of {len(samples)} images, else connected regions"
        )
    progress.say(f"batch: {batch} crops a step (--batch)")
    progress.say(
        f"loss: {config.loss} (--loss), learning rate up to {config.learning_rate:g} (--learning-rate)"
    )
    end = [
        f"{epochs} epoch{'s' if epochs > 1 else ''}" if epochs else "",
        f"{config.steps} steps" if config.steps else "",
        f"{config.minutes:g} minutes" if config.minutes else "",
    ]
    progress.say(
        f"length: {' or '.join(filter(None, end))} (--epochs, --steps, --minutes), "
        f"{epoch_steps} steps an epoch"
    )
    if validate_every > 1:
        progress.say(f"validation: every {validate_every} epochs, a fifth of the work")
    progress.say(
        f"workers: {workers}, crops are prepared {'beside' if workers else 'between'} the steps (--workers)"
    )
    precision = (
        config.precision
        if config.precision != "auto"
        else _faster_precision(model, augment.image_size, device, progress)
    )
    compiling = (
        config.compile
        if config.compile != "auto"
        else choose_compilation(
            model,
            augment.image_size,
            batch,
            precision,
            device,
            progress,
            steps=steps,
            seconds=config.minutes and config.minutes * 60,
        )
    )
    chosen = config.replace(
        augment=augment,
        compile=compiling,
        batch=batch,
        precision=precision,
        workers=workers,
        epochs=epochs,
        crop=CROP,
        turns=None,
    )
    return Plan(chosen, augment, batch, precision, epoch_steps, steps, validate_every, workers)


def _workers(device: torch.device) -> int:
    """Return as many as keep a GPU busy; beside a network on the processor, one takes the spare time."""
    if device.type == "cpu":
        return 1
    return max(1, min(8, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _fitted(augment: AugmentConfig, model: SegmentationModel, progress: Progress) -> AugmentConfig:
    """Return the crops that the network can take; unpadded ones see more than they score."""
    height, width = model.valid_input_size(augment.crop)
    margin = model.margin
    fitted = replace(augment, crop=(height - 2 * margin, width - 2 * margin), margin=margin)
    if margin:
        progress.say(
            f"crops of the unpadded network: {height}×{width} seen, "
            f"{fitted.crop[0]}×{fitted.crop[1]} scored, the border of images mirrored"
        )
    return fitted


def _faster_precision(
    model: SegmentationModel, crop: tuple[int, int], device: torch.device, progress: Progress
) -> Precision:
    if device.type == "cpu" and not has_native_bf16():
        progress.say("precision: f32, this processor has no bfloat16 arithmetic (--precision)")
        return "f32"
    seconds = best_seconds({precision: Trial(model, crop, device, precision) for precision in TRAINABLE})
    best: Precision = min(seconds, key=seconds.__getitem__)
    measured = ", ".join(f"{name} {value * 1000:.0f} ms" for name, value in seconds.items())
    progress.say(f"precision: {best}; for a step of two crops {measured} (--precision)")
    return best
