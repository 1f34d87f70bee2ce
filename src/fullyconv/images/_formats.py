"""The formats that can be read: one table, ordered by nothing, chosen by a file's first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from fullyconv.errors import ImageError
from fullyconv.images._pillow import open_bmp, open_gif, open_jpeg, open_webp
from fullyconv.images._png import open_png
from fullyconv.images._stored import Stored
from fullyconv.images._tiff import open_tiff


@dataclass(frozen=True)
class Format:
    """A kind of image file.

    Parameters
    ----------
    name
        What people call it.
    suffixes
        Its usual file names; only used to find images in a folder.
    signature
        A pattern of the first 16 bytes.
    open
        Reads the header from a seekable file at any position.
    """

    name: str
    suffixes: tuple[str, ...]
    signature: bytes
    open: Callable[[BinaryIO], Stored]


def find_format(file: BinaryIO) -> Format:
    """Return the format whose signature the file bears, and leave the file at its start.

    Raises
    ------
    ImageError
        No format does.
    """
    head = file.read(16)
    file.seek(0)
    for candidate in FORMATS:
        if re.match(candidate.signature, head, re.DOTALL):
            return candidate
    raise ImageError(
        f"no image this library reads (first bytes {head!r})" if head else "an empty file",
        f"a {', '.join(each.name for each in FORMATS[:-1])} or {FORMATS[-1].name} file",
        "convert it to PNG or TIFF, or leave it out",
    )


FORMATS = (
    Format("PNG", (".png",), rb"\x89PNG\r\n\x1a\n", open_png),
    Format("JPEG", (".jpg", ".jpeg"), rb"\xff\xd8\xff", open_jpeg),
    Format("TIFF", (".tif", ".tiff", ".svs"), rb"II[*+]\0|MM\0[*+]", open_tiff),
    Format("BMP", (".bmp",), rb"BM", open_bmp),
    Format("WebP", (".webp",), rb"RIFF....WEBP", open_webp),
    Format("GIF", (".gif",), rb"GIF8[79]a", open_gif),
)

IMAGE_SUFFIXES: frozenset[str] = frozenset(suffix for each in FORMATS for suffix in each.suffixes)
