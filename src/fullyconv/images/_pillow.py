"""JPEG, BMP, WebP and GIF, read by Pillow's decoders one by one.

The decoders are called directly, not through ``PIL.Image.open``: that guesses among all formats, and its
limit on the size of images is a global of the process and a warning.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from fullyconv.errors import ImageError
from fullyconv.images._stored import Samples, Stored, exif_orientation

_CHANNELS = {"1": 1, "L": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def open_jpeg(file: BinaryIO) -> Stored:
    """Open a JPEG file; of several pictures in one file (MPO) the first is the photograph."""
    return _stored(_Jpeg(file), lossy=True)


def open_bmp(file: BinaryIO) -> Stored:
    """Open a BMP file."""
    return _stored(BmpImageFile(file))


def open_webp(file: BinaryIO) -> Stored:
    """Open a WebP file of one picture."""
    return _stored(WebPImageFile(file), lossy=not _is_lossless_webp(file))


def open_gif(file: BinaryIO) -> Stored:
    """Open a GIF file of one picture."""
    return _stored(GifImageFile(file))


class _Jpeg(JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Do nothing: looking for the resolution warns about damaged EXIF, and nobody asks for it."""


def _stored(image: ImageFile, *, lossy: bool = False) -> Stored:
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise ImageError(
            f"an animation of {frames} frames", "a single picture", "export one frame of it as PNG"
        )
    if image.mode == "CMYK":
        raise ImageError(
            "CMYK ink amounts instead of colours",
            "gray or RGB (how inks become colours depends on a printing profile)",
            "convert it to RGB in an image editor and save it as PNG",
        )
    if image.mode not in _CHANNELS:
        raise ImageError(
            f"samples of the kind {image.mode}", f"one of {', '.join(_CHANNELS)}", "convert it to an RGB PNG"
        )

    def decode() -> Samples:
        samples = np.array(image)
        return samples.astype(np.uint8, copy=False).reshape(*samples.shape[:2], -1)

    return Stored(
        size=(image.height, image.width),
        channels=_CHANNELS[image.mode],
        dtype=np.dtype(np.uint8),
        decode=decode,
        palette=_palette(image),
        bits=1 if image.mode == "1" else 8,
        orientation=exif_orientation(image.info.get("exif", b"")),
        lossy=lossy,
    )


def _palette(image: ImageFile) -> Samples | None:
    if image.mode != "P":
        return None
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    transparent = image.info.get("transparency")
    if transparent is None:
        return palette
    alpha = np.full((len(palette), 1), 255, np.uint8)
    alpha[transparent] = 0
    return np.concatenate([palette, alpha], axis=1)


def _is_lossless_webp(file: BinaryIO) -> bool:
    file.seek(12)
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8L"
        length = int.from_bytes(head[4:], "little")
        file.seek(length + length % 2, 1)
    return False
