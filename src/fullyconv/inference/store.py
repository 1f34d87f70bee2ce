"""Answers on their way: a Zarr group written piece by piece, and a map of the pieces safe on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, EIO, ENOSPC, EROFS
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import MachineError
from fullyconv.geometry import Interval
from fullyconv.inference.plans import Rectangle
from fullyconv.inference.shares import Shares

Size = tuple[int, int]


class Store:
    """Labels, and probabilities where asked for, of one image on disk.

    A piece is marked as done only after all its values are on the disk itself. Whoever is stopped, at any
    moment, finds what was done: pieces that are not marked are computed again and written over.

    Parameters
    ----------
    folder
        Of the group; made by `create`.
    """

    def __init__(self, folder: Path) -> None:
        import zarr  # here, because small images need no store and should not wait for it

        self.folder = folder
        group = zarr.open_group(folder / "answers.zarr", mode="r+")
        self._arrays = dict(group.arrays())
        self.size: Size = self.labels.shape
        self.chunk: int = self.labels.chunks[0]

    @classmethod
    def create(
        cls,
        folder: Path,
        size: Size,
        pieces: int,
        chunk: int,
        dtype: np.dtype[Any],
        shares: Shares | None = None,
    ) -> Store:
        """Make an empty store.

        Parameters
        ----------
        folder
            To make; whatever lies there is replaced.
        size
            (height, width) of the image.
        pieces
            How many there will be.
        chunk
            Side of the square chunks in pixels.
        dtype
            Of the labels.
        shares
            Which probabilities to keep.
        """
        import zarr

        with _on_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            group = zarr.open_group(folder / "answers.zarr", mode="w")
            group.create_array("labels", shape=size, chunks=(chunk, chunk), dtype=dtype, fill_value=0)
            if shares:
                kept = len(shares.classes)
                group.create_array(
                    "probabilities",
                    shape=(*size, kept),
                    chunks=(chunk, chunk, kept),
                    dtype=shares.dtype,
                    fill_value=0,
                )
            (folder / "done").write_bytes(bytes(pieces))
        return cls(folder)

    @property
    def labels(self) -> Any:
        """H×W, on disk: parts are read by indexing."""
        return self._arrays["labels"]

    @property
    def shares(self) -> Any:
        """The probabilities kept, H×W×k, on disk; None where there are none."""
        return self._arrays.get("probabilities")

    def write(self, where: Rectangle, labels: NDArray[Any], shares: NDArray[Any] | None = None) -> None:
        """Write a piece and wait until the disk has it.

        Parameters
        ----------
        where
            Rows and columns, beginning at multiples of the chunk; what lies beyond the image is left out.
        labels
            h×w.
        shares
            h×w×k: what `Shares.kept` returned.
        """
        rows, columns = (part.clipped(side) for part, side in zip(where, self.size, strict=True))
        if not rows.size or not columns.size:
            return
        given = {"labels": labels, "probabilities": shares}
        with _on_disk(self.folder):
            for name, array in self._arrays.items():
                values = given[name]
                assert values is not None  # who asks for probabilities has a runner for them
                self._write(name, array, rows, columns, values.astype(array.dtype, copy=False))

    def mark(self, *pieces: int) -> None:
        """Say that pieces are written."""
        with _on_disk(self.folder), (self.folder / "done").open("r+b") as file:
            for piece in pieces:
                file.seek(piece)
                file.write(b"\1")
            file.flush()
            os.fsync(file.fileno())

    def missing(self) -> list[int]:
        """Return the numbers of the pieces that are not done."""
        done = np.frombuffer((self.folder / "done").read_bytes(), np.uint8)
        return np.flatnonzero(done == 0).tolist()

    def _write(self, name: str, array: Any, rows: Interval, columns: Interval, values: NDArray[Any]) -> None:
        """Write chunk by chunk, and wait for the disk: for the files, then for the folders that name them."""
        root = self.folder / "answers.zarr" / name / "c"
        rest = ("0",) * (values.ndim - 2)
        folders = {root}
        for top in range(rows.start, rows.stop, self.chunk):
            for left in range(columns.start, columns.stop, self.chunk):
                bottom, right = min(top + self.chunk, rows.stop), min(left + self.chunk, columns.stop)
                array[top:bottom, left:right] = values[
                    top - rows.start : bottom - rows.start, left - columns.start : right - columns.start
                ]
                path = root.joinpath(str(top // self.chunk), str(left // self.chunk), *rest)
                with suppress(FileNotFoundError):  # chunks of zeros are not stored
                    _sync(path)
                folders.update(parent for parent in path.parents if root in parent.parents)
        for folder in folders:
            with suppress(FileNotFoundError):
                _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {ENOSPC, EDQUOT, EFBIG, EIO, EROFS}:
            raise
        raise MachineError(
            f"{folder} cannot be written to: {error.strerror}",
            "a disk with room for what is unfinished and for the result",
            f"free some space (df -h {folder.parent}) and run the same command again: it goes on from here",
        ) from error
