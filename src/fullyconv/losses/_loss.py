"""What every loss is: one call, one rule for which pixels count, float32 inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fullyconv.errors import ConfigError, DataError, GeometryError


class Loss(nn.Module):
    """A loss of dense scores: ``loss(scores, labels, weights=None) -> scalar``.

    A pixel counts by the product of its weight in ``weights``, the weight of its class in ``class_weights``,
    and 0 or 1 for ignored or not. This is the same for every loss, so that a pixel of weight 2 counts like
    two pixels of weight 1, and one of weight 0 like one that is not there.

    Parameters
    ----------
    ignore_index
        The label of pixels that take no part.
    class_weights
        One weight from 0 up for each class; None weighs all alike.

    Raises
    ------
    ConfigError
        A class weight is negative or not finite.

    Notes
    -----
    Everything is computed in float32, also under autocast and from bfloat16 scores. Where no pixel counts,
    the loss and its gradient are zero.
    """

    class_weights: Tensor | None

    def __init__(
        self, *, ignore_index: int = 255, class_weights: Sequence[float] | Tensor | None = None
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        table = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        if table is not None and not (table.ndim == 1 and bool((table.isfinite() & (table >= 0)).all())):
            raise ConfigError(
                f"class weights {class_weights}", "one number from 0 up for each class", "correct it"
            )
        # Settings belong to the run's configuration, not to the weights it saves.
        self.register_buffer("class_weights", table, persistent=False)

    def forward(self, scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        scores
            N×K×H×W, floating: scores before softmax.
        labels
            N×H×W, int64: a class from 0 to K − 1, or the ignore index.
        weights
            N×H×W, floating, from 0 up: how much each pixel counts; None for all alike.

        Returns
        -------
        Tensor
            A scalar, float32.

        Raises
        ------
        GeometryError
            The shapes do not fit together.
        ConfigError
            There is not one class weight for each class.
        DataError
            A label is neither a class nor the ignore index. Looked at on the CPU only: on a GPU the look
            would make each step wait.
        """
        self._check_shapes(scores, labels, weights)
        counts = labels != self.ignore_index
        classes = labels.where(counts, 0)
        if labels.device.type == "cpu":
            _check_range(classes, scores.shape[1], self.ignore_index)
        mass = counts.float() if weights is None else weights.float() * counts
        if self.class_weights is not None:
            mass = mass * self.class_weights[classes]
        with torch.autocast(scores.device.type, enabled=False):
            return self.measure(scores.float(), classes, mass)

    def measure(self, scores: Tensor, labels: Tensor, mass: Tensor) -> Tensor:
        """Return the loss of float32 scores, given how much each pixel counts.

        ``labels`` are all from 0 to K − 1; where ``mass`` is 0 they mean nothing.
        """
        raise NotImplementedError  # each kind has its own

    def _check_shapes(self, scores: Tensor, labels: Tensor, weights: Tensor | None) -> None:
        shapes = [tuple(each.shape) for each in (labels, weights) if each is not None]
        if scores.ndim != 4 or any(shape != (len(scores), *scores.shape[2:]) for shape in shapes):
            raise GeometryError(
                f"scores {tuple(scores.shape)} with labels, and weights if any, of {shapes}",
                "scores N×K×H×W with labels and weights N×H×W",
                "crop the labels to the scores, or upsample the scores to the labels",
            )
        if self.class_weights is not None and len(self.class_weights) != scores.shape[1]:
            raise ConfigError(
                f"{len(self.class_weights)} class weights for {scores.shape[1]} classes",
                "one weight for each class",
                "compute them from the same class table as the network's",
            )


def _check_range(labels: Tensor, classes: int, ignore_index: int) -> None:
    lowest, highest = labels.aminmax()
    if lowest < 0 or highest >= classes:
        raise DataError(
            f"labels from {int(lowest)} to {int(highest)}",
            f"0 to {classes - 1}, or {ignore_index} for ignored pixels",
            "run `fullyconv check` on the data, or set the ignore index it uses",
        )


def mean(values: Tensor, mass: Tensor) -> Tensor:
    """Return the mean of values weighed by mass, 0 where there is no mass at all."""
    return (values * mass).sum() / mass.sum().clamp_min(torch.finfo(mass.dtype).tiny)
