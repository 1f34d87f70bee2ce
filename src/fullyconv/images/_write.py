"""Arrays to files, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from fullyconv.errors import ImageError
from fullyconv.images._atomic import atomic_file
from fullyconv.labels import ClassTable, Labels

_IGNORED = (255, 255, 255)


def write_labels(path: str | Path, labels: Labels, table: ClassTable, *, overwrite: bool = False) -> None:
    """Write labels as an index PNG: the numbers are the classes, every viewer shows the table's colours.

    Up to 255 the file is a palette PNG (the ignore index is white); larger tables make 16-bit gray.

    Parameters
    ----------
    path
        Ends in ``.png``; appears whole or not at all (see :func:`atomic_file`).
    labels
        H×W whole numbers: classes of ``table`` or its ignore index.
    table
        The classes.
    overwrite
        Replace an existing file.

    Raises
    ------
    ImageError
        The name does not end in ``.png``, the shape is not H×W, or a label is not in the table.
    InputError
        The file exists, or its folder does not.
    MachineError
        The disk is full.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ImageError(f"{path} for labels", "a name that ends in .png", f"use {path.with_suffix('.png')}")
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "bui":
        raise ImageError(
            f"{path}: labels of shape {labels.shape} and type {labels.dtype}",
            "height × width whole numbers",
            "take the arg-max over the classes first",
        )
    _refuse_unknown(path, labels, table)
    _write(path, encode_labels(labels, table), overwrite=overwrite)


def write_image(path: str | Path, array: NDArray[Any], *, overwrite: bool = False) -> None:
    """Write an image, values as they are, in the format its suffix names.

    Parameters
    ----------
    path
        ``.png`` (uint8 or uint16, 1 to 4 channels), ``.jpg`` or ``.jpeg`` (uint8, 1 or 3 channels, quality
        95), ``.tif`` or ``.tiff`` (any real dtype, any channels). Appears whole or not at all (see
        :func:`atomic_file`).
    array
        H×W×C, or H×W for one channel.
    overwrite
        Replace an existing file.

    Raises
    ------
    ImageError
        The format is unknown, or cannot hold this dtype or number of channels.
    InputError
        The file exists, or its folder does not.
    MachineError
        The disk is full.
    """
    path = Path(path)
    encode = ENCODERS.get(path.suffix.lower())
    if encode is None:
        raise ImageError(f"{path} to write", f"a name that ends in {', '.join(ENCODERS)}", "use .png or .tif")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.size == 0 or array.dtype.kind not in "uif":
        raise ImageError(
            f"{path}: an array of shape {array.shape} and type {array.dtype}",
            "height × width × channels of numbers",
            "pass one image",
        )
    try:
        data = encode(np.ascontiguousarray(array))
    except ImageError as error:
        raise ImageError(f"{path}: {error.given}", error.expected, error.fix) from None
    _write(path, data, overwrite=overwrite)


def _write(path: Path, data: bytes, *, overwrite: bool) -> None:
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)


def _refuse_unknown(path: Path, labels: Labels, table: ClassTable) -> None:
    known = (labels >= 0) & (labels < len(table)) | (labels == table.ignore_index)
    if not known.all():
        row, column = np.argwhere(~known)[0]
        raise ImageError(
            f"{path}: label {labels[row, column]} at row {row}, column {column}",
            f"0 to {len(table) - 1}, or {table.ignore_index} for ignored pixels",
            "check that this class table belongs to these labels",
        )


def encode_labels(labels: Labels, table: ClassTable) -> bytes:
    """Encode labels that are in the table as PNG: with a palette up to 255, else as 16-bit gray."""
    if table.dtype != np.uint8:
        return _encode_png(labels[..., None].astype(np.uint16))
    palette = palette_of(table)
    height, width = labels.shape
    image = Image.frombytes("P", (width, height), labels.astype(np.uint8).tobytes())
    image.putpalette(palette.tobytes())
    buffer = BytesIO()
    image.save(buffer, "PNG", bits=8)
    return buffer.getvalue()


def palette_of(table: ClassTable) -> NDArray[np.uint8]:
    """Return the colour of each class, and white for the ignore index: N×3."""
    palette = np.zeros((max(len(table), table.ignore_index + 1), 3), np.uint8)
    palette[: len(table)] = table.colors
    palette[table.ignore_index] = _IGNORED
    return palette


def _encode_png(array: NDArray[Any]) -> bytes:
    if array.dtype not in (np.uint8, np.uint16) or array.shape[2] > 4:
        raise ImageError(
            f"{array.shape[2]} channel(s) of {array.dtype}",
            "1 to 4 channels of uint8 or uint16 for PNG",
            "use .tif",
        )
    return bytes(imagecodecs.png_encode(array[..., 0] if array.shape[2] == 1 else array))


def _encode_jpeg(array: NDArray[Any]) -> bytes:
    if array.dtype != np.uint8 or array.shape[2] not in (1, 3):
        raise ImageError(
            f"{array.shape[2]} channel(s) of {array.dtype}",
            "1 or 3 channels of uint8 for JPEG",
            "use .png or .tif",
        )
    buffer = BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _encode_tiff(array: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    is_color = array.shape[2] in (3, 4) and array.dtype in (np.uint8, np.uint16)
    tifffile.imwrite(
        buffer,
        array if array.shape[2] > 1 else array[..., 0],
        photometric="rgb" if is_color else "minisblack",
        planarconfig="contig" if array.shape[2] > 1 else None,
        compression="zlib",
        metadata=None,
    )
    return buffer.getvalue()


ENCODERS: dict[str, Callable[[NDArray[Any]], bytes]] = {
    ".png": _encode_png,
    ".jpg": _encode_jpeg,
    ".jpeg": _encode_jpeg,
    ".tif": _encode_tiff,
    ".tiff": _encode_tiff,
}
