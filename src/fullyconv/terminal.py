"""Progress on a terminal: one live bar with the time left; plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from fullyconv.progress import Lines, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


@contextmanager
def progress_for(stream: TextIO) -> Iterator[Progress]:
    """Yield what suits the stream: live bars on a terminal, plain lines elsewhere."""
    if not stream.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(
        *Bars.get_default_columns(), "{task.fields[note]}", console=Console(file=stream), transient=True
    ) as bars:
        yield _Live(bars)


class _Live:
    """Draws on a rich display that someone else opens and closes."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        self._bars.console.print(line, highlight=False, markup=False)

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task, total=total, note=note)
        self._bars.update(self._tasks[task], completed=done, total=total, note=note, visible=done < total)
