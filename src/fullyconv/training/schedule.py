"""How far a run is, and how fast it learns there."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


def learning_rate(share: float, peak: float, warmup: float) -> float:
    """Return the learning rate at ``share`` (0 to 1) of the run: linear rise, then half a cosine to 0.

    Loshchilov and Hutter, arXiv 1608.03983, equation 5, without restarts.
    """
    if share < warmup:
        return peak * share / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


@dataclass
class Clock:
    """Measures a run against its end, given in steps, in seconds, or both (the earlier one counts).

    Parameters
    ----------
    steps
        All steps of the run, or ``None``.
    seconds
        All seconds of the run, or ``None``.
    """

    steps: int | None = None
    seconds: float | None = None
    step: int = 0
    started: float = field(default_factory=time.monotonic)
    reserved: float = 0.0
    """Seconds that the work after the last step will take."""

    @property
    def share(self) -> float:
        """How much of the run is over, 0 to 1."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(self.step / self.steps)
        if self.seconds is not None:
            shares.append((time.monotonic() - self.started) / max(self.seconds - self.reserved, 1e-9))
        return min(max(shares), 1.0)
