"""Ctrl-C and SIGTERM, kept until it is safe to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from fullyconv.progress import Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):  # noqa: N818  # a request, not a fault
    """A run was asked to stop and is at a place where it can; `exit` is what to raise after saving."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.exit = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


class Interruption:
    """Notes the first signal, so that the step at hand is finished; a second one acts at once.

    A context manager. Outside a program's main thread, where Python handles no signals, it notes nothing.

    Attributes
    ----------
    signal : int
        The number of the signal that came, 0 before.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            ours = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._note) for number in ours}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def check(self) -> None:
        """Raise `Stopped` if a signal came."""
        if self.signal:
            raise Stopped(self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


class Checking:
    """Progress that lets long work be stopped wherever it reports.

    Parameters
    ----------
    progress
        Told everything.
    interruption
        Checked at every report.
    """

    def __init__(self, progress: Progress, interruption: Interruption) -> None:
        self._progress, self._interruption = progress, interruption

    def say(self, line: str) -> None:
        """Pass the line on."""
        self._progress.say(line)

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Pass the news on, unless the work should stop."""
        self._interruption.check()
        self._progress.advance(task, done, total, note)
