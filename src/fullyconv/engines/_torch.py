"""The torch engine: any device torch knows, float32 or bfloat16."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fullyconv.engines._graph import DeployedGraph
from fullyconv.engines._runner import Answer, Precision, RunOptions, finished, read_ahead, require_fit
from fullyconv.errors import ConfigError
from fullyconv.models import SegmentationModel

# Of windows that go through a GPU at once: enough to fill it, little beside its memory.
_BATCH_PIXELS = 1 << 22


def pick_device() -> torch.device:
    """Return the fastest device at hand: CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


class TorchEngine:
    """A `Runner` in torch.

    Parameters
    ----------
    model
        Used in place: moved to the device, in evaluation mode from now on.
    options
        With "bf16" torch computes in mixed precision; int8 it has not. ``threads`` hold for all that torch
        does in this process.
    device
        Where to compute; the fastest at hand when None.

    Raises
    ------
    ConfigError
        The precision is int8.

    Notes
    -----
    A thread pulls windows while others are computed. On a GPU equal windows go through in batches, and
    windows of one known size are compiled (`torch.compile`), which takes its first batch half a minute.
    """

    engine = "torch"

    def __init__(
        self, model: SegmentationModel, options: RunOptions, device: torch.device | None = None
    ) -> None:
        if options.precision == "int8":
            raise ConfigError("int8 with the torch engine", "f32 or bf16", "take --engine openvino")
        self.precision: Precision = options.precision
        self.answer, self.notes = options.answer, options.notes
        self.device = device or pick_device()
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self._model, self._size = model, options.size
        on_gpu = self.device.type != "cpu"
        pixels = math.prod(options.size) if options.size else _BATCH_PIXELS
        self.workers = max(1, _BATCH_PIXELS // pixels) if on_gpu else 1
        self._behind = 1 if on_gpu else 0  # batches whose answers are still to be fetched
        self.in_flight = self.workers * (2 + self._behind)
        graph = DeployedGraph(model, options.answer).to(self.device).to(memory_format=torch.channels_last)
        compiles = self.device.type == "cuda" and options.size is not None
        self._graph: Any = torch.compile(graph, dynamic=False) if compiles else graph

    def run(self, windows: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Answer windows, in the order given; see `Runner.run`."""
        started: deque[Tensor] = deque()
        for batch in self._batches(read_ahead(windows, self.workers)):
            started.append(self._start(batch))
            if len(started) > self._behind:
                yield from self._fetch(started.popleft())
        while started:
            yield from self._fetch(started.popleft())

    def close(self) -> None:
        """Let go of the network."""
        self._graph = None

    def _batches(self, windows: Iterable[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
        """Yield as many neighbours of one size as go through at once."""
        for _, equal in groupby(windows, key=np.shape):
            while batch := list(islice(equal, self.workers)):
                yield batch

    def _start(self, batch: list[NDArray[Any]]) -> Tensor:
        """Begin a batch; on a GPU this returns before it is done."""
        for window in batch:
            require_fit(window, self._model, self._size)
        filled = batch + batch[-1:] * (self.workers - len(batch) if self._size else 0)
        windows = torch.from_numpy(np.stack(filled))
        if self.device.type != "cpu" and windows.dtype not in (torch.uint8, torch.float32):
            windows = windows.float()  # not every device knows every type
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), bf16:
            answers: Tensor = self._graph(windows.to(self.device, non_blocking=True))
        return answers[: len(batch)]

    def _fetch(self, answers: Tensor) -> Iterator[NDArray[Any]]:
        for answer in answers.cpu().numpy():
            yield finished(answer, self._model, self.answer)


def answer_in_torch(model: SegmentationModel, answer: Answer, window: NDArray[Any]) -> NDArray[Any]:
    """Answer one window on the CPU, for engines that do not take every size."""
    engine = TorchEngine(model, RunOptions(answer=answer), torch.device("cpu"))
    return next(engine.run([window]))
