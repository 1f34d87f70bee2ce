"""Which crop of which image is trained on when: a pure function of the seed and the crop's number."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import get_worker_info

from fullyconv.datasets._augment_config import AugmentConfig
from fullyconv.datasets._augmentation import draw_crop
from fullyconv.datasets._dataset import Dataset
from fullyconv.datasets._decoded import DecodedSamples, Loaded
from fullyconv.datasets._samples import Sample
from fullyconv.errors import ConfigError, DataError, ImageError
from fullyconv.labels import Labels

# Multiples of the golden ratio's fraction fall evenly between each other, however many epochs there are.
_GOLDEN = 0.6180339887498949

MAX_WORKERS = 1024
TOLERATED = 0.01  # the share of samples that may be skipped, and always one


Weigh = Callable[[Sample, Labels], NDArray[np.float32]]


class CropSampler(TorchDataset[tuple[torch.Tensor, ...]]):
    """Augmented crops of a dataset, for a ``DataLoader`` (with any number of workers, forked or spawned).

    Crops are numbered through all epochs, so that a stream of them begins anywhere: number k is crop
    ``k % length`` of epoch ``k // length``.

    Half of an image's share of the crops is the same for all, half grows with the square root of its area.
    Within an epoch the shares are kept to one crop (systematic sampling), so no image waits for luck.

    Parameters
    ----------
    dataset, samples
        Where the crops come from.
    config
        How they are varied.
    seed
        Another seed draws other crops.
    length
        Crops per epoch; by default as many as cover the pixels of all samples once, at least one per sample.
    cache_bytes
        Decoded images are kept up to this size, all worker processes together.
    cache_folder
        Keep them on the disk of this folder, in a file without a name; in memory when ``None``.
    weigh
        How much each pixel counts, H×W float32, given a sample and its labels; kept and moved like these.
    balance
        The share of crops that are aimed at a class: each class equally often, at a pixel of one of its
        samples. Where objects are small or rare, crops drawn evenly seldom show them.
    on_error
        What to do with a sample that cannot be read any more: "stop", or "skip" it, which draws the next
        one in its place, up to `TOLERATED` of all samples.

    Raises
    ------
    DataError
        No samples; while reading, a file that cannot be read any more.
    ConfigError
        A length below 1.
    """

    def __init__(
        self,
        dataset: Dataset,
        samples: Sequence[Sample],
        config: AugmentConfig,
        *,
        seed: int,
        length: int | None = None,
        cache_bytes: int = 2**30,
        cache_folder: Path | None = None,
        weigh: Weigh | None = None,
        balance: float = 0.0,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        if not samples:
            raise DataError(
                f"{dataset.root}: no samples to train on", "at least one", "check the splits of the folder"
            )
        areas = np.array([np.prod(dataset.sizes[sample.name]) for sample in samples], np.float64)
        if length is None:
            length = max(len(samples), round(areas.sum() / np.prod(config.crop)))
        if length < 1:
            raise ConfigError(f"{length} crops per epoch", "at least one", "leave the length out")
        self.dataset = dataset
        self.samples = tuple(samples)
        self.config = config
        self.length = length
        self._seed = seed
        self._shares = 0.5 / len(samples) + 0.5 * np.sqrt(areas) / np.sqrt(areas).sum()
        self._schedule: tuple[int, NDArray[np.int64]] | None = None
        self._weigh = weigh
        self._on_error = on_error
        self._balance = balance
        holds = np.array([dataset.pixels[sample.name] for sample in samples], np.int64) > 0
        self._holders = [np.flatnonzero(column) for column in holds.T]
        self._decoded = DecodedSamples(
            dataset, self.samples, weighed=weigh is not None, limit=cache_bytes, folder=cache_folder
        )
        # Shared memory, through which workers tell what they read and what they could not.
        self._reading = _shared(np.full((MAX_WORKERS, 2), -1))
        self._skipped = _shared(np.zeros(len(samples)))

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the samples that could not be read and were skipped, in any worker."""
        return tuple(self.samples[position].name for position in self._skipped.nonzero()[:, 0].tolist())

    @property
    def reading(self) -> dict[int, str]:
        """The image that each worker is at, by the worker's process id."""
        places = self._reading.tolist()
        return {process: str(self.samples[position].image) for process, position in places if position >= 0}

    def schedule(self, epoch: int) -> NDArray[np.int64]:
        """Return the position in ``samples`` of each crop of an epoch, shape (length,)."""
        if self._schedule is None or self._schedule[0] != epoch:
            rng = _generator(self._seed, epoch)
            start = _generator(self._seed).random()
            marks = (np.arange(self.length) + (start + epoch * _GOLDEN) % 1) / self.length
            chosen = np.searchsorted(np.cumsum(self._shares), marks, side="right")
            order = rng.permutation(np.minimum(chosen, len(self.samples) - 1))
            self._schedule = (epoch, order.astype(np.int64))
        return self._schedule[1]

    def sample_of(self, number: int) -> Sample:
        """Return the sample that crop ``number`` comes from, were every sample whole."""
        position, _ = self._aim(number)
        return self.samples[position]

    def __getitem__(self, number: int) -> tuple[torch.Tensor, ...]:
        """Return crop ``number``: image, labels and, where they are weighed, weights.

        See `draw_crop` for their shapes and types.
        """
        if number < 0:
            raise IndexError(number)
        position, aim = self._aim(number)
        image, labels, weights = self._load_whole(position)
        rng = _generator(self._seed, *divmod(number, self.length))
        if aim is not None:
            part = _around(labels == aim, self.config, rng)
            image, labels, weights = image[part], labels[part], None if weights is None else weights[part]
        return draw_crop(
            image,
            labels,
            config=self.config,
            rng=rng,
            ignore_index=self.dataset.classes.ignore_index,
            weights=weights,
        )

    def _aim(self, number: int) -> tuple[int, int | None]:
        """Return the position of a crop's sample, and the class it is aimed at, if any."""
        epoch, index = divmod(number, self.length)
        rng = _generator(self._seed, epoch, index, 1)
        present = [k for k, holders in enumerate(self._holders) if len(holders)]
        if rng.random() >= self._balance or not present:
            return int(self.schedule(epoch)[index]), None
        aim = int(rng.choice(present))
        return int(rng.choice(self._holders[aim])), aim

    def _load_whole(self, position: int) -> Loaded:
        """Load a sample, or where it is broken and may be skipped, the next one that is whole."""
        for offset in range(len(self.samples)):
            at = (position + offset) % len(self.samples)
            try:
                return self._load(at)
            except SampleError as error:
                if self._on_error == "stop":
                    raise
                self._skipped[at] = 1
                self._require_few(error)
        raise AssertionError("more samples are skipped than may be")

    def _require_few(self, error: SampleError) -> None:
        skipped, allowed = len(self.skipped), max(1, int(TOLERATED * len(self.samples)))
        if skipped > allowed:
            raise SampleError(
                f"{skipped} of {len(self.samples)} images cannot be read, more than {allowed} "
                f"({TOLERATED:.0%}) are not skipped: {', '.join(self.skipped[:10])}; the last one: {error}"
            ) from error

    def _load(self, position: int) -> Loaded:
        kept = self._decoded.get(position)
        if kept is not None:
            return kept
        sample = self.samples[position]
        worker = get_worker_info()
        if worker:
            self._reading[worker.id] = torch.tensor([os.getpid(), position])
        try:
            image, labels = self.dataset.load(sample)
            weights = self._weigh(sample, labels) if self._weigh else None
        except (ImageError, DataError) as error:
            raise SampleError(str(error)) from error
        finally:
            if worker:
                self._reading[worker.id, 1] = -1
        self._decoded.put(position, (image, labels, weights))
        return image, labels, weights


