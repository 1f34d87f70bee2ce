"""Work done behind the back of who computes: writing, on threads of its own, a few calls at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self


class Behind:
    """Runs calls on other threads while the caller goes on; a ``with`` block waits for them at its end.

    Parameters
    ----------
    threads
        How many run calls.
    waiting
        How many calls may be begun or wait; the next has to wait for the oldest: memory stays bounded.
    """

    def __init__(self, threads: int = 1, waiting: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, "fullyconv-write")
        self._limit, self._calls = waiting, deque[Future[Any]]()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run ``function(*arguments)`` soon; what an earlier call raised is raised here."""
        while len(self._calls) >= self._limit:
            self._calls.popleft().result()
        self._calls.append(self._pool.submit(function, *arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=error is not None)
        if error is None:
            for call in self._calls:
                call.result()
