"""From an upload to its answer: a place, decoding beside the server, computing on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from fullyconv.errors import InputError
from fullyconv.models import SegmentationModel
from fullyconv.server.answers import OutputName, Wish
from fullyconv.server.counters import Counters
from fullyconv.server.decoders import Decoder
from fullyconv.server.limits import Limits
from fullyconv.server.places import Places
from fullyconv.server.problems import Problem
from fullyconv.server.workers import Job, Worker

Tool = TypeVar("Tool")


class Service:
    """Predicts what clients send.

    Parameters
    ----------
    models
        Name -> network.
    limits
        What it takes.
    workers
        How many images are computed at one time; each worker holds every network.
    options
        Of `fullyconv.inference.Predictor`.

    Attributes
    ----------
    jobs : dict[str, Job]
        What is on its way, by the name its client gave it.
    """

    def __init__(
        self,
        models: Mapping[str, SegmentationModel],
        limits: Limits,
        *,
        workers: int = 1,
        **options: Any,
    ) -> None:
        self.models, self.counters = dict(models), Counters()
        self.places = Places(limits.waiting + workers, workers)
        self.jobs: dict[str, Job] = {}
        self.is_ready = False
        self._workers = [Worker(self.models, **options) for _ in range(workers)]
        # One image more is decoded than is computed: what is decoded is large, and not to be piled up.
        self._decoders = [Decoder(limits) for _ in range(workers + 1)]
        self._idle_workers: asyncio.Queue[Worker] = asyncio.Queue()
        self._idle_decoders: asyncio.Queue[Decoder] = asyncio.Queue()
        self._ahead = asyncio.Semaphore(workers + 1)

    def warm(self) -> None:
        """Make every network ready; takes seconds."""
        for worker in self._workers:
            worker.warm()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold decoders and workers while the block runs."""
        for decoder in self._decoders:
            await decoder.start()
            self._idle_decoders.put_nowait(decoder)
        for worker in self._workers:
            self._idle_workers.put_nowait(worker)
        self.is_ready = True
        try:
            yield
        finally:
            self.is_ready = False
            for decoder in self._decoders:
                await decoder.close()
            for worker in self._workers:
                await run_in_threadpool(worker.close)

    @contextmanager
    def job(self, name: str) -> Iterator[tuple[Job, Path]]:
        """Give a client's image a name and a folder while the block runs.

        Raises
        ------
        Problem
            There is one of that name.
        """
        if name in self.jobs:
            raise Problem(
                409,
                InputError(f"a second request {name}", "one at a time", "send another X-Request-ID, or none"),
            )
        self.jobs[name] = job = Job()
        try:
            with TemporaryDirectory(prefix="fullyconv-serve-", ignore_cleanup_errors=True) as folder:
                yield job, Path(folder)
        finally:
            del self.jobs[name]

    async def answer(
        self, upload: Path, model: str, wish: Wish, outputs: list[OutputName], job: Job
    ) -> tuple[Path, str]:
        """Predict an uploaded file; see `Worker.answer`.

        Raises
        ------
        Problem
            There is no place: the client is to come again.
        ImageError, MachineError
            The image cannot be predicted.
        """
        pixels = upload.with_name("pixels.npy")
        with self.places.take(), self.counters.places.track_inprogress():
            job.state = "waiting"
            async with self._ahead:
                async with _borrowed(self._idle_decoders) as decoder:
                    job.state = "decoding"
                    with self._timed("decode"):
                        place = await decoder.decode(upload, pixels)
                job.state = "waiting"
                async with _borrowed(self._idle_workers) as worker:
                    with self._timed("predict"):
                        answer = await worker.answer(model, pixels, place, wish, outputs, job)
        self.counters.pixels.labels(model).inc(job.pixels)
        return answer

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = monotonic()
        yield
        self.counters.stages.labels(stage).observe(monotonic() - began)


@asynccontextmanager
async def _borrowed(idle: asyncio.Queue[Tool]) -> AsyncIterator[Tool]:
    tool = await idle.get()
    try:
        yield tool
    finally:
        idle.put_nowait(tool)
