"""PNG, every bit depth and colour type (W3C PNG specification, third edition, sections 5 and 11)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL.PngImagePlugin import PngImageFile

from fullyconv.errors import ImageError
from fullyconv.images._stored import Samples, Stored, exif_orientation

_PALETTE = 3
_CHANNELS = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}
_READ = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"acTL"}


def open_png(file: BinaryIO) -> Stored:
    """Read the chunks around the pixels."""
    chunks: dict[bytes, bytes] = {}
    for kind, start, length in _chunks(file):
        if kind in _READ:
            file.seek(start)
            chunks.setdefault(kind, file.read(length))
    width, height, bits, color = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    if b"acTL" in chunks and struct.unpack_from(">I", chunks[b"acTL"]) != (1,):
        raise ImageError("an animated PNG", "a single picture", "export one frame of it as PNG")

    channels = _CHANNELS[color]
    palette = None
    transparency = chunks.get(b"tRNS")
    if color == _PALETTE:
        palette = _palette(chunks[b"PLTE"], transparency or b"")
    elif transparency is not None:
        channels += 1  # one colour stands for transparent: libpng makes an alpha channel of it

    def decode() -> Samples:
        file.seek(0)
        data = file.read()
        if palette is not None:
            return _indices(data)
        # Not Pillow: it reduces 16-bit colour to 8 bits, and does not verify the checksums of pixels.
        samples = np.asarray(imagecodecs.png_decode(data)).reshape(height, width, channels)
        if bits < 8:
            samples[..., 0] //= stored.white
        return samples

    stored = Stored(
        size=(height, width),
        channels=channels,
        dtype=np.dtype(np.uint16 if bits == 16 else np.uint8),
        decode=decode,
        palette=palette,
        bits=8 if color == _PALETTE else min(bits, 8),
        orientation=exif_orientation(chunks.get(b"eXIf", b"")),
    )
    return stored


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, first byte and length of every chunk; fail in a file that ends before its last one."""
    start = 8
    kind = b""
    while kind != b"IEND":
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        yield kind, start + 8, length
        start += length + 12


def _palette(colors: bytes, alphas: bytes) -> Samples:
    palette = np.frombuffer(colors, np.uint8).reshape(-1, 3)
    if not alphas.strip(b"\xff"):
        return palette
    alpha = np.full((len(palette), 1), 255, np.uint8)
    alpha[: len(alphas), 0] = np.frombuffer(alphas, np.uint8)[: len(palette)]
    return np.concatenate([palette, alpha], axis=1)


def _indices(data: bytes) -> Samples:
    """Decode the indices themselves, which Pillow gives and libpng's simple interface does not."""
    for kind, start, length in _chunks(BytesIO(data)):
        checksum = data[start + length : start + length + 4]
        if zlib.crc32(memoryview(data)[start - 4 : start + length]) != int.from_bytes(checksum, "big"):
            raise ImageError(
                f"damaged: chunk {kind.decode('latin-1')} does not match its checksum",
                "a whole PNG file",
                "copy or export the file again",
            )
    with PngImageFile(BytesIO(data)) as image:
        return np.array(image)[..., None]
