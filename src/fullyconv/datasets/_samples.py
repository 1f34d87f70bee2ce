"""One image with what belongs to it, and how messages speak of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fullyconv.datasets._sources import ImageSource, MaskSource, printable


@dataclass(frozen=True)
class Sample:
    """One image and its mask.

    Parameters
    ----------
    name
        Unique in its dataset: the path without suffix, below the folder of images (and the split's folder);
        of a page or row of a file, its number after a colon.
    image, mask
        Files, or parts of files; ``mask`` is None where there is none (a test set without truth).
    split
        "train", "val", "test", or None where the folder does not say.
    instances
        A number for each object and 0 between them, where the layout has them.
    group
        What must not be divided among splits, such as a patient; None where the sample stands for itself.
    """

    name: str
    image: ImageSource
    mask: MaskSource | None
    split: str | None
    instances: MaskSource | None = None
    group: str | None = None


def problem(path: Path | str, what: str, fix: str) -> str:
    """Return one problem as people read it."""
    return printable(f"{path}: {what}; fix: {fix}")


def counted(number: int, noun: str) -> str:
    """Return "1 pair", "2 pairs"."""
    return f"{number} {noun}{'s' * (number != 1)}"
