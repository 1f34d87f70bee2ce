"""What a page is made of: sections of text, tables, galleries and drawings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fullyconv.explanation.drawing import Picture, Pixels

DRAWN_SCALE = 1.4
"""Pixels of a drawing per pixel of the page, so that it stays sharp on fine screens."""


@dataclass(frozen=True)
class Source:
    """Where an explanation comes from: a paper and its section."""

    text: str
    url: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first cell of a row names it."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Legend:
    """Colours and what they stand for: (colour, name, remark) each."""

    entries: tuple[tuple[tuple[int, int, int], str, str], ...]


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures side by side, of which a row holds ``across`` at most."""

    pictures: tuple[Picture, ...]
    title: str = ""
    across: int = 3


@dataclass(frozen=True)
class Printed:
    """What a function of the library printed, letter by letter."""

    text: str


@dataclass(frozen=True, eq=False)
class Drawn:
    """A drawing in its own size, H×W×3; what is wider than the page is scrolled."""

    pixels: Pixels
    alt: str
    caption: str


Content = str | Table | Legend | Gallery | Printed | Drawn


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the page under its own heading.

    Parameters
    ----------
    title
        The heading.
    content
        Paragraphs (text), tables, galleries and drawings in their order.
    sources
        Where the method is from.
    numbers
        What was measured, as JSON-ready values.
    """

    title: str
    content: tuple[Content, ...]
    sources: tuple[Source, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """The command line that explains another pixel.

    Parameters
    ----------
    text
        With ROW,COLUMN where the pixel's place belongs.
    size
        Of the pictures that can be clicked: those of the explained image.
    origin, scale
        (row, column) of its first pixel, and pixels of the file per one of its.
    """

    text: str
    size: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    scale: float = 1.0
