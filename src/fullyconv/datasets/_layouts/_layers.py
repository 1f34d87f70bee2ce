"""Masks made of other files: one file for each object, or numbers that mean other things as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fullyconv.datasets._sources import digest_of, digest_of_values
from fullyconv.errors import ImageError
from fullyconv.images import Mask, read_mask
from fullyconv.labels import Labels


@dataclass(frozen=True)
class Layers:
    """Files that each paint one value where they are half bright or more; later ones cover earlier ones.

    Parameters
    ----------
    path
        The folder of the files.
    files
        Their names.
    values
        What each paints.
    """

    path: Path
    files: tuple[str, ...]
    values: tuple[int, ...]

    @property
    def place(self) -> str:
        """How many files there are."""
        return f"{len(self.files)} files, one for each object"

    def read_mask(self) -> Mask:
        """Paint the files.

        Raises
        ------
        ImageError
            A file cannot be read, or two differ in size.
        """
        painted: Labels | None = None
        for name, value in zip(self.files, self.values, strict=True):
            layer = read_mask(self.path / name).values
            inside = (layer.max(2) if layer.ndim == 3 else layer) * 2 > np.iinfo(layer.dtype).max
            if not inside.any():
                inside = layer.reshape(*layer.shape[:2], -1).any(2)  # counted 0 and 1, or empty
            if painted is None:
                painted = np.zeros(inside.shape, np.min_scalar_type(max(self.values)))
            if painted.shape != inside.shape:
                raise ImageError(
                    f"{name} is {inside.shape[0]}×{inside.shape[1]}, {self.files[0]} "
                    f"{painted.shape[0]}×{painted.shape[1]}",
                    "layers of one size",
                    "export the objects of this image again",
                )
            painted[inside] = value
        if painted is None:
            raise ImageError(f"{self.path}: no files", "a file for each object", "add them")
        return Mask(painted, None, False)

    def digest(self) -> str:
        """Return digits of all files and their values."""
        return digest_of_values([digest_of(self.path / name) for name in self.files], self.values)


@dataclass(frozen=True)
class ObjectFile:
    """A file that numbers objects in a way of its own.

    Parameters
    ----------
    path
        The file.
    way
        A key of ``WAYS``.
    """

    path: Path
    way: str

    @property
    def place(self) -> str:
        """What is read from it."""
        return "objects"

    def read_mask(self) -> Mask:
        """Return a number for each object, and 0 between them."""
        return Mask(WAYS[self.way](read_mask(self.path).values), None, False)

    def digest(self) -> str:
        """Return digits of the file."""
        return digest_of_values(self.way, digest_of(self.path))


def _without_void(values: Labels) -> Labels:
    """As in PASCAL VOC: numbers with 255 for outlines, or painted in colours, which number as well."""
    if values.ndim == 3:
        wide = values.astype(np.int32)
        packed: Labels = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        return packed
    return np.where(values == 255, 0, values)


def _above_thousand(values: Labels) -> Labels:
    """As in Cityscapes: class times 1000 plus a number, or the class where objects are not told apart."""
    return np.where(values >= 1000, values, 0)


WAYS: dict[str, Callable[[Labels], Labels]] = {
    "PASCAL VOC": _without_void,
    "Cityscapes": _above_thousand,
}
