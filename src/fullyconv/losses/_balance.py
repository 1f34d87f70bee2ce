"""Weights from the data: of classes by how many pixels they have, of pixels by how near two objects are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt, find_objects

from fullyconv.errors import ConfigError, GeometryError


def median_frequency_weights(counts: ArrayLike) -> NDArray[np.float64]:
    """Return the median of the classes' frequencies over each class's own (Eigen and Fergus 2015, 1411.4734).

    The frequency of a class is its pixels over all pixels of the images that show it.

    Parameters
    ----------
    counts
        Images×K: pixels of each class in each image. K alone is taken as one image.

    Returns
    -------
    NDArray
        K, float64. A class without pixels takes no part in the median and gets 1.

    Raises
    ------
    ConfigError
        Counts below 0, or no pixels at all.

    Examples
    --------
    >>> median_frequency_weights([[60, 30, 10]])
    array([0.5, 1. , 3. ])
    """
    table = _counts(counts)
    pixels = table.sum(axis=0)
    shown = ((table > 0) * table.sum(axis=1, keepdims=True)).sum(axis=0)
    frequency = np.divide(pixels, shown, out=np.zeros_like(pixels), where=shown > 0)
    median = np.median(frequency[frequency > 0])
    weights: NDArray[np.float64] = np.divide(
        median, frequency, out=np.ones_like(frequency), where=frequency > 0
    )
    return weights


def inverse_frequency_weights(counts: ArrayLike) -> NDArray[np.float64]:
    """Return weights that give every class the same total, and the pixels a mean weight of 1.

    Parameters
    ----------
    counts
        Images×K, or K: pixels of each class.

    Returns
    -------
    NDArray
        K, float64: all pixels / (classes with pixels · pixels of this class). A class without pixels gets 1.

    Raises
    ------
    ConfigError
        Counts below 0, or no pixels at all.

    Examples
    --------
    >>> inverse_frequency_weights([80, 20])
    array([0.625, 2.5  ])
    """
    pixels = _counts(counts).sum(axis=0)
    fair = pixels.sum() / np.count_nonzero(pixels)
    weights: NDArray[np.float64] = np.divide(fair, pixels, out=np.ones_like(pixels), where=pixels > 0)
    return weights


def border_weights(
    instances: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    w0: float = 10.0,
    sigma: float = 5.0,
    *,
    ignore_index: int = 255,
    class_weights: Sequence[float] | NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Return U-Net's weight map: much weight on the narrow gaps between objects that nearly touch.

    w(x) = w_c(x) + w0 · exp(−(d1(x) + d2(x))² / (2σ²)), with the distances d1, d2 to the nearest and second
    nearest object (Ronneberger et al. 2015, 1505.04597, equation 2). The second term is added between the
    objects only, where ``instances`` is 0.

    Parameters
    ----------
    instances
        H×W: 0 between objects, a positive number of its own for each object.
    labels
        H×W: classes, or the ignore index.
    w0
        The weight in a gap of width 0, from 0 up.
    sigma
        σ in pixels, above 0: how fast the weight falls with the width of the gap.
    ignore_index
        Pixels with this label get weight 0.
    class_weights
        w_c of each class. None balances the classes of these labels: :func:`inverse_frequency_weights`.

    Returns
    -------
    NDArray
        H×W, float32. Terms below w0 · 1e-9 are left out.

    Raises
    ------
    GeometryError
        The two maps are not H×W of one size.
    ConfigError
        w0 or σ out of range, a negative instance, or a class without weight.
    """
    if instances.ndim != 2 or instances.shape != labels.shape or not instances.size:
        raise GeometryError(
            f"instances {instances.shape} with labels {labels.shape}",
            "H×W of one size, 1×1 or more",
            "read both of one image",
        )
    if not (0 <= w0 < math.inf and 0 < sigma < math.inf) or instances.min() < 0:
        raise ConfigError(
            f"w0 {w0}, sigma {sigma}, smallest instance {instances.min()}",
            "w0 from 0 up, sigma above 0, instances from 0 up",
            "use the published w0=10, sigma=5, and number the objects from 1",
        )
    known = labels != ignore_index
    weights = np.zeros(labels.shape, np.float32)
    weights[known] = _class_weights(labels[known], class_weights)
    nearest, second = _two_nearest(instances, reach=math.ceil(sigma * math.sqrt(2 * math.log(1e9))))
    gap = known & (instances == 0)
    weights[gap] += w0 * np.exp(-((nearest + second)[gap] ** 2) / (2 * sigma**2))
    return weights


def _class_weights(
    labels: NDArray[np.integer[Any]], class_weights: Sequence[float] | NDArray[np.float64] | None
) -> NDArray[np.float64]:
    if not labels.size:
        return np.zeros(0)
    if class_weights is None:
        class_weights = inverse_frequency_weights(np.bincount(np.maximum(labels, 0)))
    table = np.asarray(class_weights, np.float64)
    if labels.min() < 0 or labels.max() >= len(table):
        raise ConfigError(
            f"labels from {labels.min()} to {labels.max()} with {len(table)} class weights",
            "one weight for each class",
            "compute the weights from the whole class table",
        )
    weights: NDArray[np.float64] = table[labels]
    return weights


def _two_nearest(
    instances: NDArray[np.integer[Any]], reach: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances to the nearest and second nearest object, infinite beyond ``reach``."""
    nearest = np.full(instances.shape, np.inf)
    second = np.full(instances.shape, np.inf)
    # Ranks instead of numbers, which may be few and huge; one off without a 0, but then there is no gap.
    ranks = np.unique(instances, return_inverse=True)[1].reshape(instances.shape)
    for rank, (rows, columns) in enumerate(find_objects(ranks), start=1):
        # Only pixels within reach of the object's box can be within reach of the object.
        around = (
            slice(max(rows.start - reach, 0), rows.stop + reach),
            slice(max(columns.start - reach, 0), columns.stop + reach),
        )
        distance: NDArray[np.float64] = distance_transform_edt(ranks[around] != rank)
        np.minimum(second[around], np.maximum(nearest[around], distance), out=second[around])
        np.minimum(nearest[around], distance, out=nearest[around])
    return nearest, second


def _counts(counts: ArrayLike) -> NDArray[np.float64]:
    table = np.atleast_2d(np.asarray(counts, np.float64))
    if table.ndim != 2 or not (table >= 0).all() or not table.any():
        raise ConfigError(
            f"pixel counts of shape {table.shape} with the sum {table.sum()}",
            "images×classes, or classes, from 0 up and not all 0",
            "count the labels of the training split",
        )
    return table


CLASS_WEIGHTS: dict[str, Callable[[ArrayLike], NDArray[np.float64]]] = {
    "median": median_frequency_weights,
    "inverse": inverse_frequency_weights,
}
