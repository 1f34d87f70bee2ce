"""What a run leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullyconv.evaluation import Evaluation


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves behind.

    Parameters
    ----------
    model
        The file of the network with the best validation mean IU.
    evaluation
        That network's validation scores.
    epochs, steps
        How long the run was.
    seconds
        From start to end, checks and validation included, in all sittings.
    """

    model: Path
    evaluation: Evaluation
    epochs: int
    steps: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the scores at the top level and the rest beside them, JSON-ready."""
        rest = {"model": str(self.model), "epochs": self.epochs, "steps": self.steps, "seconds": self.seconds}
        return {**self.evaluation.to_dict(), **rest}

    def __str__(self) -> str:
        return (
            f"{self.evaluation}\n{self.epochs} epochs, {self.steps} steps, {self.seconds:.0f} s\n"
            f"model: {self.model}\n"
            f"overlays: {self.model.parent / 'overlays'}"
        )