class SampleError(DataError):
    """A file that was right when the dataset was opened cannot be read any more.

    A ``DataLoader`` raises a worker's exception anew from one string, which ends in the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(
            message.rpartition(f"{type(self).__name__}: ")[2].strip(),
            "files that stay as they were when training began",
            "restore the file and resume, or skip it with --on-error skip",
        )
        self.args = (self.given,)

    def __str__(self) -> str:
        return self.given


def _around(there: NDArray[np.bool_], config: AugmentConfig, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return a part of an image, as large as a crop, with one of the pixels that are ``there``.

    A crop of it shows the pixel, also at the image's border, unless it is enlarged; what a crop sees beyond
    the part is mirrored. Where no pixel is there, all is returned.
    """
    places = np.flatnonzero(there)
    if not len(places):
        return slice(None), slice(None)
    place = np.unravel_index(rng.choice(places), there.shape)
    side = min(config.crop)  # a crop may be turned
    spans = []
    for target, full in zip(place, there.shape, strict=True):
        first, last = max(0, int(target) - side + 1), max(0, min(int(target), full - side))
        start = int(rng.integers(min(first, last), last, endpoint=True))
        spans.append(slice(start, start + side))
    return spans[0], spans[1]


def _shared(values: NDArray[Any]) -> torch.Tensor:
    shared = torch.from_numpy(values.astype(np.int64))
    return shared.share_memory_()  # type: ignore[no-untyped-call,no-any-return]  # torch leaves it untyped


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
