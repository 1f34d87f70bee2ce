"""TIFF and BigTIFF, any sample type and number of channels (Adobe TIFF 6.0)."""

from __future__ import annotations

import logging
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from fullyconv.errors import ImageError
from fullyconv.images._stored import Samples, Stored, Tiles, valid_orientation
from fullyconv.images._tiff_tiles import JPEG, JPEG_2000, refuse_what_cannot_be_decoded, tile_decoder

# tifffile reports oddities of a file to its logger, which prints them where nobody has set up logging.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_LOSSLESS = {
    COMPRESSION.NONE,
    COMPRESSION.LZW,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.DEFLATE,
    COMPRESSION.PACKBITS,
    COMPRESSION.LZMA,
    COMPRESSION.ZSTD,
    COMPRESSION.CCITTRLE,
    COMPRESSION.CCITTFAX3,
    COMPRESSION.CCITTFAX4,
}
_LOSSY = JPEG | JPEG_2000
_GEOREFERENCE = {
    33550,
    33922,
    34264,
    34735,
}  # pixel scale, tie points, transformation, keys (OGC 19-008r4, 7)
_MOST_LEVELS = 32
_AS_STORED = {PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE}


def open_tiff(file: BinaryIO) -> Stored:
    """Read the directories of the only image: one page, or in OME-TIFF one page per channel."""
    tiff = tifffile.TiffFile(file)
    pages, smaller = _pages(tiff)
    page = pages[0]
    samples = int(page.samplesperpixel)
    bits = int(page.bitspersample)
    is_negative = page.photometric == PHOTOMETRIC.MINISWHITE
    for each in pages:
        _refuse_what_cannot_be_faithful(each, samples, bits)
    dtype = np.dtype(np.uint8) if bits == 1 else np.dtype(page.dtype).newbyteorder("=")
    size = (int(page.imagelength), int(page.imagewidth))

    def upright_zero(values: Samples) -> Samples:
        values = values.astype(dtype, copy=False)
        return 2**bits - 1 - values if is_negative else values

    def decode() -> Samples:
        planes = []
        for each in pages:
            refuse_what_cannot_be_decoded(each, file)
            plane = np.asarray(each.asarray())
            if plane.ndim == 3 and each.axes == "SYX":
                plane = np.moveaxis(plane, 0, -1)
            planes.append(plane.reshape(*size, samples))
        return upright_zero(planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2))

    grid, decode_tile = tile_decoder(pages, file)

    def decode_upright(row: int, column: int) -> Samples | None:
        tile = decode_tile(row, column)
        return None if tile is None else upright_zero(tile)

    tag = page.tags.get("Orientation")
    palette = _palette(page.colormap) if page.photometric == PHOTOMETRIC.PALETTE else None
    return Stored(
        size=size,
        channels=samples * len(pages),
        dtype=dtype,
        decode=decode,
        palette=palette,
        bits=bits if palette is None and bits in (1, 2, 4) else 8,
        orientation=valid_orientation(tag.value if tag is not None else 1),
        lossy=page.compression in _LOSSY,
        tiles=Tiles(grid, decode_upright, 2**bits - 1 if is_negative else page.nodata),
        smaller=tuple((int(copy.imagelength), int(copy.imagewidth)) for copy in smaller),
        is_georeferenced=bool(_GEOREFERENCE & set(page.tags.keys())),
    )


def _pages(tiff: Any) -> tuple[list[Any], list[Any]]:
    """Return the page of the image, or the pages of its channels; and its smaller copies."""
    if tiff.is_ome or tiff.is_svs or (tiff.is_imagej and set(tiff.series[0].axes) == {"C", "Y", "X"}):
        return _described_pages(tiff)
    full_size = list(islice((page for page in tiff.pages if not page.is_reduced), 2))
    # ImageJ may describe one page only and let the pixels of the others follow.
    stacked = (tiff.imagej_metadata or {}).get("images", 1) if tiff.is_imagej else 1
    if len(full_size) > 1 or stacked > 1:
        raise _a_stack(max(len(tiff.pages), stacked))
    page = full_size[0] if full_size else tiff.pages.first
    copies = [*islice(page.pages or (), _MOST_LEVELS), *islice(tiff.pages, 1, _MOST_LEVELS)]
    return [page], [copy for copy in copies if copy.is_reduced]


