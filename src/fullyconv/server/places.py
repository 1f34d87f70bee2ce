"""The bounded queue: who has no place is told when to come again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from time import monotonic

from fullyconv.errors import InputError
from fullyconv.server.problems import Problem

_MEMORY = 0.8  # of the mean time: what earlier images say of the next


class Places:
    """Counts images that are here, waiting or worked on.

    Parameters
    ----------
    most
        How many may be here at one time.
    workers
        How many are worked on at one time.
    """

    def __init__(self, most: int, workers: int) -> None:
        self.most, self.taken = most, 0
        self._workers, self._seconds = workers, 1.0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises
        ------
        Problem
            There is none.
        """
        self.require_one()
        self.taken += 1
        began = monotonic()
        try:
            yield
            each = (monotonic() - began) * self._workers / self.taken
            self._seconds = _MEMORY * self._seconds + (1 - _MEMORY) * each
        finally:
            self.taken -= 1

    def require_one(self) -> None:
        """Raise the `Problem` of `take` where there is no place now."""
        if self.taken >= self.most:
            wait = max(1, ceil(self._seconds * self.taken / self._workers))
            raise Problem(
                429,
                InputError(
                    f"one image more than the {self.most} that may be here", "fewer at a time", "come again"
                ),
                {"Retry-After": str(wait)},
            )
