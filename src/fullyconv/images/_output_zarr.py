"""OME-Zarr images (NGFF 0.5, on Zarr 3) with a pyramid."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.images._planned import Planned

if TYPE_CHECKING:
    import zarr

_ZSTD_LEVEL = 3


class ZarrSink:
    """Writes rows of chunks, and halves them into the rows of the next level as soon as those are full.

    Labels have the axes y and x, probabilities c, y and x with a chunk per class.
    """

    def __init__(self, path: Path, planned: Planned) -> None:
        import zarr  # takes a third of a second
        from zarr.codecs import ZstdCodec

        chunk = planned.chunk
        group = zarr.create_group(path, zarr_format=3, attributes={"ome": _metadata(planned)})
        if planned.georeference is not None:
            group.attrs["georeference"] = asdict(planned.georeference)
        depths, chunks, names = (
            ((), (chunk, chunk), ("y", "x"))
            if planned.content == "labels"
            else ((planned.depth,), (1, chunk, chunk), ("c", "y", "x"))
        )
        self._levels: list[zarr.Array[Any]] = [
            group.create_array(
                str(level),
                shape=(*depths, *size),
                chunks=chunks,
                dtype=planned.dtype,
                compressors=ZstdCodec(level=_ZSTD_LEVEL),
                dimension_names=names,
                fill_value=0,
            )
            for level, size in enumerate(_sizes(planned))
        ]
        self._waiting: list[list[NDArray[Any]]] = [[] for _ in self._levels]
        self._tops = [0] * len(self._levels)
        self._planned = planned
        self._halve = _majority if planned.content == "labels" else _mean

    def write(self, top: int, rows: NDArray[Any]) -> None:
        """Write rows, and of each coarser level those that are now full."""
        self._add(0, rows)

    def close(self) -> None:
        """Do nothing: the last rows of every level were full when they came."""

    def discard(self) -> None:
        """Do nothing: no file is open."""

    def _add(self, level: int, rows: NDArray[Any]) -> None:
        self._waiting[level].append(rows)
        top, height = self._tops[level], self._levels[level].shape[-2]
        count = sum(map(len, self._waiting[level]))
        if count < self._planned.chunk and top + count < height:
            return
        full = np.concatenate(self._waiting[level])
        self._waiting[level] = []
        self._tops[level] += count
        values = full[..., 0] if self._planned.content == "labels" else np.moveaxis(full, -1, 0)
        self._levels[level][..., top : top + count, :] = values
        if level + 1 < len(self._levels):
            self._add(level + 1, self._halve(full))


def _sizes(planned: Planned) -> list[tuple[int, int]]:
    """Return (height, width) of the levels, down to one chunk."""
    sizes = [planned.size]
    while max(sizes[-1]) > planned.chunk:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def _quarters(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the upper left, upper right, lower left and lower right pixels of all squares of four."""
    height, width = rows.shape[:2]
    if height % 2 or width % 2:
        rows = np.pad(rows, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return [rows[row::2, column::2] for row in (0, 1) for column in (0, 1)]


def _majority(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the label that most of four pixels have, of equals the one that comes first."""
    first, second, third, fourth = _quarters(rows)
    of_the_others = np.where(
        (second == third) | (second == fourth), second, np.where(third == fourth, third, first)
    )
    is_shared = (first == second) | (first == third) | (first == fourth)
    return np.where(is_shared, first, of_the_others)


def _mean(rows: NDArray[Any]) -> NDArray[Any]:
    mean = sum(quarter.astype(np.float32) for quarter in _quarters(rows)) / 4
    values: NDArray[Any] = np.asarray(mean if rows.dtype.kind == "f" else np.rint(mean))
    return values.astype(rows.dtype)


def _metadata(planned: Planned) -> dict[str, Any]:
    axes: list[dict[str, str]] = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    leading = [] if planned.content == "labels" else [1.0]
    if leading:
        axes.insert(0, {"name": "c", "type": "channel"})
    datasets = []
    for level in range(len(_sizes(planned))):
        # A pixel of a coarser level is centred between those it stands for.
        scale, shift = float(2**level), (2**level - 1) / 2
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": [*leading, scale, scale]}]
        if level:
            steps.append({"type": "translation", "translation": [*(0.0 for _ in leading), shift, shift]})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    metadata: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [{"name": planned.content, "axes": axes, "datasets": datasets}],
    }
    table = planned.classes
    if planned.content == "labels":
        metadata["image-label"] = {
            # Class 0 is the background, which would hide the image under it: here as in overlays.
            "colors": [
                {"label-value": label, "rgba": [*color, 255 if label else 0]}
                for label, color in enumerate(table.colors)
            ],
            "properties": [{"label-value": label, "name": name} for label, name in enumerate(table.names)],
        }
    else:
        one = 255 if planned.dtype == np.uint8 else 1
        metadata["omero"] = {
            "channels": [
                {
                    "label": table.names[channel],
                    "color": "{:02X}{:02X}{:02X}".format(*table.colors[channel]),
                    "window": {"min": 0, "max": one, "start": 0, "end": one},
                }
                for channel in planned.channels
            ]
        }
    return metadata
