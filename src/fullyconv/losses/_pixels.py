"""Losses that are a mean over pixels: cross-entropy and focal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fullyconv.errors import ConfigError
from fullyconv.losses._loss import Loss, mean


class CrossEntropy(Loss):
    """The softmax loss at every pixel (Long et al. 2015, section 4).

    Parameters
    ----------
    label_smoothing
        The share of each pixel's target that is spread evenly over all classes, from 0 to 1 (Szegedy et al.
        2016, 1512.00567, section 7).
    hardest
        Take only this share of the pixels that count, those whose weighted loss is largest; 1 takes all
        (hard-pixel mining; Wu et al. 2016, 1605.06885).

    Raises
    ------
    ConfigError
        A share is out of range.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        hardest: float = 1.0,
        ignore_index: int = 255,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index, class_weights=class_weights)
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label smoothing {label_smoothing}", "a share from 0 to 1", "try 0.1")
        if not 0 < hardest <= 1:
            raise ConfigError(f"hardest {hardest}", "a share above 0, up to 1", "try 0.25")
        self.label_smoothing = label_smoothing
        self.hardest = hardest

    def measure(self, scores: Tensor, labels: Tensor, mass: Tensor) -> Tensor:
        """Return the mean over the pixels taken."""
        losses = F.cross_entropy(scores, labels, reduction="none", label_smoothing=self.label_smoothing)
        if self.hardest == 1:
            return mean(losses, mass)
        counting = int(torch.count_nonzero(mass))
        hard = torch.topk((losses * mass).detach().flatten(), math.ceil(self.hardest * counting)).indices
        return mean(losses.flatten()[hard], mass.flatten()[hard])


class Focal(Loss):
    """Cross-entropy times (1 − p)^γ, so that pixels already right weigh less (Lin et al. 2017, 1708.02002).

    Its equation 4 with the softmax's p of the true class, as a mean over pixels; the α of equation 5 is
    ``class_weights``.

    Parameters
    ----------
    gamma
        γ, from 0 (cross-entropy) up.

    Raises
    ------
    ConfigError
        γ below 0.
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        ignore_index: int = 255,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index, class_weights=class_weights)
        if not 0 <= gamma < math.inf:
            raise ConfigError(f"gamma {gamma}", "a number from 0 up", "try 2")
        self.gamma = gamma

    def measure(self, scores: Tensor, labels: Tensor, mass: Tensor) -> Tensor:
        """Return the mean over pixels."""
        losses = F.cross_entropy(scores, labels, reduction="none")
        # Kept off zero, where the slope of a power below 1 is infinite.
        missing = -torch.expm1(-losses)
        return mean(missing.clamp_min(1e-12) ** self.gamma * losses, mass)
