"""Everything a report says, measured."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median

import numpy as np

from fullyconv.datasets import Dataset, Sample
from fullyconv.doctor import diagnose
from fullyconv.errors import GeometryError
from fullyconv.evaluation import Evaluation, evaluate
from fullyconv.inference import Predictor
from fullyconv.metrics import interval, resample, score_regions
from fullyconv.models import SegmentationModel
from fullyconv.progress import Progress, Quiet
from fullyconv.receptive_fields import trace_geometry
from fullyconv.reports._pictures import Panel, draw_panels
from fullyconv.reports._runs import Run

BEST = 3  # pictures of what went well
_TURNS = 5  # predictions whose median is the speed


@dataclass(frozen=True)
class Pictured:
    """One image with its scores and pictures."""

    name: str
    mean_iu: float
    class_iu: tuple[float, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Speed:
    """How fast one image was predicted: its size, the median of the seconds, and on what."""

    size: tuple[int, int]
    seconds: float
    processor: str

    @property
    def megapixels(self) -> float:
        """Millions of pixels in a second."""
        return math.prod(self.size) / 1e6 / self.seconds


@dataclass(frozen=True, eq=False)
class Contender:
    """A run, its network and its scores.

    Parameters
    ----------
    run
        The folder.
    model
        The network.
    evaluation
        Its scores on the images of the report.
    speed
        Of this network, on this machine, now.
    seen
        How many of the scored images it was trained on.
    """

    run: Run
    model: SegmentationModel
    evaluation: Evaluation
    speed: Speed
    seen: int

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())


@dataclass(frozen=True, eq=False)
class Findings:
    """What a report says.

    Parameters
    ----------
    first
        The run that is reported.
    others
        Runs it is compared with, scored on the same images.
    dataset
        The data, with the run's split.
    worst, best
        Pictures, the worst and the best image first.
    stride, receptive_field
        Of the network, (rows, columns); ``None`` where it could not be traced.
    context
        Layers that look at the whole image.
    """

    first: Contender
    others: tuple[Contender, ...]
    dataset: Dataset
    worst: tuple[Pictured, ...]
    best: tuple[Pictured, ...]
    stride: tuple[int, int] | None
    receptive_field: tuple[int, int] | None
    context: tuple[str, ...]

    def gain(self, other: Contender) -> tuple[float, float, float]:
        """Return how far another run's mean IU is above the first's, and the paired 95 % interval."""
        sums = np.stack([other.evaluation.sums, self.first.evaluation.sums], 1)
        drawn = score_regions(resample(sums, seed=self.first.evaluation.seed))["mean_iu"]
        low, high = interval(drawn[:, 0] - drawn[:, 1])
        gain = other.evaluation.scores.mean_iu - self.first.evaluation.scores.mean_iu
        return gain, float(low), float(high)


def gather(
    run: Run,
    dataset: Dataset,
    *,
    others: tuple[Run, ...] = (),
    pictures: int = 6,
    seed: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """Score a run and those it is compared with on the run's validation images, and draw its worst and best.

    Parameters
    ----------
    run
        The run.
    dataset
        What it was trained on, with any split.
    others
        Further runs, with the same classes.
    pictures
        How many of the worst images are drawn.
    seed
        Of the resamplings.
    progress
        Told what is being done.

    Raises
    ------
    ConfigError
        The data is not what the run was trained on.
    DataError
        The data has other classes.
    """
    progress = progress or Quiet()
    dataset = run.divided(dataset)
    contenders = [_score(each, dataset, seed, progress) for each in (run, *others)]
    first = contenders[0]
    worst, best = _extremes(first.evaluation, pictures)
    samples = {sample.name: sample for sample in dataset.split(first.evaluation.split)}
    predictor = Predictor(first.model, precision="f32")
    stride, field, context = _geometry(first.model)
    return Findings(
        first,
        tuple(contenders[1:]),
        dataset,
        tuple(_draw(predictor, dataset, samples, first.evaluation, place) for place in worst),
        tuple(_draw(predictor, dataset, samples, first.evaluation, place) for place in best),
        stride,
        field,
        context,
    )


def _score(run: Run, dataset: Dataset, seed: int, progress: Progress) -> Contender:
    progress.say(f"scoring {run.folder} on its validation images")
    predictor = Predictor(run.model, precision="f32")
    numbered = any(sample.instances is not None for sample in dataset.samples)
    evaluation = evaluate(
        predictor,
        dataset,
        split="val" if dataset.split("val") else None,
        boundaries=True,
        objects="regions" if numbered else None,
        calibration=True,
        threshold=True,
        seed=seed,
        progress=progress,
    )
    seen = len(set(evaluation.names) & set(run.splits.get("train", ())))
    return Contender(run, predictor.model, evaluation, _speed(predictor, dataset, evaluation), seen)


def _speed(predictor: Predictor, dataset: Dataset, evaluation: Evaluation) -> Speed:
    sizes = sorted(evaluation.names, key=lambda name: math.prod(dataset.sizes[name]))
    typical = sizes[len(sizes) // 2]
    image, _ = dataset.load(next(sample for sample in dataset.samples if sample.name == typical))
    seconds = []
    for _ in range(1 + _TURNS):
        started = time.perf_counter()
        predictor.predict(image)
        seconds.append(time.perf_counter() - started)
    return Speed(image.shape[:2], median(seconds[1:]), diagnose().processor.model)


def _extremes(evaluation: Evaluation, pictures: int) -> tuple[list[int], list[int]]:
    """Return the places of the worst and of the best images, none in both."""
    mean_iu = score_regions(evaluation.sums)["mean_iu"]
    ranked = [int(place) for place in np.argsort(mean_iu, kind="stable") if not np.isnan(mean_iu[place])]
    worst = ranked[:pictures]
    return worst, ranked[len(worst) :][::-1][:BEST]


def _draw(
    predictor: Predictor, dataset: Dataset, samples: dict[str, Sample], evaluation: Evaluation, place: int
) -> Pictured:
    name = evaluation.names[place]
    image, truth = dataset.load(samples[name])
    scores = score_regions(evaluation.sums[place])
    labels = predictor.predict(image).labels
    return Pictured(
        name,
        float(scores["mean_iu"]),
        tuple(scores["class_iu"].tolist()),
        draw_panels(image, truth, labels, dataset.classes),
    )


def _geometry(
    model: SegmentationModel,
) -> tuple[tuple[int, int] | None, tuple[int, int] | None, tuple[str, ...]]:
    try:
        geometry = trace_geometry(model, model.channels)
    except GeometryError:
        return None, None, ()
    return geometry.stride, geometry.receptive_field, tuple(map(str, geometry.global_context))
