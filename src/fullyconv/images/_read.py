"""Files to arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ImageError
from fullyconv.images._channels import drop_opaque_alpha
from fullyconv.images._open import opened
from fullyconv.images._shown import show, shown_as
from fullyconv.images._stored import MAX_PIXELS, Samples, Stored, decode_whole, turn
from fullyconv.labels import Color, Labels


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image file says: the shape and type that :func:`read_image` returns.

    Parameters
    ----------
    size
        (height, width), upright.
    channels
        After a palette has become colours.
    dtype
        Name of the NumPy type, such as ``"uint8"``.
    format
        ``"PNG"``, ``"JPEG"``, ``"TIFF"``, ``"BMP"``, ``"WebP"``, ``"GIF"`` or ``"Zarr"``: by content,
        whatever the name.
    palette
        Whether the file stores indices of colours.
    """

    size: tuple[int, int]
    channels: int
    dtype: str
    format: str
    palette: bool


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask as its file stores it, before a class table gives it a meaning.

    Parameters
    ----------
    values
        H×W whole numbers as stored (indices in a palette file, 0 and 1 where there is 1 bit), or H×W×3 uint8
        colours.
    palette
        (red, green, blue) of each index, in a palette file; else None.
    lossy
        Whether the file's compression may have changed values, as JPEG does.
    """

    values: Labels
    palette: tuple[Color, ...] | None
    lossy: bool


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Read an image as H×W×C in its own dtype, upright.

    Values are those of the file. A palette becomes RGB (RGBA where it has transparent colours); gray of 1, 2
    or 4 bits, which no dtype holds, becomes 0 to 255 (W3C PNG §13.12); gray whose zero means white is
    inverted. Alpha stays as the last channel: :func:`conform` decides about it.

    Parameters
    ----------
    path
        A PNG, JPEG, TIFF, BMP, WebP or single-frame GIF file, or the folder of a Zarr array or OME-Zarr
        image, told by its content.
    max_pixels
        Refuse files that claim more pixels (of up to 4 channels) before decoding them.

    Returns
    -------
    ndarray
        H×W×C; uint8, uint16, int16, float32, ... as the file has it.

    Raises
    ------
    ImageError
        The file is missing, no image, damaged, cut off, too large, or cannot be read faithfully (CMYK,
        animations, stacks).
    MachineError
        Memory does not suffice.
    """
    with opened(Path(path)) as (_, stored):
        return show(_decode(stored, max_pixels), stored)


def read_mask(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Mask:
    """Read a mask: the numbers or colours its file stores, upright, zero for black.

    Parameters
    ----------
    path
        A file of a format that :func:`read_image` reads.
    max_pixels
        As in :func:`read_image`.

    Returns
    -------
    Mask
        Floating numbers that are all whole become int64; fully opaque alpha is dropped.

    Raises
    ------
    ImageError
        As :func:`read_image`; or pixels are transparent, fractions, or neither numbers nor 8-bit RGB.
    MachineError
        Memory does not suffice.
    """
    with opened(Path(path)) as (_, stored):
        samples = _decode(stored, max_pixels)
        if stored.palette is not None:
            return Mask(samples[..., 0], _colors(stored.palette), stored.lossy)
        if samples.shape[2] in (2, 4):
            samples = drop_opaque_alpha(samples)
        if samples.shape[2] == 1:
            return Mask(_whole_numbers(samples[..., 0]), None, stored.lossy)
        if samples.shape[2] == 3 and samples.dtype == np.uint8:
            return Mask(samples, None, stored.lossy)
        raise ImageError(
            f"{samples.shape[2]} channels of {samples.dtype}",
            "a mask of one channel of class numbers, or of 8-bit RGB colours",
            "save the mask as a gray or palette PNG",
        )


def probe(path: str | Path) -> ImageInfo:
    """Read only the header of an image file.

    Raises
    ------
    ImageError
        As :func:`read_image`, except for damage among the pixels and for size.
    """
    with opened(Path(path)) as (kind, stored):
        channels, dtype = shown_as(stored)
        return ImageInfo(stored.upright, channels, dtype.name, kind, stored.palette is not None)


def _decode(stored: Stored, max_pixels: int) -> Samples:
    return turn(decode_whole(stored, max_pixels), stored.orientation)


def _colors(palette: Samples) -> tuple[Color, ...]:
    eight_bit = palette >> 8 if palette.dtype == np.uint16 else palette
    return tuple((int(red), int(green), int(blue)) for red, green, blue in eight_bit[:, :3])


def _whole_numbers(values: Samples) -> Labels:
    if values.dtype.kind != "f":
        return values
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        row, column = np.argwhere(whole != values)[0]
        raise ImageError(
            f"the value {values[row, column]} at row {row}, column {column}",
            "whole numbers in a mask",
            "save class numbers, not probabilities",
        )
    return whole
