"""Which engine, and with what precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.engines._graph import least_side
from fullyconv.engines._int8 import divide
from fullyconv.engines._onnx import ONNXEngine
from fullyconv.engines._openvino import OpenVINOEngine
from fullyconv.engines._runner import Answer, Precision, Runner, RunOptions, Size
from fullyconv.engines._torch import TorchEngine, pick_device
from fullyconv.errors import ConfigError
from fullyconv.hardware import has_native_bf16
from fullyconv.models import SegmentationModel

_COMPARED: tuple[Precision, ...] = ("f32", "bf16")
AGREEMENT = 0.999  # the least share of labels on which bfloat16 must agree with float32 to be taken


def compile_model(
    model: SegmentationModel,
    *,
    size: Size | None = None,
    engine: str = "auto",
    precision: Precision = "f32",
    answer: Answer = "labels",
    threads: int | None = None,
    cache: Path | None = None,
    calibration: Sequence[NDArray[Any]] = (),
) -> Runner:
    """Make a network ready to answer windows of an image.

    Parameters
    ----------
    model
        Put into evaluation mode; the torch engine uses it in place.
    size
        (height, width) of all windows, which is fastest; None for windows of any size.
    engine
        A key of `ENGINES`, or "auto": torch on a GPU, else OpenVINO where it is installed and can run the
        network, else torch. Why it is not OpenVINO stands in the runner's ``notes``.
    precision
        What to compute with; see `choose_precision`.
    answer
        "labels", "probabilities" or "scores"; see `Runner`.
    threads
        To compute with; all of the machine's cores when None.
    cache
        Folder in which converted networks are kept, by default ``$XDG_CACHE_HOME/fullyconv``.
    calibration
        For int8: windows like those to come, some dozens. A quarter of them is held out, and the runner's
        ``notes`` tell on how many of their labels int8 and float32 agree.

    Raises
    ------
    ConfigError
        An unknown engine, or one that cannot run this network so.
    MachineError
        The engine is not installed.
    """
    if engine not in (*ENGINES, "auto"):
        raise ConfigError(f"engine {engine!r}", f"one of {', '.join(('auto', *ENGINES))}", "take 'auto'")
    options = RunOptions(size, precision, answer, threads, cache, calibration)
    if precision == "int8" and engine in ("auto", "openvino"):
        return _with_agreement(model, options)
    if engine != "auto":
        return ENGINES[engine](model, options)
    if pick_device().type != "cpu":
        return ENGINES["torch"](model, options)
    if find_spec("openvino") is None:
        note = "openvino is not installed: torch is used, which is slower (pip install openvino)"
    else:
        try:
            return ENGINES["openvino"](model, options)
        except ConfigError as error:
            note = f"torch is used: {error.given}"
    return ENGINES["torch"](model, replace(options, notes=(note,)))


def _with_agreement(model: SegmentationModel, options: RunOptions) -> Runner:
    quick = ENGINES["openvino"](model, options)
    _, windows = divide(options.calibration)
    with closing(ENGINES["openvino"](model, replace(options, precision="f32"))) as exact:
        agreement = label_agreement(exact, quick, windows)
    quick.notes += (f"int8 agrees with f32 on {agreement:.2%} of labels of {len(windows)} held-out windows",)
    return quick


def label_agreement(first: Runner, second: Runner, windows: Sequence[NDArray[Any]]) -> float:
    """Return the share of pixels to which two runners give the same label."""
    # OpenVINO compiles on one core, so that two at once take hardly longer; torch would take turns.
    at_once = 2 if first.engine == second.engine == "openvino" else 1
    with ThreadPoolExecutor(at_once) as pool:
        answers = pool.map(partial(_labels, windows=windows), (first, second))
        equal = [a == b for a, b in zip(*answers, strict=True)]
    return float(np.mean(np.concatenate([same.ravel() for same in equal])))


def _labels(runner: Runner, windows: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    classes = {"scores": 0, "probabilities": 2}
    return [
        answer if runner.answer == "labels" else answer.argmax(classes[runner.answer])
        for answer in runner.run(windows)
    ]


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision to take, and why.

    Attributes
    ----------
    precision
        "bf16" where the processor has it and it agrees, else "f32".
    agreement
        The share of labels on which bfloat16 and float32 agree; None where the processor has no bfloat16.
    runner
        What was compiled with that precision to compare them, for labels of windows of any size; None where
        nothing was, or the network takes windows of this size only in another form.
    """

    precision: Precision
    agreement: float | None
    runner: Runner | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        if self.agreement is None:
            return "precision: f32; this processor has no bfloat16"
        return f"precision: {self.precision}; bf16 agrees with f32 on {self.agreement:.2%} of labels"


def choose_precision(
    model: SegmentationModel,
    window: NDArray[Any],
    *,
    engine: str = "auto",
    threads: int | None = None,
    cache: Path | None = None,
) -> PrecisionChoice:
    """Find out whether a network may run in bfloat16 on images like this.

    Parameters
    ----------
    model
        The network.
    window
        H×W×C of the user's own image. What is converted to compare them serves runners of any size later.
    engine, threads, cache
        As for `compile_model`.

    Returns
    -------
    PrecisionChoice
        bfloat16 where the processor computes with it natively and at least `AGREEMENT` of labels agree.
    """
    if pick_device().type != "cuda" and not has_native_bf16():
        return PrecisionChoice("f32", None)
    height, width = window.shape[:2]
    size = None if min(height, width) >= least_side(model) else (height, width)
    runners = {
        precision: compile_model(
            model, size=size, engine=engine, precision=precision, threads=threads, cache=cache
        )
        for precision in _COMPARED
    }
    try:
        agreement = label_agreement(runners["f32"], runners["bf16"], [window])
        chosen: Precision = "bf16" if agreement >= AGREEMENT else "f32"
        return PrecisionChoice(chosen, agreement, runners.pop(chosen) if size is None else None)
    finally:
        for runner in runners.values():
            runner.close()


# Each engine: a network and options in, a runner out.
ENGINES: dict[str, Callable[[SegmentationModel, RunOptions], Runner]] = {
    "openvino": OpenVINOEngine,
    "torch": TorchEngine,
    "onnx": ONNXEngine,
}
