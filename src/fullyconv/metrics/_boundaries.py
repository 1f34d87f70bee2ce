"""Scores of borders, which regions hide: a large object's area forgives every rounded corner.

Boundary F1 is that of Csurka, Larlus and Perronnin (BMVC 2013, section 3), boundary IU that of Cheng,
Girshick, Dollár, Berg and Kirillov (CVPR 2021, section 4).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fullyconv.labels import Labels
from fullyconv.metrics._ratios import mean_over_classes, ratio

TOLERANCE = 0.0075  # of the diagonal, Csurka et al.
WIDTH = 0.02  # of the diagonal, Cheng et al.


def boundary_sums(truth: Labels, prediction: Labels, classes: int, ignore_index: int) -> NDArray[np.float64]:
    """Compare the borders of each class in one image.

    A border pixel of a class is one with a neighbour (above, below, left, right) of another class; ignored
    pixels and the edge of the image make no border. F1 is the harmonic mean of the shares of predicted
    and of true border pixels that lie closer than 0.75 % of the image's diagonal to the other border, and 0
    where one of both is missing. The boundary region of boundary IU is what of a class lies within 2 %
    of the diagonal (at least one pixel, counted in steps to any of eight neighbours) of its outside, which
    begins at the edge of the image too.

    Parameters
    ----------
    truth, prediction
        Labels H×W.
    classes
        The number of classes K.
    ignore_index
        Pixels whose truth is this count nowhere.

    Returns
    -------
    ndarray
        K×5, float64: the boundary F1, and 1 where either border exists (else both 0); pixels in both boundary
        regions, and in either; true pixels. Those of several images add up to what `score_boundaries` takes.
    """
    ignored = truth == ignore_index
    answered = np.where(ignored, ignore_index, prediction)
    diagonal = math.hypot(*truth.shape)
    steps = max(1, round(WIDTH * diagonal))
    sums = np.zeros((classes, 5))
    for index in np.union1d(np.unique(truth), np.unique(answered)):
        if index == ignore_index:
            continue
        true, given = truth == index, answered == index
        sums[index, :2] = _boundary_f1(_border(true, ignored), _border(given, ignored), TOLERANCE * diagonal)
        box = _box(true | given, steps)
        true_region, given_region = (
            _boundary_region(mask[box], ignored[box], steps) for mask in (true, given)
        )
        sums[index, 2] = np.count_nonzero(true_region & given_region)
        sums[index, 3] = np.count_nonzero(true_region | given_region)
        sums[index, 4] = np.count_nonzero(true)
    return sums


def score_boundaries(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Score borders from the totals …×K×5 of `boundary_sums`.

    Returns
    -------
    dict
        "class_boundary_f1" …×K: the mean over the images in which the class has a border; "class_boundary_iu"
        …×K: of the boundary regions of all images together; "boundary_f1" and "boundary_iu" …: their
        means over classes. A class without true pixels has neither.
    """
    f1, images, both, either, true = np.moveaxis(sums, -1, 0)
    scores: dict[str, NDArray[np.float64]] = {}
    for name, part, whole in (("boundary_f1", f1, images), ("boundary_iu", both, either)):
        of_class = ratio(part, whole, true > 0)
        scores |= {f"class_{name}": of_class, name: mean_over_classes(of_class)}
    return scores


def _border(mask: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    border = np.zeros(mask.shape, bool)
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differs = (mask[before] != mask[after]) & ~ignored[before] & ~ignored[after]
        border[before] |= differs
        border[after] |= differs
    return border & mask


def _boundary_f1(true: NDArray[np.bool_], given: NDArray[np.bool_], tolerance: float) -> tuple[float, float]:
    """Return the F1 of two borders, and whether there is any."""
    points = np.argwhere(true), np.argwhere(given)
    if not any(map(len, points)):
        return 0.0, 0.0
    if not all(map(len, points)):
        return 0.0, 1.0
    recall, precision = _share_near(*points, tolerance), _share_near(*points[::-1], tolerance)
    return 2 * precision * recall / max(precision + recall, 1e-300), 1.0


def _share_near(points: NDArray[np.int64], others: NDArray[np.int64], tolerance: float) -> float:
    from scipy.spatial import KDTree

    tree = KDTree(others, compact_nodes=False, balanced_tree=False)
    distances, _ = tree.query(points, distance_upper_bound=tolerance)
    return float(np.mean(distances < tolerance))


def _box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """Return the smallest rectangle around a mask, larger by a margin where the image goes on."""
    ends = []
    for axis in (1, 0):
        (inside,) = np.nonzero(mask.any(axis))
        ends.append(slice(max(0, int(inside[0]) - margin), int(inside[-1]) + margin + 1))
    return ends[0], ends[1]


def _boundary_region(mask: NDArray[np.bool_], ignored: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    from scipy.ndimage import minimum_filter

    # What is ignored may belong to the class, so it makes no outside.
    inner = minimum_filter(mask | ignored, 2 * steps + 1, mode="constant", cval=0)
    return mask & ~inner
