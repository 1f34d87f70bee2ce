"""Where the pixels of an image or mask come from: a file, or a part of a file that holds more."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from fullyconv.errors import ImageError
from fullyconv.images import Mask, read_image, read_mask


class Part(Protocol):
    """A part of a file: a page of a stack, a row of a table, the shapes drawn on one image.

    An implementation is a frozen dataclass of plain values, so that datasets compare and travel to other
    processes, and reads nothing until asked.
    """

    @property
    def path(self) -> Path:
        """The file, for people to look at."""

    @property
    def place(self) -> str:
        """Which part of it, such as ``"page 3"``."""

    def digest(self) -> str:
        """Return hexadecimal digits that change with the content, wherever the file lies."""


class ImagePart(Part, Protocol):
    """A part of a file that is an image."""

    def read_image(self) -> NDArray[Any]:
        """Return H×W×C in the dtype stored, as `fullyconv.images.read_image` does."""


class MaskPart(Part, Protocol):
    """A part of a file that is a mask."""

    def read_mask(self) -> Mask:
        """Return numbers or colours, as `fullyconv.images.read_mask` does."""


ImageSource = Path | ImagePart
MaskSource = Path | MaskPart
Source = Path | Part


def load_image(source: ImageSource) -> NDArray[Any]:
    """Read an image from wherever it is, H×W×C in the dtype stored."""
    return read_image(source) if isinstance(source, Path) else source.read_image()


def load_mask(source: MaskSource) -> Mask:
    """Read a mask from wherever it is."""
    return read_mask(source) if isinstance(source, Path) else source.read_mask()


def name_below(root: Path, source: Source) -> str:
    """Return how messages name a source: ``images/a.png`` or ``stack.tif, page 3``."""
    path = source if isinstance(source, Path) else source.path
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    return printable(name if isinstance(source, Path) else f"{name}, {source.place}")


def printable(name: str) -> str:
    """Spell out what a name must not do to a terminal, a page or a line: controls, bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def digest_of(source: Source) -> str:
    """Return hexadecimal digits that change with the source's content and not with its place."""
    if not isinstance(source, Path):
        return source.digest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_values(*values: object) -> str:
    """Return hexadecimal digits of plain values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()


@contextmanager
def as_file(name: str, content: bytes) -> Iterator[Path]:
    """Give the bytes of an image file a place on the disk, and faults its name."""
    with tempfile.NamedTemporaryFile(prefix="fullyconv-") as file:
        file.write(content)
        file.flush()
        try:
            yield Path(file.name)
        except ImageError as error:
            given = error.given.removeprefix(file.name).lstrip(": ")
            raise ImageError(f"{name}: {given}", error.expected, error.fix) from error
