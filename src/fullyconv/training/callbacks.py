"""Who is told how a run goes: your own code, and the trackers of experiments that Accelerate knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from accelerate import Accelerator

from fullyconv.training.choices import Plan


class Callback(Protocol):
    """Told how a run goes; what it raises ends the run, which can be resumed."""

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Hear of a step, counted from 1."""

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        """Hear of a validated epoch: its row of ``history.jsonl``."""


class Trackers:
    """Passes all that is a number on to the trackers of an `Accelerator`.

    Parameters
    ----------
    accelerator
        Made with ``log_with``.
    config
        What the run was told, shown beside its curves.
    """

    def __init__(self, accelerator: Accelerator, config: Mapping[str, Any]) -> None:
        self._accelerator = accelerator
        shown = {name: value for name, value in config.items() if isinstance(value, int | float | str)}
        accelerator.init_trackers("fullyconv", config=shown)

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log the step."""
        self._accelerator.log({"step_loss": loss, "learning_rate": learning_rate}, step=step)

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        """Log the scores."""
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        self._accelerator.log(numbers, step=numbers["step"])


def trackers_of(accelerator: Accelerator, plan: Plan) -> Sequence[Callback]:
    """Return the trackers that the configuration names."""
    return [Trackers(accelerator, asdict(plan.config))] if plan.config.track else []
