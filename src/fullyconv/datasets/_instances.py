"""Which pixels are of one object: read where the folder says, else found as connected regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fullyconv.datasets._samples import Sample
from fullyconv.datasets._sources import load_mask, name_below
from fullyconv.errors import DataError
from fullyconv.labels import Labels


def find_instances(sample: Sample, labels: Labels, *, ignore_index: int) -> NDArray[np.integer[Any]]:
    """Return a number for each object of a sample, H×W integers, and 0 between them.

    They come from the sample's file of instances. Where it has none, an object is a region of one class whose
    pixels touch by their sides; class 0 is what lies between.

    Parameters
    ----------
    sample
        Whose file is read.
    labels
        H×W, of the sample.
    ignore_index
        The label that is no object either.

    Raises
    ------
    ImageError
        The file cannot be read.
    DataError
        The file does not hold one number for each pixel of the labels.
    """
    if sample.instances is None:
        return _regions(labels, ignore_index)
    numbers = load_mask(sample.instances).values
    if numbers.shape != labels.shape:
        raise DataError(
            f"{name_below(Path(), sample.instances)} of shape {numbers.shape} with labels of {labels.shape}",
            "one number for each pixel of the mask",
            "save the objects' numbers as gray PNG of 8 or 16 bits, or remove the folder of instances",
        )
    return numbers


def _regions(labels: Labels, ignore_index: int) -> NDArray[np.int64]:
    numbers = np.zeros(labels.shape, np.int64)
    for index in np.setdiff1d(labels, [0, ignore_index]):
        regions, _ = ndimage.label(labels == index)
        numbers += np.where(regions, regions + numbers.max(), 0)
    return numbers
