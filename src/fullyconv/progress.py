"""What long work says while it runs: one protocol, silent by default."""

from __future__ import annotations

import sys
import time
from typing import Protocol


class Progress(Protocol):
    """Receives what long work has to say."""

    def say(self, line: str) -> None:
        """Show one line that stays."""

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Show that ``done`` of ``total`` units of ``task`` are finished."""


class Quiet:
    """Says nothing."""

    def say(self, line: str) -> None:
        """Drop the line."""

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Drop the news."""


class Lines:
    """Plain lines on standard error, for logs and pipes: at most one per task every ``interval`` seconds."""

    def __init__(self, interval: float = 10.0) -> None:
        self._interval = interval
        self._started: dict[str, float] = {}
        self._shown: dict[str, float] = {}

    def say(self, line: str) -> None:
        """Write the line."""
        print(line, file=sys.stderr, flush=True)

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Write a line if the last one of this task is old enough."""
        now = time.monotonic()
        started = self._started.setdefault(task, now)
        if done >= total:  # the next of the same name starts anew
            self._started.pop(task)
        if now - self._shown.setdefault(task, started) < self._interval:
            return
        self._shown[task] = now
        share = done / total if total else 1.0
        left = (now - started) * (1 - share) / share if share else float("nan")
        self.say(f"{task}: {share:4.0%}, about {left:.0f} s left{', ' + note if note else ''}")
