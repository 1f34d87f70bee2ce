"""Windows of images of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ImageError
from fullyconv.images._cache import TileCache
from fullyconv.images._georeference import read_georeference
from fullyconv.images._open import enter, explained
from fullyconv.images._shown import show, shown_as
from fullyconv.images._stored import MAX_PIXELS, Samples, Stored, Tiles, decode_whole, refuse_size, turn
from fullyconv.images._zarr import METADATA

CACHE_BYTES = 2**28
_STRIP_ROWS = 256  # strips of fewer rows are best read together
_SAMPLES, _SAMPLE_BYTES = 64, 2**14


class ImageSource:
    """An open image of which windows are read; made by `open_image`.

    Windows are those of ``read_image(path)``. Only the tiles, strips or chunks under a window are decoded,
    each once while it stays among the last used ones; a format that has none is decoded whole, once. Reading
    is safe from several threads.

    Attributes
    ----------
    path : Path
        As given.
    size : tuple[int, int]
        (height, width), upright.
    channels : int
        After a palette has become colours.
    dtype : numpy.dtype
        Of the values.
    chunk : tuple[int, int]
        (height, width) of windows that are cheap to read if they begin at multiples of it: a tile, some
        strips, or all of the image.
    levels : tuple[tuple[int, int], ...]
        (height, width) of every level of a pyramid, the first that of the image; one where there is no
        pyramid. Windows are read from the first.
    georeference : Georeference or None
        Where the image lies on the ground, if its file says so.
    hint : str
        What would tell more about the file, or nothing.
    """

    def __init__(self, path: Path, stored: Stored, files: ExitStack, *, cache: int, max_pixels: int) -> None:
        self.path = path
        self.size = stored.upright
        self.channels, self.dtype = shown_as(stored)
        self._stored = stored
        self._tiles = stored.tiles or Tiles(stored.size, lambda *_: decode_whole(stored, max_pixels))
        refuse_size(stored, self._tiles.size, max_pixels)
        self._cache = TileCache(cache)
        self.chunk = self._preferred_chunk()
        turned = stored.orientation >= 5
        self.levels = (
            self.size,
            *((width, height) if turned else (height, width) for height, width in stored.smaller),
        )
        self.georeference, self.hint = None, ""
        if stored.is_georeferenced and stored.orientation == 1:
            self.georeference, self.hint = read_georeference(path)
        self._files = files.pop_all()  # from here on mine to close

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[Any]:
        """Decode a window.

        Parameters
        ----------
        rows, columns
            As in indexing an array: without a step, and cut off at the border of the image.

        Returns
        -------
        ndarray
            height × width × channels, its own memory.

        Raises
        ------
        ImageError
            The file is damaged or cut off there; the tile is named.
        MachineError
            Memory does not suffice.
        """
        (top, bottom), (left, right) = (
            _bounds(part, side) for part, side in zip((rows, columns), self.size, strict=True)
        )
        height, width = self.size
        orientation = self._stored.orientation
        if orientation in (3, 4, 7, 8):
            top, bottom = height - bottom, height - top
        if orientation in (2, 3, 6, 7):
            left, right = width - right, width - left
        if orientation >= 5:
            top, bottom, left, right = left, right, top, bottom
        with explained(self.path):
            samples = self._read_stored(top, bottom, left, right)
            return show(turn(samples, orientation), self._stored)

    def fingerprint(self) -> str:
        """Return a hash of the file's length, time of change and some of its content.

        Of a Zarr folder: of the number, lengths and latest change of its files, and of the metadata.
        """
        with explained(self.path):
            return _fingerprint(self.path)

    def close(self) -> None:
        """Close the file and let go of its tiles."""
        self._cache.clear()
        self._files.close()

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _preferred_chunk(self) -> tuple[int, int]:
        height, width = self._tiles.size
        if width >= self._stored.size[1]:
            height *= -(-_STRIP_ROWS // height)
        height, width = min(height, self._stored.size[0]), min(width, self._stored.size[1])
        return (width, height) if self._stored.orientation >= 5 else (height, width)

    def _read_stored(self, top: int, bottom: int, left: int, right: int) -> Samples:
        window = np.empty((bottom - top, right - left, self._stored.channels), self._stored.dtype)
        height, width = self._tiles.size
        for row in range(top // height, -(-bottom // height)):
            for column in range(left // width, -(-right // width)):
                y, x = row * height, column * width
                upper, lower = max(top, y), min(bottom, y + height)
                start, end = max(left, x), min(right, x + width)
                tile = self._tile(row, column)
                part = window[upper - top : lower - top, start - left : end - left]
                if tile is None:
                    part[:] = self._tiles.missing
                else:
                    part[:] = tile[upper - y : lower - y, start - x : end - x]
        return window

    def _tile(self, row: int, column: int) -> Samples | None:
        if self._stored.tiles is None:
            return self._cache.get((row, column), self._tiles.decode)
        place = f"tile at row {row * self._tiles.size[0]}, column {column * self._tiles.size[1]}"
        try:
            tile = self._cache.get((row, column), self._tiles.decode)
            if tile is not None:
                self._refuse_other_shape(tile, row, column)
        except ImageError as error:
            raise ImageError(f"{place}: {error.given}", error.expected, error.fix) from error.__cause__
        except MemoryError:
            raise
        except Exception as error:
            raise ImageError(
                f"{place}: damaged or cut off ({type(error).__name__}: {error})",
                "a whole image file",
                "copy or export the file again",
            ) from error
        return tile

    def _refuse_other_shape(self, tile: Samples, row: int, column: int) -> None:
        stored = self._stored
        height, width = (
            min(side, length - place * side)
            for side, length, place in zip(self._tiles.size, stored.size, (row, column), strict=True)
        )
        if (
            tile.shape[0] < height
            or tile.shape[1] < width
            or (tile.shape[2], tile.dtype) != (stored.channels, stored.dtype)
        ):
            raise ImageError(
                f"damaged: the header says {(height, width, stored.channels)} of {stored.dtype}, "
                f"the content {tile.shape} of {tile.dtype}",
                "a whole image file",
                "copy or export the file again",
            )


def open_image(path: str | Path, *, cache: int = CACHE_BYTES, max_pixels: int = MAX_PIXELS) -> ImageSource:
    """Open an image of any size to read windows of it.

    Parameters
    ----------
    path
        A file that `read_image` reads, or the folder of a Zarr array or OME-Zarr image. Of tiled and striped
        TIFF files and of Zarr only what a window needs is decoded; other formats can only be decoded whole.
    cache
        Bytes of decoded tiles to keep.
    max_pixels
        Refuse files that claim more pixels (of up to 4 channels) in one piece: a tile, or the whole of a
        format that has none. The size of a tiled image has no limit.

    Returns
    -------
    ImageSource
        To be closed, best by ``with``.

    Raises
    ------
    ImageError
        The path names no image, or one that cannot be read faithfully; see `read_image`.

    Examples
    --------
    >>> import tempfile
    >>> from fullyconv.images import write_image
    >>> path = Path(tempfile.mkdtemp()) / "image.tif"
    >>> write_image(path, np.arange(20, dtype=np.uint8).reshape(4, 5))
    >>> with open_image(path) as image:
    ...     image.size, image.read(slice(1, 3), slice(2, 4))[..., 0].tolist()
    ((4, 5), [[7, 8], [12, 13]])
    """
    path = Path(path)
    with explained(path), ExitStack() as files:
        _, stored = enter(path, files)
        return ImageSource(path, stored, files, cache=cache, max_pixels=max_pixels)


def _bounds(part: slice, side: int) -> tuple[int, int]:
    start, stop, step = part.indices(side)
    if step != 1:
        raise ImageError(f"a window with step {step}", "every row and column", "take the step after reading")
    return start, max(start, stop)


def _fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    facts = [(file, file.stat()) for file in files if file.is_file()]
    latest = max(fact.st_mtime_ns for _, fact in facts)
    digest.update(f"{len(facts)} {sum(fact.st_size for _, fact in facts)} {latest}".encode())
    sampled = [path] if not path.is_dir() else [file for file, _ in facts if file.name in METADATA]
    for file in sampled:
        for sample in _samples(file):
            digest.update(sample)
    return digest.hexdigest()


def _samples(path: Path) -> Iterator[bytes]:
    """Yield some of a file, its beginning and end included."""
    with path.open("rb") as file:
        last = max(0, path.stat().st_size - _SAMPLE_BYTES)
        for number in range(_SAMPLES):
            file.seek(last * number // (_SAMPLES - 1))
            yield file.read(_SAMPLE_BYTES)
