"""Scores from one confusion matrix over a whole dataset (Long et al., section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ConfigError
from fullyconv.labels import Labels
from fullyconv.metrics._ratios import mean_over_classes, ratio

_BLOCK = 1 << 20  # pixels counted at once, so that the intermediate codes stay in the cache


@dataclass(frozen=True)
class Scores:
    """The four scores of Long et al., section 5, and those of each class; all 0 to 1.

    Parameters
    ----------
    pixel_accuracy
        Share of pixels labelled rightly: Σ n_ii / Σ t_i.
    mean_accuracy
        Mean over present classes of n_ii / t_i.
    mean_iu
        Mean over present classes of n_ii / (t_i + Σ_j n_ji − n_ii).
    frequency_weighted_iu
        The same, weighted by t_i.
    class_iu, class_accuracy, class_precision, class_dice
        One value per class, accuracy being recall and Dice F1; ``nan`` for a class without true pixels. A
        class that was never given has precision 0.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iu: float
    frequency_weighted_iu: float
    class_iu: tuple[float, ...]
    class_accuracy: tuple[float, ...]
    class_precision: tuple[float, ...]
    class_dice: tuple[float, ...]

    @classmethod
    def of(cls, sums: NDArray[Any]) -> Scores:
        """Return the scores of the sums K×3 of `region_sums`."""
        return cls(**{name: _plain(value) for name, value in score_regions(sums).items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as JSON-ready values; ``None`` stands for n/a."""
        return {
            name: [_number(each) for each in value] if isinstance(value, tuple) else _number(value)
            for name, value in vars(self).items()
        }


class ConfusionMatrix:
    """Counts pixels by true class (row) and predicted class (column), image after image.

    Parameters
    ----------
    classes
        The number of classes K.

    Examples
    --------
    >>> matrix = ConfusionMatrix(2)
    >>> matrix.update(np.array([[0, 1, 255]]), np.array([[0, 0, 1]]), ignore_index=255)
    >>> matrix.counts.tolist()
    [[1, 0], [1, 0]]
    >>> matrix.scores().pixel_accuracy
    0.5
    """

    def __init__(self, classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)

    def update(self, truth: Labels, prediction: Labels, ignore_index: int) -> None:
        """Count one image.

        Parameters
        ----------
        truth, prediction
            Labels H×W of any integer type.
        ignore_index
            Pixels whose truth is this count nowhere.

        Raises
        ------
        ConfigError
            The shapes differ, or a label that counts is not a class.
        """
        if truth.shape != prediction.shape:
            raise ConfigError(
                f"a truth of {truth.shape} and a prediction of {prediction.shape}",
                "equal shapes",
                "predict at the image's own size",
            )
        flat_truth, flat_prediction = truth.ravel(), prediction.ravel()
        for start in range(0, flat_truth.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            self.counts += self._count(flat_truth[block], flat_prediction[block], ignore_index)

    def _count(self, truth: Labels, prediction: Labels, ignore_index: int) -> NDArray[np.int64]:
        K = len(self.counts)
        low = min(int(truth.min(initial=0)), int(prediction.min(initial=0)))
        high = max(int(truth.max(initial=0)), int(prediction.max(initial=0)))
        if low < 0:
            raise _not_a_class(low, K)
        if max(high, ignore_index) >= 256:
            counted = truth != ignore_index
            truth, prediction = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
            high = max(int(truth.max(initial=0)), int(prediction.max(initial=0)))
            if high >= K:
                raise _not_a_class(high, K)
            return np.bincount(truth * K + prediction, minlength=K * K).reshape(K, K)
        # Most masks have 8-bit labels: one table wide enough for all of them counts in a single pass, and
        # what is ignored or no class is then found in the few sums instead of in the many pixels.
        width = max(K, high + 1, ignore_index + 1)
        codes = truth.astype(np.int32) * np.int32(width) + prediction
        table = np.bincount(codes, minlength=width * width).reshape(width, width)
        table[ignore_index] = 0
        if table[K:].any() or table[:, K:].any():
            raise _not_a_class(np.argwhere(table).max(), K)
        return table[:K, :K]

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Return the counts of both, as if one matrix had seen every image."""
        total = ConfusionMatrix(len(self.counts))
        total.counts = self.counts + other.counts
        return total

    def scores(self) -> Scores:
        """Return the scores of everything counted so far; all ``nan`` where nothing was."""
        return Scores.of(region_sums(self.counts))

    def constant_predictor(self) -> Scores:
        """Return the scores of always answering the most frequent true class: what skill starts from."""
        return Scores.of(answer_constantly(region_sums(self.counts)))


def region_sums(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what scores of regions are made of: pixels of each class rightly given, true, and given.

    Parameters
    ----------
    counts
        Confusion matrices …×K×K, true classes in rows.

    Returns
    -------
    ndarray
        …×K×3, int64; those of several images add up to those of all.
    """
    return np.stack([np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)], -1)


def answer_constantly(sums: NDArray[Any]) -> NDArray[Any]:
    """Return the sums …×K×3 of always answering the class that is most frequent in the total of ``sums``."""
    true = sums[..., 1]
    most = int(true.reshape(-1, true.shape[-1]).sum(0).argmax())
    constant = np.zeros_like(sums)
    constant[..., 1] = true
    constant[..., most, 0] = true[..., most]
    constant[..., most, 2] = true.sum(-1)
    return constant


def score_regions(sums: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Score regions from the sums …×K×3 of `region_sums`, for many sums at once.

    Returns
    -------
    dict
        The fields of `Scores` by name: those of all classes of shape …, those of each class …×K; all
        ``nan`` where nothing was counted.
    """
    right, true, given = np.moveaxis(sums.astype(np.float64), -1, 0)
    accuracy = ratio(right, true)
    iu = ratio(right, true + given - right, true > 0)
    return {
        "pixel_accuracy": ratio(right.sum(-1), true.sum(-1)),
        "mean_accuracy": mean_over_classes(accuracy),
        "mean_iu": mean_over_classes(iu),
        "frequency_weighted_iu": ratio(np.where(true > 0, true * iu, 0).sum(-1), true.sum(-1)),
        "class_iu": iu,
        "class_accuracy": accuracy,
        "class_precision": ratio(right, np.maximum(given, 1), true > 0),
        "class_dice": ratio(2 * right, true + given, true > 0),
    }


def _plain(value: NDArray[np.float64]) -> Any:
    return tuple(value.tolist()) if value.ndim else float(value)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _not_a_class(value: Any, classes: int) -> ConfigError:
    return ConfigError(
        f"label {int(value)}",
        f"0 to {classes - 1} or the ignore index",
        "check the class table against the labels",
    )
