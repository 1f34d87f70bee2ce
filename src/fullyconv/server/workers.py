"""Computing: one thread with its own networks, which can be asked how far it is and told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fullyconv.inference import Predictor
from fullyconv.models import SegmentationModel
from fullyconv.server.answers import Answer, OutputName, Wish, write_outputs
from fullyconv.server.decoders import Place

_WARM = 64  # side of the image on which networks are made ready

State = Literal["receiving", "waiting", "decoding", "predicting", "writing"]


@dataclass
class Job:
    """An image on its way to its answer.

    Parameters
    ----------
    state
        Where it is.
    done, total
        Tiles that are predicted, and that there are; 0 where it is one.
    pixels
        Of the image, once it is predicted.
    is_unwanted
        Whether nobody waits for it any more.
    """

    state: State = "receiving"
    done: int = 0
    total: int = 0
    pixels: int = 0
    is_unwanted: bool = False


class Unwanted(Exception):  # noqa: N818 (no error: nobody waits for the answer)
    """Ends work for which nobody waits."""


class Worker:
    """Predicts image after image on a thread of its own.

    Parameters
    ----------
    models
        Name -> network.
    options
        Of `Predictor`.
    """

    def __init__(self, models: Mapping[str, SegmentationModel], **options: Any) -> None:
        self._progress = _Progress()
        self._predictors = {
            name: Predictor(model, progress=self._progress, **options) for name, model in models.items()
        }
        self._thread = ThreadPoolExecutor(1, "fullyconv-predict")

    def warm(self) -> None:
        """Make every network ready, so that the first image need not wait for that."""
        for predictor in self._predictors.values():
            model = predictor.model
            image = np.zeros((_WARM, _WARM, model.channels), model.normalization.dtype)
            for wanted in (False, True):
                predictor.predict(image, probabilities=wanted)

    async def answer(
        self,
        name: str,
        pixels: Path,
        place: Place | None,
        wish: Wish,
        outputs: list[OutputName],
        job: Job,
    ) -> tuple[Path, str]:
        """Predict an image, and write the answer beside it; end soon where this is cancelled.

        Parameters
        ----------
        name
            Of the model.
        pixels
            The decoded image, ``.npy``.
        place, wish, outputs
            As `write_outputs` takes them.
        job
            Told how far it is.

        Returns
        -------
        file, media_type
            What to send.
        """

        def work() -> tuple[Path, str]:
            self._progress.job = job
            job.state = "predicting"
            image = np.load(pixels, mmap_mode="r", allow_pickle=False)
            prediction = self._predictors[name].predict(image, probabilities="probabilities" in outputs)
            job.state, job.pixels = "writing", prediction.labels.size
            return write_outputs(pixels.parent, Answer(name, prediction, place, wish), outputs)

        done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            job.is_unwanted = True
            await asyncio.wait([done])
            done.exception()  # seen, and of interest to nobody
            raise

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


class _Progress:
    """What a predictor says, kept in the job it works on; and where it is stopped."""

    def __init__(self) -> None:
        self.job = Job()

    def say(self, line: str) -> None:
        """Drop the line: it is the same for every image."""

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        self.job.done, self.job.total = int(done), int(total)
        if self.job.is_unwanted:
            raise Unwanted