def _described_pages(tiff: Any) -> tuple[list[Any], list[Any]]:
    """Return what OME, Aperio or ImageJ describe as the first image, as `_pages` does."""
    image = tiff.series[0]
    planes = {axis: length for axis, length in zip(image.axes, image.shape, strict=True) if axis not in "YXS"}
    another = len(tiff.series) > 1 and tiff.series[1].shape == image.shape
    if another or any(length > 1 for axis, length in planes.items() if axis != "C"):
        raise _a_stack(sum(len(each.pages) for each in tiff.series))
    pages: list[Any] = [page and page.aspage() for page in image.pages]
    here = [page for page in pages if page is not None and page.parent is tiff]
    if len(here) < len(pages) or len(pages) != planes.get("C", 1):
        described = dict(zip(image.axes, image.shape, strict=True))
        raise ImageError(
            f"{len(here)} page(s) in the file for axes {described}",
            "a page in this file for each channel",
            "export it as one file",
        )
    return pages, [level.pages[0] for level in image.levels[1:]]


def _a_stack(pages: int) -> ImageError:
    return ImageError(
        f"a TIFF stack of {pages} pages",
        "a single image (channels are fine, in one page, in OME-TIFF or from ImageJ)",
        "save each page as a file of its own",
    )


def _refuse_what_cannot_be_faithful(page: Any, channels: int, bits: int) -> None:
    dtype = None if page.dtype is None else np.dtype(page.dtype)
    if page.imagedepth != 1:
        raise ImageError(
            f"a volume of {page.imagedepth} planes", "a single image", "save each plane as a file"
        )
    if dtype is None or dtype.kind not in "buif":
        raise ImageError(
            f"samples of type {dtype or page.sampleformat}",
            "whole or floating numbers",
            "convert it to 8 or 16 bits",
        )
    if page.compression not in _LOSSLESS | _LOSSY:
        # Other codecs have headers of their own, and nothing holds their claims of size against the page's.
        raise ImageError(
            f"a TIFF compressed by {getattr(page.compression, 'name', page.compression)}",
            f"one of {', '.join(sorted(each.name for each in _LOSSLESS | _LOSSY))}",
            "save it with Deflate or LZW compression",
        )
    is_jpeg_color = page.photometric == PHOTOMETRIC.YCBCR and page.compression in JPEG
    if page.photometric not in _AS_STORED and not is_jpeg_color:
        raise ImageError(
            f"a TIFF of the colour space {getattr(page.photometric, 'name', page.photometric)}",
            "gray, RGB, a palette, or channels",
            "convert it to RGB and save it as PNG or TIFF",
        )
    if (bits < 8 or page.photometric == PHOTOMETRIC.PALETTE) and channels > 1:
        raise ImageError(f"{channels} channels of {bits} bits", "8 bits or more", "convert it to 8 bits")
    if page.photometric == PHOTOMETRIC.MINISWHITE and (dtype.kind not in "bu" or channels > 1):
        raise ImageError(
            f"{channels} channel(s) of {dtype} whose zero means white",
            "gray whose zero is black",
            "invert and save it",
        )


def _palette(colormap: Samples) -> Samples:
    """Return N×3 colours: uint8 where the 16-bit map of the file holds no more than that."""
    palette = np.asarray(colormap).T.astype(np.uint16)
    high, low = palette >> 8, palette & 255
    if ((low == 0) | (low == high)).all():
        return high.astype(np.uint8)
    return palette
