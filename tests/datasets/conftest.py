"""A factory of small folders of images and masks."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fullyconv.datasets import Dataset, open_dataset


class Folder:
    """Writes files below ``root`` with Pillow, which is not what the library reads PNG and TIFF with."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, name: str, array: NDArray[Any], palette: list[int] | None = None, **options: Any) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(array)
        if palette is not None:
            image.putpalette(palette)
        image.save(path, **options)
        return path

    def text(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def pairs(self, *stems: str, size: tuple[int, int] = (8, 10), below: str = "") -> Folder:
        """Write gray images and 0/255 masks that are bright where the image is."""
        for stem in stems:
            seed = zlib.crc32(f"{below}{stem}".encode())
            image = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
            self.save(f"{below}images/{stem}.png", image)
            self.save(f"{below}masks/{stem}.png", np.where(image > 99, 255, 0).astype(np.uint8))
        return self

    def masks(self, *arrays: NDArray[Any], palette: list[int] | None = None) -> Folder:
        """Write these masks, and a gray image for each."""
        for number, array in enumerate(arrays):
            self.save(f"images/{number}.png", np.full(array.shape[:2], 40 + number, np.uint8))
            self.save(f"masks/{number}.png", array, palette)
        return self

    @staticmethod
    def scene(number: int, size: int = 96) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw bright discs on noise, and their mask of 0 and 255."""
        rng = np.random.default_rng(number)
        rows, columns = np.mgrid[:size, :size]
        mask = np.zeros((size, size), bool)
        centres, radii = rng.integers(12, size - 12, (2, 5)), rng.integers(6, 12, 5)
        for row, column, radius in zip(*centres, radii, strict=True):
            mask |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        image = rng.normal(60, 12, (size, size)) + 110 * mask
        return image.clip(0, 255).astype(np.uint8), (mask * 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "data")


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[[str], Folder]:
    return lambda name: Folder(tmp_path / name)


@pytest.fixture(scope="session")
def kept_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Folder]:
    return lambda name: Folder(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def three_pairs(kept_folder: Callable[[str], Folder]) -> Dataset:
    return open_dataset(kept_folder("three").pairs("a", "b", "c").root)


@pytest.fixture
def discs(folder: Folder) -> Folder:
    """Twelve pairs, a to l, with lists of splits, in which nothing is wrong."""
    names = "abcdefghijkl"
    for number, name in enumerate(names):
        image, mask = folder.scene(number)
        folder.save(f"images/{name}.png", image)
        folder.save(f"masks/{name}.png", mask)
    folder.text("splits/val.txt", "\n".join(names[:3]))
    folder.text("splits/train.txt", "\n".join(names[3:]))
    return folder
