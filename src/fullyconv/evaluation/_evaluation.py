"""What an evaluation found: scores, their intervals, and the rivals beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.evaluation._verdict import likely_cause
from fullyconv.labels import ClassTable
from fullyconv.metrics import (
    OBJECT_THRESHOLDS,
    RESAMPLINGS,
    Scores,
    answer_constantly,
    interval,
    resample,
    score_boundaries,
    score_calibration,
    score_objects,
    score_regions,
)

_OVERALL = ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu")
_RULES = (
    "ignored pixels count nowhere; a class without true pixels is n/a and in no mean; "
    "boundary F1 within 0.75 %, boundary IU within 2 % of the image's diagonal"
)
_SHOWN = {
    **{name: name.replace("_", " ").replace("iu", "IU") for name in _OVERALL},
    "boundary_f1": "boundary F1",
    "boundary_iu": "boundary IU",
    "average_precision": "object AP, IU 0.5 to 0.95",
    "object_f1": "object F1, IU above 0.5",
    "expected_calibration_error": "calibration error",
}


@dataclass(frozen=True, eq=False)
class Rival:
    """What a network has to beat.

    Parameters
    ----------
    name
        In a word.
    description
        What it answers, and how that was chosen.
    sums
        Its `region_sums` of each image, N×K×3.
    """

    name: str
    description: str
    sums: NDArray[np.int64]

    @property
    def scores(self) -> Scores:
        """Its scores over all images."""
        return Scores.of(self.sums.sum(0))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a network on images with masks; `evaluate` makes it.

    Parameters
    ----------
    classes
        Names the entries of the per-class scores.
    split
        Which part of the dataset the images are.
    names
        Of the images, N.
    counts
        The confusion matrix of all images, K×K, true classes in rows.
    sums
        The network's `region_sums` of each image, N×K×3.
    boundaries
        Its `boundary_sums`, N×K×5, where measured.
    objects
        Its `object_sums`, N×10×5, where measured.
    object_source
        Where objects come from: "regions", or "split" where touching ones were parted.
    calibration
        Its `calibration_sums`, N×15×3, where measured.
    threshold
        The best threshold on intensity, where it was looked for.
    seed
        Of the resamplings.
    """

    classes: ClassTable
    split: str
    names: tuple[str, ...]
    counts: NDArray[np.int64]
    sums: NDArray[np.int64]
    boundaries: NDArray[np.float64] | None = None
    objects: NDArray[np.float64] | None = None
    object_source: str | None = None
    calibration: NDArray[np.float64] | None = None
    threshold: Rival | None = None
    seed: int = 0

    @property
    def images(self) -> int:
        """How many images were scored."""
        return len(self.names)

    @cached_property
    def scores(self) -> Scores:
        """The network's scores over all images."""
        return Scores.of(self.sums.sum(0))

    @property
    def constant(self) -> Scores:
        """The scores of always answering the most frequent class of these very images."""
        return self.rivals[0].scores

    @cached_property
    def rivals(self) -> tuple[Rival, ...]:
        """The constant predictor, and the threshold where it was looked for."""
        most = self.classes.names[int(self.sums[..., 1].sum(0).argmax())]
        constant = Rival("constant", f"always answering {most!r}", answer_constantly(self.sums))
        return (constant, self.threshold) if self.threshold else (constant,)

    @cached_property
    def values(self) -> dict[str, NDArray[np.float64]]:
        """Every score by name: of all classes, and under "class_…" of each; ``nan`` where n/a."""
        scored = [score(sums.sum(0).astype(np.float64)) for sums, score in self._measured]
        return {name: value for scores in scored for name, value in scores.items()}

    @cached_property
    def intervals(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """The 95 % interval of every score by name, from images resampled; none for fewer than two images."""
        if self.images < 2:
            return {}
        return {
            name: interval(values)
            for sums, score in self._measured
            for name, values in score(resample(sums, seed=self.seed)).items()
        }

    @cached_property
    def gains(self) -> dict[str, tuple[float, float, float]]:
        """How far the mean IU is above each rival's, with the paired 95 % interval, by the rival's name."""
        gains = {}
        for rival in self.rivals:
            both = np.stack([self.sums, rival.sums], 1)
            low, high = (
                interval(_mean_iu_gain(resample(both, seed=self.seed)))
                if self.images > 1
                else (np.nan, np.nan)
            )
            gain = _mean_iu_gain(both.sum(0, keepdims=True))[0]
            gains[rival.name] = (float(gain), float(low), float(high))
        return gains

    @property
    def _measured(self) -> list[tuple[NDArray[Any], Any]]:
        every = [
            (self.sums, score_regions),
            (self.boundaries, score_boundaries),
            (self.objects, score_objects),
            (self.calibration, score_calibration),
        ]
        return [(sums, score) for sums, score in every if sums is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready: the scores at the top level, the rest beside them."""
        per_image = score_regions(self.sums)
        answer = {
            **{name: _plain(value) for name, value in self.values.items()},
            "intervals": {name: _plain(np.stack(bounds, -1)) for name, bounds in self.intervals.items()},
            "resampling": {
                "images": self.images,
                "resamplings": RESAMPLINGS,
                "seed": self.seed,
                "level": 0.95,
            },
            "rules": _RULES,
            "classes": list(self.classes.names),
            "class_pixels": self.sums[..., 1].sum(0).tolist(),
            "confusion": self.counts.tolist(),
            **{
                f"{rival.name}_predictor": {**rival.scores.to_dict(), "description": rival.description}
                for rival in self.rivals
            },
            "gains": {name: _plain(np.array(gain)) for name, gain in self.gains.items()},
            "verdict": verdict(self),
            "images": self.images,
            "split": self.split,
            "per_image": [
                {"name": name, "mean_iu": mean_iu, "class_iu": class_iu}
                for name, mean_iu, class_iu in zip(
                    self.names, _plain(per_image["mean_iu"]), _plain(per_image["class_iu"]), strict=True
                )
            ],
        }
        if self.objects is not None:
            answer |= {"object_source": self.object_source, "object_thresholds": list(OBJECT_THRESHOLDS)}
        return answer

    def __str__(self) -> str:
        lines = [f"Scores of {self.images} images ({self.split}); {_RULES}."]
        if self.intervals:
            lines[0] += f" In brackets: 95 % by resampling images ({RESAMPLINGS} times, seed {self.seed})."
        rows = [["", "this model", *(rival.name for rival in self.rivals)]]
        for name, shown in _SHOWN.items():
            if name in self.values:
                rivals = [_number(getattr(rival.scores, name)) for rival in self.rivals if name in _OVERALL]
                rows.append([shown, self._bracketed(name), *rivals])
        lines += ["", *_aligned(rows), "", *_aligned(self._class_rows())]
        lines += ["", *(f"{rival.name}: {rival.description}" for rival in self.rivals)]
        said = verdict(self)
        return "\n".join([*lines, *(["", said] if said else [])])

    def _class_rows(self) -> list[list[str]]:
        columns = {"class_iu": "IU", "class_precision": "precision", "class_accuracy": "recall",
                   "class_dice": "Dice", "class_boundary_f1": "boundary F1",
                   "class_boundary_iu": "boundary IU"}  # fmt: skip
        measured = [name for name in columns if name in self.values]
        true = self.sums[..., 1].sum(0)
        rows = [["class", *(columns[name] for name in measured), "pixels"]]
        for index, name in enumerate(self.classes.names):
            scores = [
                self._bracketed(score, index) if score == "class_iu" else _number(self.values[score][index])
                for score in measured
            ]
            rows.append([name, *scores, f"{true[index] / max(true.sum(), 1):.2%}"])
        return rows

    def _bracketed(self, name: str, place: int | tuple[()] = ()) -> str:
        shown = _number(float(self.values[name][place]))
        if name not in self.intervals or shown == "n/a":
            return shown
        low, high = self.intervals[name]
        return f"{shown} ({low[place]:.4f} to {high[place]:.4f})"


def verdict(evaluation: Evaluation) -> str | None:
    """Return what must be said aloud of a network that is no better than a rival; ``None`` where it is.

    Its mean IU decides. A network that is better, but not on 97.5 % of the resamplings of the images, is said
    to be not clearly better.
    """
    worst = min(evaluation.rivals, key=lambda rival: evaluation.gains[rival.name][0])
    gain, low, high = evaluation.gains[worst.name]
    ours, theirs = evaluation.scores.mean_iu, worst.scores.mean_iu
    if not gain > 0:
        cause = likely_cause(evaluation.counts, evaluation.classes.names)
        return (
            f"WARNING: the model does not beat {worst.description}: mean IU {ours:.4f} against {theirs:.4f}. "
            f"Likely cause: {cause}."
        )
    if low <= 0:
        return (
            f"WARNING: the model is not clearly better than {worst.description}: mean IU {ours:.4f} against "
            f"{theirs:.4f}, a gain of {gain:+.4f} ({low:+.4f} to {high:+.4f}). "
            "Score more images, or train longer."
        )
    return None


def _mean_iu_gain(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    mean_iu = score_regions(totals)["mean_iu"]
    return mean_iu[:, 0] - mean_iu[:, 1]


def _number(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.4f}"


def _plain(values: NDArray[np.float64]) -> Any:
    """Return nested lists of numbers, with ``None`` for what is not one."""
    if values.ndim:
        return [_plain(each) for each in values]
    return None if np.isnan(values) else float(values)


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return the rows as lines, the first column to the left, the others below their headings."""
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
