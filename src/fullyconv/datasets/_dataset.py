"""A folder of images and masks, understood, checked, and read one sample at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.datasets._check import check
from fullyconv.datasets._checks import describe_unknown, in_threads, summarize
from fullyconv.datasets._encodings import Encoding
from fullyconv.datasets._samples import Sample, counted
from fullyconv.datasets._sources import digest_of, load_image, load_mask, name_below
from fullyconv.errors import ConfigError, DataError
from fullyconv.images import conform
from fullyconv.labels import ClassTable, Labels
from fullyconv.progress import Progress


@dataclass(frozen=True)
class Dataset:
    """A checked folder of images and masks; ``open_dataset`` makes it.

    Parameters
    ----------
    root
        The folder.
    samples
        All pairs, sorted by name within a split.
    encoding
        How the mask files spell labels.
    channels, dtype
        What every image is read as.
    layout, notes
        What was understood: one line, and one line per further choice.
    sizes
        (height, width) of each sample, by name.
    pixels
        Number of pixels of each class in each sample, by name; ignored ones are not counted.
    """

    root: Path
    samples: tuple[Sample, ...]
    encoding: Encoding
    channels: int
    dtype: str
    layout: str
    notes: tuple[str, ...]
    sizes: Mapping[str, tuple[int, int]]
    pixels: Mapping[str, tuple[int, ...]]

    @property
    def classes(self) -> ClassTable:
        """The classes, with the ignore index of ``load``'s labels."""
        return self.encoding.classes

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of "train", "val" or "test"; empty where there is no such split."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def load(self, sample: Sample) -> tuple[NDArray[Any], Labels]:
        """Read one sample.

        Returns
        -------
        image
            H×W×C with ``channels`` channels, in its own dtype and range.
        labels
            H×W, class positions and the ignore index; only the ignore index where there is no mask.

        Raises
        ------
        ImageError
            A file cannot be read.
        DataError
            The files changed since the dataset was opened and no longer fit.
        """
        image, _ = conform(load_image(sample.image), self.channels, self.dtype)
        size = image.shape[:2]
        if sample.mask is None:
            return image, np.full(size, self.classes.ignore_index, self.classes.dtype)
        values = load_mask(sample.mask).values
        mask_name = name_below(Path(), sample.mask)
        if values.shape[:2] != size:
            raise DataError(
                f"{mask_name} is {values.shape[0]}×{values.shape[1]}, its image {size[0]}×{size[1]}",
                "a mask of the image's size",
                "the file changed since it was checked; restore it",
            )
        labels, known = self.encoding.decode(values)
        if not known.all():
            raise DataError(
                f"{mask_name} holds values that are no class",
                "the values found when it was checked",
                "the file changed since; restore it",
                tuple(str(each) for each in describe_unknown(mask_name, values, self.encoding)),
            )
        return image, labels

    def fingerprint(self) -> str:
        """Return 64 hexadecimal digits that change with any pixel, object, name, split or class.

        They do not change when the folder is moved.
        """
        parts = [(sample.image, sample.mask, sample.instances) for sample in self.samples]
        digests = iter(in_threads(digest_of, [source for part in parts for source in part if source]))
        content = [
            [sample.name, sample.split, *(next(digests) if source else None for source in part)]
            for sample, part in zip(self.samples, parts, strict=True)
        ]
        table = [self.classes.names, self.classes.colors, sorted(self.encoding.labels.items())]
        return hashlib.sha256(json.dumps([table, content]).encode()).hexdigest()


