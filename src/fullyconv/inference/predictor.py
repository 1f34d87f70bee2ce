"""Predict image after image with one network: whole where that fits, else in tiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fullyconv.engines import Answer, Precision, Runner, pick_device
from fullyconv.errors import ImageError
from fullyconv.inference.fitting import Fitting, TileSize
from fullyconv.inference.memory import parse_bytes
from fullyconv.inference.mirrored import MirroredImage
from fullyconv.inference.pieces import Run, compute_pieces, count_pieces, in_step
from fullyconv.inference.plans import Tile, TilePlan
from fullyconv.inference.prediction import Prediction
from fullyconv.inference.runners import Runners
from fullyconv.inference.sources import Image, PathSource, Source, as_source, middle, spread_parts
from fullyconv.models import Flips, Network, SegmentationModel, assemble
from fullyconv.progress import Progress, Quiet

_MANY_TILES = 16  # from which on a GPU gets a runner compiled for their one shape
_CALIBRATION = 5  # windows along each axis that int8 is calibrated on
_PROBE = 256  # side of the window on which precisions are compared


class Predictor:
    """Predicts image after image with one network, or the mean of several, whole or in tiles.

    Tiles give what the whole image gives. Where the network looks at the whole image at once, or else by
    its size, they cannot: then overlapping tiles are blended, and the `Prediction` gives the reasons.

    Parameters
    ----------
    model
        A network, the path of a model file or of a folder of folds, or several of these, whose probabilities
        are averaged.
    flips
        Average over mirror images as well, each of which takes as long as the image: "horizontal" or "both".
    engine
        What computes: a key of `fullyconv.engines.ENGINES`, or ``"auto"``.
    precision
        ``"f32"``, ``"bf16"``, ``"int8"``, or ``"auto"``: bfloat16 where the processor has it and where, on a
        window of the first image, at least 99.9 % of the labels equal those of float32.
    tile
        The most pixels of a tile along each axis, ``None`` to take every image whole, or ``"auto"``: whole up
        to four megapixels, else the tiles that fit in memory and compute the fewest pixels twice.
    max_memory
        What the process may hold at most, in bytes or as "2GB"; half of what is free when ``None``.
    threads
        Processors to use; all when ``None``.
    progress
        Told about choices and tiles.
    """

    def __init__(
        self,
        model: Network | Sequence[Network],
        *,
        flips: Flips = "none",
        engine: str = "auto",
        precision: Precision | Literal["auto"] = "auto",
        tile: TileSize = "auto",
        max_memory: int | str | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model = assemble(model, flips)
        self._progress = progress or Quiet()
        self.engine = engine
        self.runners = Runners(self.model, engine, precision, threads, self._progress)
        self.fitting = Fitting(self.model, tile, None if max_memory is None else parse_bytes(max_memory))
        self._told: set[str] = set()

    def predict(self, image: Image, *, probabilities: bool = False) -> Prediction:
        """Predict one image.

        Parameters
        ----------
        image
            H×W×C or H×W, in the type and units of the training images; or a path, or an open
            `fullyconv.images.ImageSource`, which are read window by window.
        probabilities
            Also return softmax probabilities.

        Raises
        ------
        ImageError
            The file is missing or damaged, or channels or type do not fit the network.
        MachineError
            Memory does not suffice.
        """
        return next(self.predict_many([image], probabilities=probabilities))

    def predict_many(self, images: Iterable[Image], *, probabilities: bool = False) -> Iterator[Prediction]:
        """Predict images of any sizes, in order, reading some while others are computed.

        Parameters
        ----------
        images
            As for `predict`; taken one by one, a few ahead of the predictions.
        probabilities
            Also return softmax probabilities.

        Raises
        ------
        ImageError
            As `predict`, when that image's turn comes.
        """
        for outcome in self.try_many(images, probabilities=probabilities):
            if isinstance(outcome, ImageError):
                raise outcome
            yield outcome

    def try_many(
        self, images: Iterable[Image], *, probabilities: bool = False
    ) -> Iterator[Prediction | ImageError]:
        """Predict as `predict_many`; in place of an image that cannot be used give its error, and go on."""
        works = (self._begin(image, probabilities) for image in images)
        for way, group in groupby(works, self._way):
            if way is None:
                yield from (work for work in group if isinstance(work, ImageError))
            else:
                run, exact = way
                taken = (work for work in group if isinstance(work, _Work))
                yield from (
                    _stream(taken, run, self._progress) if exact else _blended(taken, run, self._progress)
                )

    def plan(self, source: Source, *, align: int = 1, probabilities: bool = False) -> TilePlan:
        """Plan the tiles of an image, and say what is special about them; see `plan_tiles`."""
        self.settle(source, "probabilities" if probabilities else "labels")
        seen = MirroredImage(source, self.model)
        plan = self.fitting.plan(seen.size, seen.scored, align=align)
        for reason in plan.reasons:
            if reason not in self._told:
                self._progress.say(f"tiles are blended, and the result is approximate: {reason} (--tile)")
        self._told.update(plan.reasons)
        return plan

    def settle(self, source: Source, answer: Answer) -> None:
        """Choose, where that is left to us, the precision on the middle of an image; calibrate int8 on it."""
        if not self.runners.is_settled:
            parts = [middle(source, (_PROBE, _PROBE))]
            if self.runners.precision == "int8":
                parts += spread_parts(source, (_PROBE, _PROBE), _CALIBRATION)
            seen = [MirroredImage(part, self.model) for part in parts]
            self.runners.settle([image.read(np.s_[: image.size[0], : image.size[1]]) for image in seen])
        if self.fitting.at_once == 0:
            self.fitting.at_once = self.runners.get(None, answer).workers
            self.fitting.bytes_per_value = 4 if self.runners.precision == "f32" else 2

    def answer(self, plan: TilePlan, *, probabilities: bool) -> Answer:
        """Return what a runner has to answer: labels where that is enough."""
        return "probabilities" if probabilities or not plan.exact else "labels"

    def runner(self, plan: TilePlan, answer: Answer) -> Runner:
        """Return what computes a plan's tiles: one runner for all sizes, but for many tiles on a GPU."""
        one_size = plan.count >= _MANY_TILES and pick_device().type == "cuda"
        return self.runners.get(plan.tile_size if one_size else None, answer)

    def _begin(self, image: Image, probabilities: bool) -> _Work | ImageError:
        try:
            source = as_source(image)
            plan = self.plan(source, probabilities=probabilities)
            answer = self.answer(plan, probabilities=probabilities)
            return _Work(source, self.model, plan, answer, probabilities)
        except ImageError as error:
            return error

    def _way(self, work: _Work | ImageError) -> tuple[Run, bool] | None:
        if isinstance(work, ImageError):
            return None
        return self.runner(work.plan, work.answer).run, work.plan.exact


