"""A few training steps on noise, to measure by."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from fullyconv.engines import Precision
from fullyconv.models import SegmentationModel

CROPS = 2
TURNS = 4


class Trial:
    """Training steps of a copy of a network, on two crops of noise.

    Parameters
    ----------
    model
        Left as it is.
    crop
        (height, width) that it sees.
    device, precision
        Where, and in what, it computes.
    compiled
        Whether by `torch.compile`, which compiles at the first step.
    """

    def __init__(
        self,
        model: SegmentationModel,
        crop: tuple[int, int],
        device: torch.device,
        precision: Precision,
        *,
        compiled: bool = False,
    ) -> None:
        copied = copy.deepcopy(model).to(device).to(memory_format=torch.channels_last).train()
        self._model: Any = torch.compile(copied, dynamic=False) if compiled else copied
        self._images = torch.rand(CROPS, model.channels, *crop, device=device)
        self._images = self._images.contiguous(memory_format=torch.channels_last)
        self._bf16 = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

    def step(self) -> float:
        """Return the seconds of one step forward and back."""
        started = time.perf_counter()
        with self._bf16:
            scores = self._model(self._images)
        main = scores[0] if isinstance(scores, tuple) else scores
        main.float().square().mean().backward()
        if self._images.device.type == "cuda":
            torch.cuda.synchronize(self._images.device)
        return time.perf_counter() - started


def best_seconds(trials: Mapping[Any, Trial]) -> dict[Any, float]:
    """Return the seconds of the best step of each trial, after one that warms up.

    In turns, and the best of each counts: other work on the machine then slows none of them alone.
    """
    seconds = dict.fromkeys(trials, math.inf)
    for turn in range(1 + TURNS):
        for name, trial in trials.items():
            taken = trial.step()
            seconds[name] = min(seconds[name], taken) if turn else math.inf
    return seconds
