"""Scores of objects, which regions hide: two touching cells merged into one cost a few pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.labels import Labels
from fullyconv.metrics._ratios import ratio

OBJECT_THRESHOLDS = tuple(number / 20 for number in range(10, 20))  # 0.5 to 0.95
_NECK = 0.75  # how narrow a neck must be to part two objects, as a share of the smaller one's radius


def find_objects(labels: Labels, ignore_index: int, *, split: bool = False) -> NDArray[np.int64]:
    """Number the objects of a mask: regions of one class whose pixels touch by their sides.

    Parameters
    ----------
    labels
        H×W; class 0 is what lies between objects.
    ignore_index
        The label that is no object either.
    split
        Part what touches. The centres of a region are the highest places of its distance to the outside;
        two are objects of their own where the region between them narrows to less than ¾ of the smaller
        radius, and are then parted by the radical axis of their circles.

    Returns
    -------
    ndarray
        H×W, int64; 0 between objects, numbers from 1 on.
    """
    from scipy import ndimage

    numbers = np.zeros(labels.shape, np.int64)
    last = 0
    for index in np.setdiff1d(labels, [0, ignore_index]):
        regions, count = ndimage.label(labels == index)
        if split:
            regions, count = _parted(regions, count)
        numbers = np.where(regions, regions + last, numbers)
        last += count
    return numbers


def object_sums(
    truth: NDArray[np.integer[Any]],
    prediction: NDArray[np.integer[Any]],
    counted: NDArray[np.bool_],
    agreed: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Match the objects of one image, as in the 2018 Data Science Bowl.

    A predicted object finds a true one where their intersection over union is above a threshold; from 0.5
    on, that is at most one.

    Parameters
    ----------
    truth, prediction
        Objects' numbers H×W, 0 between them.
    counted
        H×W, False where pixels are ignored: they belong to no object.
    agreed
        H×W, True where the predicted class is the true one: only there do objects intersect.

    Returns
    -------
    ndarray
        10×5, float64, for the thresholds 0.5, 0.55, …, 0.95: objects found, predicted in vain and missed; the
        share of those found, and 1 where there are any objects (else both 0).
    """
    true, given = np.where(counted, truth, 0), np.where(counted, prediction, 0)
    true_numbers, true_places = np.unique(true, return_inverse=True)
    given_numbers, given_places = np.unique(given, return_inverse=True)
    shape = len(true_numbers), len(given_numbers)
    pairs = true_places.ravel() * shape[1] + given_places.ravel()
    codes, common = np.unique(pairs[agreed.ravel()], return_counts=True)
    rows, columns = np.divmod(codes, shape[1])
    union = np.bincount(true_places.ravel())[rows] + np.bincount(given_places.ravel())[columns] - common
    objects = (true_numbers[rows] != 0) & (given_numbers[columns] != 0)
    # In whole numbers, since an IU of exactly 0.55 must not be above 0.55.
    found = np.array([(20 * common > k * union)[objects].sum() for k in range(10, 20)], np.float64)
    missed = np.count_nonzero(true_numbers) - found
    in_vain = np.count_nonzero(given_numbers) - found
    every = found + missed + in_vain
    return np.stack([found, in_vain, missed, found / np.maximum(every, 1), every > 0], -1)


def score_objects(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Score objects from the totals …×10×5 of `object_sums`.

    Returns
    -------
    dict
        "average_precision": found / (found + in vain + missed), mean over images and thresholds;
        "precision_by_threshold" …×10: the same at each; "object_f1", "object_precision", "object_recall": of
        all objects at 0.5. ``nan`` where there are no objects.
    """
    found, in_vain, missed, share, images = np.moveaxis(sums, -1, 0)
    by_threshold = ratio(share, images)
    found, in_vain, missed = found[..., 0], in_vain[..., 0], missed[..., 0]
    return {
        "average_precision": by_threshold.mean(-1),
        "precision_by_threshold": by_threshold,
        "object_f1": ratio(2 * found, 2 * found + in_vain + missed),
        "object_precision": ratio(found, found + in_vain),
        "object_recall": ratio(found, found + missed),
    }


def _parted(regions: NDArray[Any], count: int) -> tuple[NDArray[np.int64], int]:
    """Return the regions with those of several centres parted."""
    from scipy import ndimage
    from scipy.spatial import KDTree

    # The edge of the image is an outside, as for an object that it cuts.
    depth = ndimage.distance_transform_edt(np.pad(regions, 1))[1:-1, 1:-1]
    peaks = (depth == ndimage.maximum_filter(depth, 3)) & (regions > 0)
    parted = regions.astype(np.int64)
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        inside = regions[box] == number
        centres, radii = _centres(np.where(inside, depth[box], 0), np.argwhere(peaks[box] & inside))
        if len(centres) < 2:
            continue
        # |x − c|² − r² is least where, in one dimension more, a point of that height is nearest.
        heights = np.sqrt(radii.max() ** 2 - radii**2)
        pixels = np.argwhere(inside)
        _, nearest = KDTree(np.column_stack([centres, heights])).query(np.pad(pixels, ((0, 0), (0, 1))))
        parted[box][inside] = np.where(nearest, count + nearest, number)
        count += len(centres) - 1
    return parted, count


def _centres(
    depth: NDArray[np.float64], peaks: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the peaks n×2 that a neck parts from every deeper one, and their depths."""
    from scipy import ndimage

    depths = depth[tuple(peaks.T)]
    kept: list[int] = []
    for radius in np.unique(depths)[::-1]:
        connected, _ = ndimage.label(depth >= _NECK * radius, np.ones((3, 3)))
        places = connected[tuple(peaks.T)]
        taken = set(places[kept].tolist())
        for peak in np.nonzero(depths == radius)[0]:
            if places[peak] not in taken:
                taken.add(places[peak])
                kept.append(int(peak))
    return peaks[kept], depths[kept]
