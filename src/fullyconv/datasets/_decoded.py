"""Decoded samples, kept once for all processes that draw crops: in memory, or on a disk."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from fullyconv.datasets._dataset import Dataset
from fullyconv.datasets._samples import Sample
from fullyconv.labels import Labels

Loaded = tuple[NDArray[Any], Labels, NDArray[np.float32] | None]
Form = tuple[tuple[int, ...], np.dtype[Any]]

_ALIGNED = 64  # bytes, so that every array begins on a cache line


class DecodedSamples:
    """Keeps what was decoded, and gives it back as views that are read where they lie.

    Forked processes share one store, spawned ones have a part of the size each. On a disk it is a file
    without a name, whose space is reserved at once: it goes with the last process, however that ends, and a
    crop reads no more of it than it shows.

    Parameters
    ----------
    dataset, samples
        What is kept; the first samples that ``limit`` has room for.
    weighed
        Whether there are weights of the pixels too.
    limit
        Bytes.
    folder
        On the disk to keep it on; in memory when ``None``. Where the disk is too full for it, nothing is
        kept.
    """

    def __init__(
        self,
        dataset: Dataset,
        samples: Sequence[Sample],
        *,
        weighed: bool,
        limit: int,
        folder: Path | None = None,
    ) -> None:
        self._forms = [_forms(dataset, sample, weighed) for sample in samples]
        self._limit, self._folder = limit, folder
        self._open(limit)

    def get(self, position: int) -> Loaded | None:
        """Return sample ``position`` if it is there."""
        self._reopen()
        if position >= len(self._starts) or not self._there[position]:
            return None
        image, labels, *weights = self._views(position)
        return image, labels, weights[0] if weights else None

    def put(self, position: int, loaded: Loaded) -> None:
        """Keep sample ``position``, if there is room for it and it is what the dataset said."""
        self._reopen()
        arrays = [each for each in loaded if each is not None]
        forms = self._forms[position]
        if position < len(self._starts) and [(each.shape, each.dtype) for each in arrays] == forms:
            for view, array in zip(self._views(position), arrays, strict=True):
                view[:] = array
            self._there[position] = 1

    def __getstate__(self) -> dict[str, Any]:
        # Maps do not travel to a spawned process, which opens its own when it first asks.
        return self.__dict__ | {"_bytes": None, "_there": None}

    def _reopen(self) -> None:
        if self._bytes is None:
            worker = get_worker_info()
            self._open(self._limit // (worker.num_workers if worker else 1))

    def _open(self, limit: int) -> None:
        ends = np.cumsum([0, *map(_size, self._forms)])
        self._starts = ends[:-1][ends[1:] <= limit].tolist()
        size = int(ends[len(self._starts)])
        self._bytes = self._mapped(size)
        if not len(self._bytes):
            self._starts = []
        self._there = np.frombuffer(mmap.mmap(-1, max(1, len(self._starts))), np.uint8)

    def _mapped(self, size: int) -> NDArray[np.uint8]:
        """Return shared memory, or a map of a file, of so many bytes; none where the disk has not as many."""
        if not size:
            return np.empty(0, np.uint8)
        if self._folder is None:
            return np.frombuffer(mmap.mmap(-1, size), np.uint8)
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                os.posix_fallocate(file.fileno(), 0, size)
                return np.frombuffer(mmap.mmap(file.fileno(), size), np.uint8)
        except (OSError, AttributeError):  # not every system reserves space
            return np.empty(0, np.uint8)

    def _views(self, position: int) -> list[NDArray[Any]]:
        views, start = [], self._starts[position]
        for shape, dtype in self._forms[position]:
            stop = start + math.prod(shape) * dtype.itemsize
            views.append(self._bytes[start:stop].view(dtype).reshape(shape))
            start = _aligned(stop)
        return views


def decoded_bytes(dataset: Dataset, samples: Sequence[Sample], *, weighed: bool = False) -> int:
    """Return how much memory or disk samples take, decoded.

    Parameters
    ----------
    dataset, samples
        What is decoded.
    weighed
        Whether each pixel also has a weight.
    """
    return sum(_size(_forms(dataset, sample, weighed)) for sample in samples)


def _forms(dataset: Dataset, sample: Sample, weighed: bool) -> list[Form]:
    """Return shape and type of what a sample is decoded to: image, labels and weights."""
    size = dataset.sizes[sample.name]
    image = (*size, dataset.channels), np.dtype(dataset.dtype)
    return [image, (size, dataset.classes.dtype), *([(size, np.dtype(np.float32))] if weighed else [])]


def _size(forms: Sequence[Form]) -> int:
    return sum(_aligned(math.prod(shape) * dtype.itemsize) for shape, dtype in forms)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