class _Work:
    """One image on its way to its prediction."""

    def __init__(
        self, source: Source, model: SegmentationModel, plan: TilePlan, answer: Answer, probabilities: bool
    ) -> None:
        self.source, self.plan, self.classes = source, plan, model.classes
        self.seen = MirroredImage(source, model)
        self.answer = answer
        self.failure: ImageError | None = None
        self.labels = np.empty(plan.output_size, self.classes.dtype)
        self.shares = np.empty((*plan.output_size, len(self.classes)), np.float32) if probabilities else None
        self._sent = self._received = 0

    def windows(self) -> Iterator[tuple[Tile, NDArray[Any]]]:
        """Yield tiles with what the network is given; one that cannot be read is the image's failure."""
        try:
            for tile in self.plan:
                window = self.seen.read(tile.read.slices)
                self._sent += 1
                yield tile, window
        except ImageError as error:
            self.failure = error

    def write(self, where: tuple[slice, slice], values: NDArray[Any]) -> None:
        """Put a part of the answer in its place."""
        self._received += 1
        if self.answer == "labels":
            self.labels[where] = values
            return
        self.labels[where] = values.argmax(2)
        if self.shares is not None:
            self.shares[where] = values

    @property
    def finished(self) -> bool:
        """Whether all that was sent has come back, and nothing is to be sent."""
        return self._received == (self._sent if self.failure else self.plan.count)

    def outcome(self) -> Prediction | ImageError:
        """Return the prediction, or why there is none; a file that we opened is closed."""
        if isinstance(self.source, PathSource):
            self.source.close()
        if self.failure:
            return self.failure
        height, width = self.source.size
        return Prediction(
            self.source,
            np.ascontiguousarray(self.labels[:height, :width]),
            None if self.shares is None else np.ascontiguousarray(self.shares[:height, :width]),
            self.classes,
            self.plan.reasons,
        )


def _stream(works: Iterator[_Work], run: Run, progress: Progress) -> Iterator[Prediction | ImageError]:
    """Compute images that one runner takes, so that it never waits for the next of them."""
    begun: deque[_Work] = deque()

    def windows() -> Iterator[tuple[tuple[_Work, Tile], NDArray[Any]]]:
        for work in works:
            begun.append(work)
            yield from (((work, tile), window) for tile, window in work.windows())

    for (work, tile), answer in in_step(run, windows()):
        work.write(tile.write.slices, answer[tile.inside.slices])
        if work.plan.count > 1:
            progress.advance("predicting", tile.index + 1, work.plan.count, "tiles")
        while begun and begun[0].finished:
            yield begun.popleft().outcome()
    yield from (work.outcome() for work in begun)


def _blended(works: Iterator[_Work], run: Run, progress: Progress) -> Iterator[Prediction | ImageError]:
    for work in works:
        count = count_pieces(work.plan)
        try:
            for piece in compute_pieces(work.plan, work.seen.read, run, range(count)):
                work.write(piece.where.slices, piece.values)
                progress.advance("predicting", piece.number + 1, count, "rows of tiles")
        except ImageError as error:
            work.failure = error
        yield work.outcome()


def predict(
    model: Network | Sequence[Network],
    image: Image,
    *,
    flips: Flips = "none",
    engine: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    tile: TileSize = "auto",
    max_memory: int | str | None = None,
    threads: int | None = None,
    probabilities: bool = False,
    progress: Progress | None = None,
) -> Prediction:
    """Predict one image with a network, a model file or several; see `Predictor` for the parameters."""
    predictor = Predictor(
        model,
        flips=flips,
        engine=engine,
        precision=precision,
        tile=tile,
        max_memory=max_memory,
        threads=threads,
        progress=progress,
    )
    return predictor.predict(image, probabilities=probabilities)
