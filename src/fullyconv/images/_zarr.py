"""Zarr arrays (version 2 and 3) and OME-Zarr images (NGFF 0.1 to 0.5): the finest level of the pyramid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fullyconv.errors import ImageError
from fullyconv.images._stored import Samples, Stored, Tiles

if TYPE_CHECKING:
    import zarr

METADATA = ("zarr.json", ".zarray", ".zgroup")
_LEAST_SIDE = 256  # chunks are taken together up to here: each costs a millisecond, whatever its size


_CHANNEL_NAMES = {"band", "bands", "sample", "samples"}


def is_zarr(path: Path) -> bool:
    """Whether a path is the folder of a Zarr array or group."""
    return path.is_dir() and any((path / name).is_file() for name in METADATA)


def open_zarr(path: Path) -> Stored:
    """Read the metadata of an array, or of the image in a group.

    Raises
    ------
    ImageError
        A group without an image, axes other than rows, columns and channels, or no numbers.
    """
    import zarr  # takes a third of a second

    opened = zarr.open(path, mode="r")
    levels, axes = ([opened], _axes_of_array(opened)) if isinstance(opened, zarr.Array) else _levels(opened)
    array = levels[0]
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "uif":
        raise ImageError(f"an array of {dtype}", "whole or floating numbers", "convert it to 8 or 16 bits")
    order = _order(axes, array.shape)
    rows, columns = array.shape[order[0]], array.shape[order[1]]

    def decode(top: int, bottom: int, left: int, right: int) -> Samples:
        selection: list[int | slice] = [0] * array.ndim
        for axis, span in zip(order, (slice(top, bottom), slice(left, right), slice(None)), strict=True):
            if axis is not None:
                selection[axis] = span
        part: Samples = np.asarray(array[tuple(selection)])
        left_over = sorted(axis for axis in order if axis is not None)
        part = part.transpose([left_over.index(axis) for axis in order if axis is not None])
        return part.astype(dtype.newbyteorder("="), copy=False).reshape(*part.shape[:2], -1)

    height, width = (
        side * max(1, -(-min(_LEAST_SIDE, length) // side))
        for side, length in ((array.chunks[order[0]], rows), (array.chunks[order[1]], columns))
    )
    return Stored(
        size=(rows, columns),
        channels=1 if order[2] is None else array.shape[order[2]],
        dtype=dtype.newbyteorder("="),
        decode=lambda: decode(0, rows, 0, columns),
        tiles=Tiles(
            (height, width),
            lambda row, column: decode(
                row * height, (row + 1) * height, column * width, (column + 1) * width
            ),
        ),
        smaller=tuple((level.shape[order[0]], level.shape[order[1]]) for level in levels[1:]),
    )


def _levels(group: zarr.Group) -> tuple[list[zarr.Array[Any]], list[str]]:
    """Return the arrays of an image's pyramid, finest first, and the names of their axes."""
    attributes: dict[str, Any] = dict(group.attrs)
    attributes = attributes.get("ome", attributes)
    images = attributes.get("multiscales")
    if not images:
        arrays = sorted(name for name, _ in group.arrays())
        raise ImageError(
            f"a Zarr group of the arrays {arrays[:5]} that names no image (no multiscales)",
            "an array, or an OME-Zarr image",
            f"name an array in it, such as {arrays[0]}" if arrays else "name another folder",
        )
    levels: list[Any] = [group[level["path"]] for level in images[0]["datasets"]]
    axes = [axis if isinstance(axis, str) else axis["name"] for axis in images[0].get("axes", "tczyx")]
    return levels, axes


def _axes_of_array(array: zarr.Array[Any]) -> list[str]:
    """Return the names an array gives its axes; else the shorter of the outer axes holds channels."""
    names: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names and all(isinstance(name, str) for name in names):
        return ["c" if name.lower() in _CHANNEL_NAMES else name[:1].lower() for name in names]
    if array.ndim == 2:
        return ["y", "x"]
    if array.ndim == 3 and array.shape[0] != array.shape[2]:
        return ["c", "y", "x"] if array.shape[0] < array.shape[2] else ["y", "x", "c"]
    raise ImageError(
        f"a Zarr array of shape {array.shape} whose axes have no names",
        "rows × columns, with the channels first or last",
        "name the axes (dimension_names) y, x and c",
    )


def _order(axes: list[str], shape: tuple[int, ...]) -> tuple[int, int, int | None]:
    """Return which axes are rows, columns and channels (None without); every other one has length 1."""
    if len(axes) != len(shape) or {"y", "x"} - set(axes) or len(set(axes)) != len(axes):
        raise ImageError(
            f"axes {axes} of an array of shape {shape}", "one y and one x", "name the axes y, x and c"
        )
    for name, length in zip(axes, shape, strict=True):
        if name not in ("y", "x", "c") and length != 1:
            raise ImageError(
                f"{length} planes along axis {name}",
                "a single image",
                "save each plane as an image of its own",
            )
    return axes.index("y"), axes.index("x"), axes.index("c") if "c" in axes else None
