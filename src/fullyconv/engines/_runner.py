"""What every engine is to the outside: windows in, answers out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ImageError
from fullyconv.models import SegmentationModel

Precision = Literal["f32", "bf16", "int8"]
Answer = Literal["labels", "probabilities", "scores"]
Size = tuple[int, int]


@dataclass(frozen=True)
class RunOptions:
    """How a network is to be run; `compile_model` describes each."""

    size: Size | None = None
    precision: Precision = "f32"
    answer: Answer = "labels"
    threads: int | None = None
    cache: Path | None = None
    calibration: Sequence[NDArray[Any]] = ()
    notes: tuple[str, ...] = ()


class Runner(Protocol):
    """A network made ready to answer windows of an image.

    Attributes
    ----------
    engine
        A key of `ENGINES`.
    precision
        What it computes with.
    answer
        What it says of each window, h×w being the window's size less the network's margin: "labels",
        h×w in the class table's type; "probabilities", h×w×K float32, softmax over classes; "scores",
        K×h×w float32.
    in_flight
        How many windows it holds at once at most, those being read and those being computed.
    workers
        How many of them are computed at once: each takes the memory of the network's own maps.
    notes
        What the user should be told of how the runner was made, one line each.
    """

    engine: str
    precision: Precision
    answer: Answer
    in_flight: int
    workers: int
    notes: tuple[str, ...]

    def run(self, windows: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Answer windows, in the order given.

        Windows are pulled while others are computed, at most `in_flight` before their answer is out.

        Parameters
        ----------
        windows
            H×W×C each, raw values in the type of the network's training images.

        Raises
        ------
        ImageError
            A window has other channels, another type, or another size than the runner was made for.
        FullyconvError
            The engine failed. What the iterable raises passes through.
        """
        ...

    def close(self) -> None:
        """Let go of memory; the runner runs nothing any more. Closing twice does nothing."""
        ...


def require_fit(window: NDArray[Any], model: SegmentationModel, size: Size | None) -> None:
    """Raise `ImageError` unless a window is one that a runner of this network and size takes."""
    height, width = size or window.shape[:2]
    expected = (height, width, model.channels)
    if window.shape != expected or window.dtype != model.normalization.dtype:
        raise ImageError(
            f"a window of {'×'.join(map(str, window.shape))} values of {window.dtype}",
            f"{'×'.join(map(str, expected)) if size else f'H×W×{model.channels}'} of "
            f"{model.normalization.dtype}",
            "cut windows of one size from an image made to fit by fullyconv.images.conform",
        )


def finished(answer: NDArray[Any], model: SegmentationModel, kind: Answer) -> NDArray[Any]:
    """Return what the graph answered in the type that a runner's answer has, in memory of its own order."""
    dtype = model.classes.dtype if kind == "labels" else np.dtype(np.float32)
    return np.ascontiguousarray(answer, dtype)


_END: Any = object()


def read_ahead(windows: Iterable[NDArray[Any]], count: int) -> Iterator[NDArray[Any]]:
    """Yield windows; a thread pulls the next ``count`` meanwhile, and has ended when this ends."""
    source = iter(windows)
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(1, "fullyconv-read") as reader:
        try:
            waiting.extend(reader.submit(next, source, _END) for _ in range(count))
            while (window := waiting.popleft().result()) is not _END:
                waiting.append(reader.submit(next, source, _END))
                yield window
        finally:
            for future in waiting:
                future.cancel()
