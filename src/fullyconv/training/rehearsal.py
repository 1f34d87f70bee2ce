"""A rehearsal: one batch goes through everything, and what the whole run will take is told."""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fullyconv.datasets import Dataset
from fullyconv.models import SegmentationModel
from fullyconv.progress import Lines, Progress
from fullyconv.training.config import TrainConfig
from fullyconv.training.runs import prepare

STEPS = 3  # the first one warms up


@dataclass(frozen=True)
class Rehearsal:
    """What a run will take, measured on a few of its steps.

    Parameters
    ----------
    seconds
        Of the whole run; ``minutes`` where these end it.
    memory
        Bytes: the most that the process, or the GPU, has held.
    step_seconds, validation_seconds, checkpoint_seconds
        Of one of each.
    checkpoint_bytes
        Of one checkpoint; two are kept.
    steps, epochs
        Of the whole run, as far as time does not end it before.
    """

    seconds: float
    memory: int
    step_seconds: float
    validation_seconds: float
    checkpoint_seconds: float
    checkpoint_bytes: int
    steps: int
    epochs: float

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"about {self.seconds / 60:.1f} minutes for {self.steps} steps ({self.epochs:.1f} epochs)\n"
            f"a step {self.step_seconds * 1000:.0f} ms, a validation {self.validation_seconds:.1f} s, "
            f"a checkpoint {self.checkpoint_seconds * 1000:.0f} ms\n"
            f"memory {self.memory / 1e9:.2f} GB, "
            f"two checkpoints on the disk {2 * self.checkpoint_bytes / 1e6:.1f} MB"
        )


def rehearse(
    model: SegmentationModel | None,
    data: Dataset | str | Path,
    *,
    config: TrainConfig | None = None,
    classes: str | Path | None = None,
    progress: Progress | None = None,
) -> Rehearsal:
    """Take a few steps, predict a validation image and write a checkpoint, all in a folder that is removed.

    Parameters
    ----------
    model, data, config, classes, progress
        As for `train`; the network is changed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        run = prepare(
            model,
            data,
            out=Path(scratch),
            config=(config or TrainConfig()).replace(track=()),
            classes=classes,
            progress=progress or Lines(),
        )
        run.batches = run.open_batches()
        run.prepare_epoch()
        with run.batches:
            for number in range(STEPS):
                if number == 1:
                    started = time.monotonic()
                run.step(next(run.batches), 0.0)
        step = (time.monotonic() - started) / (STEPS - 1)
        validation = run.validation.seconds()
        run.save()
        size = sum(path.stat().st_size for path in (Path(scratch) / "checkpoints").glob("[0-9]*"))
    plan, minutes = run.plan, run.plan.config.minutes
    steps = plan.steps or 0
    validations = math.ceil(steps / plan.epoch_steps / plan.validate_every) + 2
    seconds = steps * step + validations * validation
    if minutes and (not steps or seconds > minutes * 60):
        seconds = minutes * 60
        share = step + validation / plan.epoch_steps / plan.validate_every
        steps = max(1, int((seconds - 2 * validation) / share))
    return Rehearsal(
        seconds=seconds,
        memory=_peak_memory(run.accelerator.device),
        step_seconds=step,
        validation_seconds=validation,
        checkpoint_seconds=run.saving,
        checkpoint_bytes=size,
        steps=steps,
        epochs=steps / plan.epoch_steps,
    )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
