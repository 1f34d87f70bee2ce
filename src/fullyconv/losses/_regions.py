"""Losses of how regions overlap, class by class over the whole batch: Tversky, Dice, Jaccard, Lovász-softmax.

Each is a mean over the classes that the labels of the batch show. A class that is not there has no overlap;
what is falsely given to it is missing from the classes that are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fullyconv.errors import ConfigError
from fullyconv.losses._loss import Loss, mean


class RegionLoss(Loss):
    """A loss of overlaps.

    Parameters
    ----------
    background
        False leaves class 0 out of the mean. With two classes this is what makes a false and a missed pixel
        differ: seen from the background, one is the other. An image of background alone then teaches nothing.
    """

    def __init__(
        self,
        *,
        background: bool = True,
        ignore_index: int = 255,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index, class_weights=class_weights)
        self.first = 0 if background else 1


class Tversky(RegionLoss):
    """One minus TP / (TP + α·FP + β·FN) of the soft counts (Salehi et al. 2017, 1706.05721).

    TP of a class is the sum of its probability over its pixels, FP the sum over the others, FN what is
    missing on its own.

    Parameters
    ----------
    alpha
        What a false pixel costs, from 0 up.
    beta
        What a missed pixel costs, above 0. ½, ½ is Dice; 1, 1 is Jaccard; β above α favours recall.

    Raises
    ------
    ConfigError
        α below 0, or β not above 0.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        background: bool = True,
        ignore_index: int = 255,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(background=background, ignore_index=ignore_index, class_weights=class_weights)
        if not (0 <= alpha < math.inf and 0 < beta < math.inf):
            raise ConfigError(
                f"alpha {alpha} and beta {beta}", "alpha from 0 up, beta above 0", "try 0.3 and 0.7"
            )
        self.alpha = alpha
        self.beta = beta

    def measure(self, scores: Tensor, labels: Tensor, mass: Tensor) -> Tensor:
        """Return the mean over the classes present."""
        given = scores.softmax(dim=1) * mass[:, None]
        truth = labels[:, None] == torch.arange(scores.shape[1], device=labels.device)[:, None, None]
        both = (given * truth).sum(dim=(0, 2, 3))
        sizes = (mass[:, None] * truth).sum(dim=(0, 2, 3))
        wrong = given.sum(dim=(0, 2, 3)) - both
        missed = sizes - both
        whole = both + self.alpha * wrong + self.beta * missed
        losses = 1 - both / whole.clamp_min(torch.finfo(whole.dtype).tiny)
        return mean(losses[self.first :], (sizes > 0)[self.first :].float())


class Dice(Tversky):
    """One minus 2·TP / (2·TP + FP + FN): soft Dice (Milletari et al. 2016, 1606.04797, without squares)."""

    def __init__(
        self,
        *,
        background: bool = True,
        ignore_index: int = 255,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(
            alpha=0.5, beta=0.5, background=background, ignore_index=ignore_index, class_weights=class_weights
        )


class Jaccard(Tversky):
    """One minus TP / (TP + FP + FN), soft intersection over union (Rahman and Wang 2016)."""

    def __init__(
        self,
        *,
        background: bool = True,
        ignore_index: int = 255,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(
            alpha=1.0, beta=1.0, background=background, ignore_index=ignore_index, class_weights=class_weights
        )


class LovaszSoftmax(RegionLoss):
    """The Lovász extension of the Jaccard loss (Berman et al. 2018, 1705.08790, algorithm 1).

    Where all probabilities are 0 or 1 it is one minus the intersection over union, exactly.
    """

    def measure(self, scores: Tensor, labels: Tensor, mass: Tensor) -> Tensor:
        """Return the mean over the classes present."""
        pixels, mass = labels.flatten(), mass.flatten()
        shown = torch.bincount(pixels, mass, minlength=scores.shape[1]).nonzero().flatten()
        shown = shown[shown >= self.first]
        truth = pixels == shown[:, None]
        probabilities = scores.softmax(dim=1).index_select(1, shown).transpose(0, 1).flatten(1)
        errors = torch.where(truth, 1 - probabilities, probabilities)
        order = _descending(errors)
        truth = truth.gather(1, order)
        weights = mass.expand(len(shown), -1).gather(1, order).double()
        inside = (weights * truth).cumsum(dim=1)
        outside = (weights * ~truth).cumsum(dim=1)
        sizes = inside[:, -1:]
        jaccard = 1 - (sizes - inside) / (sizes + outside)
        # What each pixel in turn adds to the Jaccard loss; in float64, since neighbours differ by little.
        steps = jaccard.diff(dim=1, prepend=jaccard.new_zeros(len(shown), 1))
        return (errors.gather(1, order) * steps.float()).sum() / max(len(shown), 1)


def _descending(values: Tensor) -> Tensor:
    """Return the order of each row from the largest down."""
    if values.device.type == "cpu":  # where numpy's vectorised sort is several times faster than torch's
        return torch.from_numpy(np.argsort(-values.detach().numpy(), axis=1))
    return values.detach().argsort(dim=1, descending=True)
