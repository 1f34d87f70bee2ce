"""Losses of dense scores, and the weights they take.

Every loss is called as ``loss(scores N×K×H×W, labels N×H×W, weights N×H×W or None)`` and returns a scalar;
the rules they share are in :class:`Loss`.
"""

from fullyconv.losses._balance import (
    CLASS_WEIGHTS,
    border_weights,
    inverse_frequency_weights,
    median_frequency_weights,
)
from fullyconv.losses._boundary import Boundary, signed_distances
from fullyconv.losses._loss import Loss
from fullyconv.losses._pixels import CrossEntropy, Focal
from fullyconv.losses._regions import Dice, Jaccard, LovaszSoftmax, Tversky
from fullyconv.losses._sum import LOSSES, WeightedSum, parse_loss

__all__ = [
    "CLASS_WEIGHTS",
    "LOSSES",
    "Boundary",
    "CrossEntropy",
    "Dice",
    "Focal",
    "Jaccard",
    "Loss",
    "LovaszSoftmax",
    "Tversky",
    "WeightedSum",
    "border_weights",
    "inverse_frequency_weights",
    "median_frequency_weights",
    "parse_loss",
    "signed_distances",
]
