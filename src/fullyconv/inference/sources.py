"""Where windows come from: an open file, or an array in memory, behind one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fullyconv import images
from fullyconv.errors import ImageError


class Source(Protocol):
    """What windows can be read from; `fullyconv.images.ImageSource` is one, with more to it."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""

    @property
    def channels(self) -> int:
        """Of the image."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return a window, h×w×C, in its own type."""

    def close(self) -> None:
        """Let go of what was opened."""


class ArraySource:
    """An array as a `Source`: windows are views of it.

    Parameters
    ----------
    array
        H×W×C, or H×W for one channel.

    Raises
    ------
    ImageError
        Another shape, or no pixels.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        if array.ndim not in (2, 3) or array.size == 0:
            raise ImageError(
                f"an array of shape {array.shape}", "height × width × channels", "pass one image"
            )
        self.array = array[..., None] if array.ndim == 2 else array
        self.size = (self.array.shape[0], self.array.shape[1])
        self.channels = self.array.shape[2]
        self.dtype = self.array.dtype

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return a window, h×w×C."""
        return self.array[rows, columns]

    def close(self) -> None:
        """Do nothing: the array is its owner's."""


class PathSource:
    """A file as a `Source` that is open until `close`, and opened anew for whatever is read later.

    Parameters
    ----------
    path
        Of an image.

    Raises
    ------
    ImageError
        The file is missing, no image or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._open: images.ImageSource | None = images.open_image(path)
        self.size, self.channels, self.dtype = self._open.size, self._open.channels, self._open.dtype

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return a window, h×w×C."""
        if self._open is not None:
            return self._open.read(rows, columns)
        with images.open_image(self._path) as source:
            return source.read(rows, columns)

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            self._open.close()
            self._open = None


class Crop:
    """A part of another source, as a source of its own.

    Parameters
    ----------
    source
        The whole; it stays its owner's to close.
    rows, columns
        The part, within the whole.
    """

    def __init__(self, source: Source, rows: slice, columns: slice) -> None:
        self._source = source
        self._top, bottom, _ = rows.indices(source.size[0])
        self._left, right, _ = columns.indices(source.size[1])
        self.size = (bottom - self._top, right - self._left)
        self.channels, self.dtype = source.channels, source.dtype

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return a window, h×w×C."""
        top, bottom, _ = rows.indices(self.size[0])
        left, right, _ = columns.indices(self.size[1])
        return self._source.read(
            slice(self._top + top, self._top + bottom), slice(self._left + left, self._left + right)
        )

    def close(self) -> None:
        """Do nothing: the whole is its owner's."""


def middle(source: Source, size: tuple[int, int]) -> Crop:
    """Return the middle of a source: of ``size``, or all of an axis that is shorter."""
    starts = [max(0, (have - wanted) // 2) for have, wanted in zip(source.size, size, strict=True)]
    rows, columns = (slice(start, start + wanted) for start, wanted in zip(starts, size, strict=True))
    return Crop(source, rows, columns)


def spread_parts(source: Source, size: tuple[int, int], count: int) -> list[Crop]:
    """Return ``count`` by ``count`` parts of ``size``, spread evenly; one along a shorter axis."""
    rows, columns = (
        sorted({(have - wanted) * place // max(1, count - 1) for place in range(count)})
        if have > wanted
        else [0]
        for have, wanted in zip(source.size, size, strict=True)
    )
    return [
        Crop(source, slice(top, top + size[0]), slice(left, left + size[1]))
        for top in rows
        for left in columns
    ]


Image = NDArray[Any] | str | Path | Source


def as_source(image: Image) -> Source:
    """Open a path, wrap an array; a source stays what it is.

    Raises
    ------
    ImageError
        The file is missing, no image or damaged, or the array is no image.
    """
    if isinstance(image, (str, Path)):
        return PathSource(image)
    return ArraySource(image) if isinstance(image, np.ndarray) else image
