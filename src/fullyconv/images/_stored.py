"""What every decoder gives: the facts of a file's header, and a way to decode the rest."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ImageError

Samples = NDArray[Any]

MAX_PIXELS = 2**28
"""Most pixels that a file may claim to hold in one piece: 16384×16384, 805 MB as 8-bit RGB."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """The parts of an image that can be decoded alone: tiles, strips or chunks on a grid.

    Parameters
    ----------
    size
        (height, width) of a tile; the last ones of a row or column may be smaller or reach beyond the image.
    decode
        Takes the tile's row and column in the grid; returns height × width × channels, or None where the file
        holds nothing for it. May be called by several threads at once.
    missing
        The value of pixels for which the file holds nothing.
    """

    size: tuple[int, int]
    decode: Callable[[int, int], Samples | None]
    missing: float = 0


@dataclass(frozen=True, eq=False)
class Stored:
    """An image as it lies in its file, not yet decoded.

    Parameters
    ----------
    size
        (height, width) as stored, before ``orientation``.
    channels
        Samples per pixel as stored: 1 where there is a palette.
    dtype
        Type of the samples.
    decode
        Returns height × width × channels; with ``bits`` below 8 the first holds levels of 0 to 2**bits − 1.
    palette
        N×3 or N×4 colours (the fourth is alpha), uint8 or uint16; None where pixels are not indices.
    bits
        Bits per sample where that is 1, 2 or 4 and there is no palette; 8 stands for every whole dtype.
    orientation
        EXIF orientation, 1 to 8.
    lossy
        Whether the compression may have changed values.
    tiles
        What ``decode`` decodes, in parts; None where the file can only be decoded whole.
    smaller
        (height, width) of the smaller copies that a pyramid holds, the largest first.
    is_georeferenced
        Whether the file says where on the ground it lies.
    """

    size: tuple[int, int]
    channels: int
    dtype: np.dtype[Any]
    decode: Callable[[], Samples]
    palette: Samples | None = None
    bits: int = 8
    orientation: int = 1
    lossy: bool = False
    tiles: Tiles | None = None
    smaller: tuple[tuple[int, int], ...] = ()
    is_georeferenced: bool = False

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) after ``orientation``."""
        height, width = self.size
        return (width, height) if self.orientation >= 5 else (height, width)

    @property
    def white(self) -> int:
        """What one level of a 1, 2 or 4-bit gray sample is worth on the scale of 0 to 255."""
        return 255 // ((1 << self.bits) - 1)


def refuse_size(stored: Stored, size: tuple[int, int], max_pixels: int) -> None:
    """Refuse what claims no pixel, or too many to be decoded at once.

    Raises
    ------
    ImageError
        As said; a limit holds for up to 4 channels.
    """
    height, width = size
    claimed = height * width * -(-stored.channels // 4)
    if claimed > max_pixels:
        raise ImageError(
            f"{height}×{width} = {height * width} pixels of {stored.channels} channel(s)",
            f"at most {max_pixels} pixels of up to 4 channels",
            "if you trust the file, save it as a tiled TIFF, which is read in parts, "
            f"or pass max_pixels={claimed} in Python",
        )
    if height * width == 0:
        raise ImageError(f"an image of {height}×{width} pixels", "one pixel or more", "export the file again")


def decode_whole(stored: Stored, max_pixels: int = MAX_PIXELS) -> Samples:
    """Decode all of an image, as stored.

    Raises
    ------
    ImageError
        It is too large, or not what its header says.
    """
    refuse_size(stored, stored.size, max_pixels)
    samples = stored.decode()
    if samples.shape != (*stored.size, stored.channels):
        raise ImageError(
            f"damaged: the header says {(*stored.size, stored.channels)}, the content {samples.shape}",
            "a whole image file",
            "copy or export the file again",
        )
    return samples


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, in an EXIF block; 1 (as stored) where there is none or it is damaged.

    A damaged EXIF block says nothing about the pixels, so it is no reason to refuse the image.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * entry)
            if tag == 0x0112:
                return valid_orientation(value)
    except struct.error:
        pass
    return 1


def valid_orientation(value: object) -> int:
    """Return ``value`` if it is an EXIF orientation, else 1."""
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def turn(samples: Samples, orientation: int) -> Samples:
    """Bring H×W×C samples upright, as EXIF ``orientation`` says; quarter turns swap H and W."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)
