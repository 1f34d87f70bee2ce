"""The boundary loss, and the signed distances it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from fullyconv.losses._loss import Loss, mean


class Boundary(Loss):
    """The mean over pixels of probability times signed distance (Kervadec et al. 2019, 1812.07032).

    Also a mean over the classes, all of them. The distance to the boundary of the class's region is in
    pixels, negative inside, so the loss falls below 0. Meant beside a loss of regions and with a small
    factor, as in "dice + 0.01*boundary". Distances are computed on the CPU, with ignored pixels outside
    every region.
    """

    def measure(self, scores: Tensor, labels: Tensor, mass: Tensor) -> Tensor:
        """Return the mean over pixels."""
        shown = labels.where(mass > 0, scores.shape[1]).cpu().numpy()
        distances = np.stack([signed_distances(each, scores.shape[1]) for each in shown])
        field = torch.from_numpy(distances).to(scores.device)
        return mean((scores.softmax(dim=1) * field).mean(dim=1), mass)


def signed_distances(labels: NDArray[np.integer[Any]], classes: int) -> NDArray[np.float32]:
    """Return how far each pixel lies from the region of each class.

    Parameters
    ----------
    labels
        H×W; what is not from 0 to ``classes`` − 1 lies outside every region.
    classes
        K, the number of classes.

    Returns
    -------
    NDArray
        K×H×W, float32, in pixels. Outside: the distance to the nearest pixel of the region, 1 or more.
        Inside: one minus the distance to the nearest pixel outside, so 0 along the boundary and negative
        within. Zero everywhere for a class that is absent, or has all pixels. As in the authors' code.
    """
    distances = np.zeros((classes, *labels.shape), np.float32)
    for index in range(classes):
        region = labels == index
        if region.any() and not region.all():
            distances[index] = distance_transform_edt(~region)
            inside: NDArray[np.float64] = distance_transform_edt(region)
            distances[index] -= np.maximum(inside - 1, 0)
    return distances
