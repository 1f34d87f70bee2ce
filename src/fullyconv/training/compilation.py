"""Whether to compile the network's steps (`torch.compile`): where that pays, by a short measurement."""

from __future__ import annotations

from importlib import import_module
from typing import Literal, cast

import torch
from torch import nn

from fullyconv.engines import Precision
from fullyconv.errors import MachineError
from fullyconv.models import SegmentationModel
from fullyconv.progress import Progress
from fullyconv.training.trials import CROPS, Trial, best_seconds

# Seconds of a run. Compiling takes minutes, and on processors, where convolutions take most of a step, it was
# seen to gain a twentieth.
WORTH_A_TRIAL = {"cpu": 4 * 3600.0, "cuda": 1800.0}
LEAST_GAIN = 0.05

_OPTION = "(--set compile)"


def missing_compiler(device: torch.device) -> str | None:
    """Return what `torch.compile` lacks on this machine, if anything."""
    try:
        if device.type == "cuda":
            import_module("triton")
        elif device.type == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()
        else:
            return f"no compiler for {device.type}"
    except Exception as error:  # whatever the compilers' own look raises
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def compiled(network: nn.Module, device: torch.device) -> nn.Module:
    """Return what computes as a network does and shares its weights, compiled at its first step.

    Raises
    ------
    MachineError
        There is no compiler.
    """
    lacking = missing_compiler(device)
    if lacking is not None:
        raise MachineError(
            f"steps that are compiled, without a compiler: {lacking}",
            "one, such as g++ for a processor, or Triton for a GPU",
            "install it, or begin anew with --set compile=off",
        )
    return cast(nn.Module, torch.compile(network, dynamic=False))


def choose_compilation(
    model: SegmentationModel,
    crop: tuple[int, int],
    batch: int,
    precision: Precision,
    device: torch.device,
    progress: Progress,
    *,
    steps: int | None,
    seconds: float | None,
) -> Literal["on", "off"]:
    """Compile where a long run gains more than compiling takes, and say it.

    Parameters
    ----------
    model, crop, batch, precision, device
        What a step is.
    progress
        Told the choice.
    steps, seconds
        Of the run; what is ``None`` does not end it.
    """
    worth = WORTH_A_TRIAL.get(device.type, 0.0)
    eager = Trial(model, crop, device, precision)
    whole = _seconds(seconds, 1.0)
    if whole >= worth:
        eager.step()
        whole = min(whole, _seconds(steps, eager.step() * batch / CROPS))
    if whole < worth:
        progress.say(f"compiling: off, for a run of less than {worth / 60:.0f} minutes {_OPTION}")
        return "off"
    lacking = missing_compiler(device)
    if lacking is not None:
        progress.say(f"compiling: off, {lacking} {_OPTION}")
        return "off"
    try:
        trial = Trial(model, crop, device, precision, compiled=True)
        compiling = trial.step()
        measured = best_seconds({"eager": eager, "compiled": trial})
    except Exception as error:  # whatever the compiler raises
        progress.say(f"compiling: off, it failed ({str(error).strip().splitlines()[0][:200]}) {_OPTION}")
        return "off"
    gain = 1 - measured["compiled"] / measured["eager"]
    choice: Literal["on", "off"] = "on" if gain >= LEAST_GAIN and gain * whole > compiling else "off"
    progress.say(
        f"compiling: {choice}; for a step of two crops eager {measured['eager'] * 1000:.0f} ms, compiled "
        f"{measured['compiled'] * 1000:.0f} ms, and {compiling:.0f} s to compile {_OPTION}"
    )
    return choice


def _seconds(count: float | None, each: float) -> float:
    return float("inf") if count is None else count * each
