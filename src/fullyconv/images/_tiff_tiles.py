"""Tiles and strips of TIFF files, one at a time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from io import SEEK_CUR, SEEK_END, BytesIO
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from tifffile import COMPRESSION

from fullyconv.errors import ImageError
from fullyconv.images._stored import Samples

JPEG = {COMPRESSION.JPEG, COMPRESSION.JPEG_LOSSY}
JPEG_2000 = {COMPRESSION.JPEG2000, COMPRESSION.APERIO_JP2000_RGB}

_JPEG_FRAMES = {0xFFC0, 0xFFC1, 0xFFC2, 0xFFC3}
_JPEG_2000_START = b"\xff\x4f\xff\x51"  # markers SOC and SIZ (ITU-T T.800, annex A)
_LARGEST_TILE = 2**22  # pixels; only matters where the image is smaller
_LINES, _COLUMNS = 256, 1024  # of pixels that lie in one piece, so many are read at once
_PIECE_BYTES = 2**22  # and all columns where that is not more

Decoder = Callable[[int, int], Samples | None]
Reader = Callable[[int, int], bytes]


def tile_decoder(pages: list[Any], file: BinaryIO) -> tuple[tuple[int, int], Decoder]:
    """Return (height, width) of tiles, and what decodes the tile at a row and column, channels of all pages.

    Raises
    ------
    ImageError
        Tiles are missing in the directory, too large, or of another size on another page.
    """
    read = _reader(file)
    parts = [_lines(page, read) if _is_one_piece(page) else _segments(page, read) for page in pages]
    sizes = {size for size, _ in parts}
    if len(sizes) > 1:
        raise ImageError(
            f"channels in tiles of {sorted(sizes)}", "tiles of one size", "export the file again"
        )

    def decode(row: int, column: int) -> Samples | None:
        return _stack([decode(row, column) for _, decode in parts], pages[0].nodata)

    return sizes.pop(), decode


def refuse_what_cannot_be_decoded(page: Any, file: BinaryIO) -> None:
    """Fail where decoders would not: on pixels behind the end of the file, and on tiles out of reason."""
    length = file.seek(0, SEEK_END)
    end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
    if end > length:
        raise _cut_off(length, end)
    _refuse_size(page, page.tilelength * page.tilewidth * page.tiledepth)
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count and page.compression in JPEG | JPEG_2000:
            file.seek(start)
            _refuse_claims(page, file)


def _reader(file: BinaryIO) -> Reader:
    """Return what reads from a place in the file, in any thread."""
    lock = Lock()
    end = file.seek(0, SEEK_END)

    def read(start: int, count: int) -> bytes:
        if start + count > end:
            raise _cut_off(end, start + count)
        with lock:
            file.seek(start)
            return file.read(count)

    return read


def _is_one_piece(page: Any) -> bool:
    return bool(page.is_contiguous and page.dataoffsets[0])


def _lines(page: Any, read: Reader) -> tuple[tuple[int, int], Decoder]:
    """Decode lines that follow each other in the file, or parts of long ones, whatever strips are listed."""
    height, width = page.imagelength, page.imagewidth
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    planes, samples = (page.samplesperpixel, 1) if page.planarconfig == 2 else (1, page.samplesperpixel)
    pixel = samples * dtype.itemsize
    down = min(height, _LINES)
    across = width if down * width * pixel <= _PIECE_BYTES else min(width, _COLUMNS)

    def decode(row: int, column: int) -> Samples | None:
        top, left = row * down, column * across
        rows, columns = min(down, height - top), min(across, width - left)
        found = []
        for plane in range(planes):
            start = page.dataoffsets[0] + ((plane * height + top) * width + left) * pixel
            if columns == width:
                data = read(start, rows * width * pixel)
            else:
                data = b"".join(read(start + y * width * pixel, columns * pixel) for y in range(rows))
            found.append(np.frombuffer(data, dtype).reshape(rows, columns, samples))
        return _stack(found, page.nodata)

    return (down, across), decode


def _segments(page: Any, read: Reader) -> tuple[tuple[int, int], Decoder]:
    """Decode tiles or strips as the directory lists them."""
    height, width = (
        (page.tilelength, page.tilewidth)
        if page.is_tiled
        else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
    )
    _refuse_size(page, height * width)
    down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    listed = min(len(page.dataoffsets), len(page.databytecounts))
    if listed < planes * down * across:
        raise _cut_off(listed, planes * down * across, "tiles")
    tables, header = page.jpegtables, page.jpegheader

    def decode_one(index: int) -> Samples | None:
        start, count = page.dataoffsets[index], page.databytecounts[index]
        if not (start and count):
            return None
        data = read(start, count)
        if page.compression in JPEG | JPEG_2000:
            _refuse_claims(page, BytesIO(data))
        decoded: Samples = page.decode(data, index, jpegtables=tables, jpegheader=header)[0]
        tile: Samples = decoded[0]
        return tile

    def decode(row: int, column: int) -> Samples | None:
        indices = ((plane * down + row) * across + column for plane in range(planes))
        return _stack([decode_one(index) for index in indices], page.nodata)

    return (height, width), decode


def _stack(planes: Sequence[Samples | None], nodata: float) -> Samples | None:
    """Join channels; planes that the file leaves out hold ``nodata``, unless it leaves out all."""
    known = [plane for plane in planes if plane is not None]
    if len(planes) == 1 or not known:
        return planes[0]
    empty = np.full(known[0].shape, nodata, known[0].dtype)
    return np.concatenate([empty if plane is None else plane for plane in planes], axis=2)


def _refuse_size(page: Any, pixels: int) -> None:
    size = page.imagelength, page.imagewidth
    if pixels > max(size[0] * size[1], _LARGEST_TILE):
        raise ImageError(
            f"tiles of {pixels} pixels in an image of {size[0]}×{size[1]}",
            "tiles no larger than the image",
            "export the file again",
        )


def _refuse_claims(page: Any, file: BinaryIO) -> None:
    """Hold what the header of a JPEG or JPEG 2000 stream says against what its page says."""
    if page.compression in JPEG:
        _refuse_size(page, _jpeg_pixels(file))
        return
    pixels, bits = _jpeg_2000_claims(file)
    _refuse_size(page, pixels)
    if bits != page.bitspersample:  # the decoder would give numbers that do not fit
        raise ImageError(
            f"damaged: a stream of {bits} bits on a page of {page.bitspersample}",
            "a whole TIFF file",
            "copy or export the file again",
        )


def _jpeg_pixels(file: BinaryIO) -> int:
    """Read the frame header (ITU-T T.81, section B.2.2)."""
    file.seek(2, SEEK_CUR)
    marker, length = struct.unpack(">HH", file.read(4))
    while marker not in _JPEG_FRAMES:
        file.seek(length - 2, SEEK_CUR)
        marker, length = struct.unpack(">HH", file.read(4))
    _, height, width = struct.unpack(">BHH", file.read(5))
    return int(height * width)


def _jpeg_2000_claims(file: BinaryIO) -> tuple[int, int]:
    """Return pixels and bits per sample (ITU-T T.800, section A.5.1); boxes of a JP2 file may come before."""
    data = file.read(4096)
    start = data.index(_JPEG_2000_START) + 4
    _, _, width, height = struct.unpack_from(">HHII", data, start)
    return width * height, (data[start + 38] & 127) + 1


def _cut_off(have: int, needed: int, what: str = "bytes") -> ImageError:
    return ImageError(
        f"cut off: {have} {what} of {needed}", "a whole TIFF file", "copy or export the file again"
    )