def open_dataset(
    path: Path | str | Sequence[Path | str],
    *,
    classes: Path | str | None = None,
    splits: Path | str | None = None,
    groups: Path | str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    r"""Understand and check images and masks; a file is decoded once, and again only after it changed.

    Parameters
    ----------
    path
        A folder or ``.zip`` in one of the layouts of `LAYOUTS`, or several. The commonest is ``images/`` and
        ``masks/`` with equal stems, optionally with ``splits/{train,val,test}.txt``, or ``train/``, ``val/``,
        ``test/`` with those two in each.
    classes
        A ``classes.toml``; without it the one in the folder, else what the layout says, else the masks.
    splits
        A folder of ``train.txt``, ``val.txt``, ``test.txt`` with a sample's name a line; they go before
        what the layout says.
    groups
        What must not be divided among splits: a ``.csv`` of names and groups, or a regular expression whose
        first bracket is the group in a sample's name, such as ``"^(patient\d+)"``.
    progress
        Told how many files are read.

    Raises
    ------
    DataError
        The folder cannot be used for training; ``problems`` lists everything that is wrong.

    Examples
    --------
    >>> dataset = open_dataset("nuclei")  # doctest: +SKIP
    >>> dataset.classes.names, dataset.channels  # doctest: +SKIP
    (('background', 'foreground'), 3)
    """
    report = check(path, classes=classes, splits=splits, groups=groups, progress=progress)
    evidence, layout = report.evidence, report.evidence.layout
    if report.errors or evidence.encoding is None:
        raise DataError(
            f"{evidence.root} has {counted(len(report.errors), 'problem')} ({layout.description})",
            "images and masks that fit each other",
            f"correct the files below (nothing was changed); fullyconv check {evidence.root} says more",
            tuple(str(problem) for problem in report.errors),
        )
    return Dataset(
        root=evidence.root,
        samples=layout.samples,
        encoding=evidence.encoding,
        channels=evidence.channels,
        dtype=evidence.dtype,
        layout=layout.description,
        notes=(*evidence.notes, *summarize(evidence.root, report.warnings)),
        sizes={sample.name: image.size for sample, image in evidence.images},
        pixels=evidence.pixels,
    )


def split_dataset(dataset: Dataset, *, validation: float = 0.2, seed: int) -> Dataset:
    """Set part of the samples aside for validation, where the folder does not say which.

    A sample's place is drawn from its name (or its group's) and the seed alone, so adding files moves few
    others. A group goes to one side as a whole; the share is then met as nearly as whole groups allow.

    Parameters
    ----------
    dataset
        Returned as it is if it has a "val" split; "test" samples are never touched.
    validation
        The share to set aside, above 0 and below 1; at least one sample goes to each side.
    seed
        Another seed draws another split.

    Raises
    ------
    ConfigError
        ``validation`` is out of range.
    DataError
        Fewer than two samples to divide.
    """
    if not 0 < validation < 1:
        raise ConfigError(f"a validation share of {validation}", "a number above 0 and below 1", "use 0.2")
    if dataset.split("val"):
        return dataset
    free = [sample for sample in dataset.samples if sample.split in (None, "train")]
    if len(free) < 2:
        raise DataError(
            f"{dataset.root} has {len(free)} sample to divide into training and validation",
            "at least 2",
            "add pairs of images and masks",
        )
    groups: dict[str, list[Sample]] = {}
    for sample in free:
        groups.setdefault(sample.group or sample.name, []).append(sample)
    if len(groups) < 2:
        raise DataError(
            f"{dataset.root} has {len(free)} samples to divide, all of the group {next(iter(groups))!r}",
            "at least 2 groups",
            "correct the groups, or leave them out",
        )
    drawn = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())
    wanted = round(validation * len(free))
    chosen: set[str] = set()
    for group in drawn[:-1]:
        if chosen and len(chosen) + len(groups[group]) / 2 > wanted:
            break
        chosen.update(sample.name for sample in groups[group])
    samples = tuple(
        sample
        if sample.split == "test"
        else replace(sample, split="val" if sample.name in chosen else "train")
        for sample in dataset.samples
    )
    note = f"split: {len(free) - len(chosen)} to train, {len(chosen)} to validate, drawn with seed {seed}"
    return replace(dataset, samples=samples, notes=(*dataset.notes, note))
