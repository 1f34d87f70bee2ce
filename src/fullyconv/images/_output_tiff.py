"""Tiled, compressed BigTIFF, with its place on the ground if known (OGC 19-008r4, GeoTIFF 1.1)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from fullyconv.errors import MachineError
from fullyconv.images._planned import Planned
from fullyconv.images._write import palette_of

_LEVEL = 6  # of deflate: on labels as fast as 1 and half as large
_GEO_TAGS = (
    33550,
    33922,
    34264,
    34735,
    34736,
    34737,
    42112,
    42113,
)  # the last two are GDAL's: names, no data
_AHEAD = 8  # encoded tiles between who compresses and who writes


class TiffSink:
    """Compresses tiles as they come; a thread hands them to tifffile, which asks for them one by one."""

    def __init__(self, path: Path, planned: Planned) -> None:
        self._planned = planned
        self._tiles: Queue[bytes | None] = Queue(_AHEAD)
        self._fault: BaseException | None = None
        self._ended = False
        self._thread = Thread(target=self._run, args=(path, _options(planned)), daemon=True)
        self._thread.start()

    def write(self, top: int, rows: NDArray[Any]) -> None:
        """Compress and write one row of tiles, filled up with zeros at the border."""
        side = self._planned.chunk
        for left in range(0, self._planned.size[1], side):
            part = rows[:, left : left + side]
            tile = np.zeros((side, side, self._planned.depth), self._planned.dtype.newbyteorder("<"))
            tile[: part.shape[0], : part.shape[1]] = part
            self._tiles.put(bytes(imagecodecs.deflate_encode(tile.tobytes(), level=_LEVEL)))
            if self._fault is not None:
                raise self._fault

    def close(self) -> None:
        """Wait until all is written."""
        self._tiles.put(None)
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def discard(self) -> None:
        """Let the thread end."""
        if self._thread.is_alive():
            self._tiles.put(None)
            self._thread.join()

    def _run(self, path: Path, options: dict[str, Any]) -> None:
        try:
            with tifffile.TiffWriter(path, bigtiff=True, byteorder="<") as writer:
                writer.write(self._all_tiles(), **options)
        except BaseException as error:
            self._fault = error
            while not self._ended:  # so that nobody waits for room
                self._next()

    def _all_tiles(self) -> Iterator[bytes]:
        while (tile := self._next()) is not None:
            yield tile

    def _next(self) -> bytes | None:
        tile = self._tiles.get()
        self._ended = tile is None
        return tile


def _options(planned: Planned) -> dict[str, Any]:
    depth = planned.depth
    options: dict[str, Any] = {
        "shape": planned.size if depth == 1 else (*planned.size, depth),
        "dtype": planned.dtype,
        "tile": (planned.chunk, planned.chunk),
        "compression": "adobe_deflate",
        "photometric": "minisblack",
        "planarconfig": None if depth == 1 else "contig",
        "description": planned.describe(),
        "software": "fullyconv",
        "metadata": None,
        "extratags": [] if planned.georeference is None else _geographic_tags(planned),
    }
    if planned.content == "labels" and planned.dtype == np.uint8:
        colormap = np.zeros((3, 256), np.uint16)
        palette = palette_of(planned.classes)
        colormap[:, : len(palette)] = palette.T.astype(np.uint16) * 257
        options |= {"photometric": "palette", "colormap": colormap}
    return options


def _geographic_tags(planned: Planned) -> list[tuple[int, int, int, Any, bool]]:
    """Let GDAL write a small file of the same place, and take over its tags."""
    try:
        import rasterio
    except ImportError as error:
        raise MachineError(
            "a GeoTIFF to write, without rasterio", "the extra geo", "pip install 'fullyconv[geo]'"
        ) from error
    place = planned.georeference
    assert place is not None
    is_labels = planned.content == "labels"
    profile = {"driver": "GTiff", "height": 1, "width": 1, "count": planned.depth}
    # GDAL's own type of half precision is younger than its tags.
    dtype = np.dtype(np.float32) if planned.dtype == np.float16 else planned.dtype
    with warnings.catch_warnings(), rasterio.MemoryFile() as memory:
        warnings.simplefilter("ignore")  # of the identity as a transform
        with memory.open(
            **profile,
            dtype=dtype.name,
            crs=place.crs or None,
            transform=rasterio.Affine(*place.transform),
            nodata=planned.classes.ignore_index if is_labels else None,
        ) as dataset:
            if is_labels:
                dataset.update_tags(
                    **{f"CLASS_{label}": name for label, name in enumerate(planned.classes.names)}
                )
            for band, name in enumerate(planned.names, 1):
                dataset.set_band_description(band, name)
        memory.seek(0)
        with tifffile.TiffFile(memory) as small:
            tags = small.pages.first.tags
            return [
                (tag.code, int(tag.dtype), tag.count, _bytes(tag.value), True)
                for tag in (tags.get(code) for code in _GEO_TAGS)
                if tag is not None
            ]


def _bytes(value: Any) -> Any:
    """Return text as GDAL writes it, in UTF-8; tifffile takes ASCII only, or bytes."""
    return value.encode() if isinstance(value, str) else value
