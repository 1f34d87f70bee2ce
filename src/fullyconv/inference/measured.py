"""Labels of what was measured: pixels that an image marks as "no data" get no class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.images import ImageSource
from fullyconv.labels import ClassTable
from fullyconv.outlines import LabelRows

_PART = 1 << 13  # columns looked at together


def measured(labels: LabelRows, source: ImageSource, classes: ClassTable) -> LabelRows:
    """Return the labels of an image with the ignore index where no band was measured.

    Parameters
    ----------
    labels
        H×W, in memory or on disk; left as they are.
    source
        The image. Where its file names no "no data" value, the labels are returned themselves.
    classes
        Of the labels.

    Returns
    -------
    LabelRows
        Reads labels and image when parts of it are asked for.
    """
    place = source.georeference
    if place is None or place.nodata is None:
        return labels
    return _Measured(labels, source, place.nodata, classes)


class _Measured:
    def __init__(self, labels: LabelRows, source: ImageSource, nodata: float, classes: ClassTable) -> None:
        self._labels, self._source = labels, source
        self._nodata, self._ignore_index = nodata, classes.ignore_index
        self.shape, self.dtype = labels.shape, classes.dtype

    def __getitem__(self, part: Any) -> NDArray[Any]:
        rows, columns = part if isinstance(part, tuple) else (part, slice(None))
        whole: Any = self._labels  # which gives parts of rows and columns, as arrays do
        labels = np.array(whole[rows, columns])
        left, right, _ = columns.indices(self.shape[1])
        for start in range(left, right, _PART):
            pixels = self._source.read(rows, slice(start, min(start + _PART, right)))
            empty = np.isnan(pixels) if np.isnan(self._nodata) else pixels == self._nodata
            labels[:, start - left : start - left + _PART][empty.all(2)] = self._ignore_index
        return labels
