"""The stream of batches of a run: it begins at any step, and tells which worker is stuck or dead."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from fullyconv.datasets import CropSampler
from fullyconv.errors import MachineError

HANGING = 300.0  # seconds without a batch after which a worker is taken to hang


class Batches(Iterator[tuple[Tensor, ...]]):
    """Batches from a step of the run on, without end; a context manager that leaves no process behind.

    Of many processes that train together each has its own part of every batch, in the order of their ranks:
    what one process with the whole batch would see.

    Parameters
    ----------
    sampler
        The crops.
    size
        Crops of a batch, all processes together.
    step
        The number of the first batch.
    workers
        Processes that prepare crops; 0 prepares them in this one.
    rank, processes
        Which of how many processes that train together this is.

    Attributes
    ----------
    waited : float
        Seconds spent waiting for batches.
    """

    def __init__(
        self, sampler: CropSampler, size: int, *, step: int, workers: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.waited = 0.0
        self._sampler = sampler
        self._numbers = _Numbers(size, step, rank, processes)
        self._loader = DataLoader(
            sampler,
            batch_sampler=cast("Sampler[list[int]]", self._numbers),
            num_workers=workers,
            timeout=HANGING if workers else 0,
            worker_init_fn=_leave_signals_to_parent,
            # Forked workers begin at once, and leave no named semaphores when they are killed.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        self._batches: Iterator[tuple[Tensor, ...]] | None = None
        self._workers: list[BaseProcess] = []
        self._dead: set[int | None] = set()

    def __enter__(self) -> Batches:
        others = set(multiprocessing.active_children())
        self._batches = iter(self._loader)
        self._workers = [child for child in multiprocessing.active_children() if child not in others]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dead = {worker.pid for worker in self._workers if not worker.is_alive()}
        if isinstance(error, RuntimeError) and "DataLoader" in str(error):
            self._kill()  # what hangs would keep the loader waiting
        # An iterator does this when it goes, but an error's traceback would keep it.
        getattr(self._batches, "_shutdown_workers", lambda: None)()
        self._batches = None
        self._kill()

    def __next__(self) -> tuple[Tensor, ...]:
        """Return the next batch: crops, labels and, where they are weighed, weights."""
        assert self._batches is not None, "batches are drawn inside `with`"
        started = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - started
        return batch

    def names(self, step: int) -> list[str]:
        """Return the names of the samples of this process's part of batch ``step``."""
        return [self._sampler.sample_of(number).name for number in self._numbers.at(step)]

    def _kill(self) -> None:
        # A loader's handler would take the death of its workers for a fault.
        ours = threading.current_thread() is threading.main_thread()
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if ours else None
        for worker in self._workers:
            worker.kill()
            worker.join()
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)

    def worker_fault(self, error: RuntimeError) -> MachineError | None:
        """Return what to say, after the end, of a loader's ``error``: the image that a worker was reading."""
        if "DataLoader" not in str(error):
            return None
        at = {
            image
            for process, image in self._sampler.reading.items()
            if not self._dead or process in self._dead
        }
        where = f" while reading {', '.join(sorted(at))}" if at else ""
        fix = "look at that file, and at the memory (free -m): a worker that takes too much is killed"
        given = "died" if self._dead else f"gave nothing for {HANGING:g} s"
        return MachineError(
            f"a worker that prepares crops {given}{where}", "workers that answer", f"{fix}; then resume"
        )


class _Numbers:
    """The crops of each batch, by their numbers."""

    def __init__(self, size: int, step: int, rank: int, processes: int) -> None:
        self._size, self._step = size, step
        self._parts: Sequence[NDArray[np.int64]] = np.array_split(np.arange(size), processes)
        self._rank = rank

    def at(self, step: int) -> list[int]:
        return [int(number) for number in self._parts[self._rank] + step * self._size]

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.at, itertools.count(self._step))


def _leave_signals_to_parent(worker: int) -> None:
    # Ctrl-C and a cluster's SIGTERM reach every process; the one that trains decides when to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
