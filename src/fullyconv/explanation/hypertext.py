"""A page as HTML: one file, serialised from a tree, which loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from xml.etree import ElementTree as ET

from PIL import Image

from fullyconv import __version__
from fullyconv.explanation.document import (
    DRAWN_SCALE,
    Command,
    Content,
    Drawn,
    Gallery,
    Legend,
    Printed,
    Section,
    Source,
    Table,
)
from fullyconv.explanation.drawing import Box, Layer, Picture, Pixels, Point, Scale, reduced


def write_page(title: str, lead: Sequence[Content], sections: Sequence[Section], command: Command) -> str:
    """Return the page.

    Parameters
    ----------
    title
        The heading of all.
    lead
        What stands before the first section.
    sections
        In their order.
    command
        How to explain another pixel.

    Returns
    -------
    str
        HTML. Every text in it is escaped, since all of it is serialised from a tree.
    """
    return _Page(title, command).write(lead, sections)


class _Page:
    """A page in the making; each distinct layer is embedded once, however often it is drawn."""

    def __init__(self, title: str, command: Command) -> None:
        self.title, self.command = title, command
        self.defined: dict[str, ET.Element] = {}

    def write(self, lead: Sequence[Content], sections: Sequence[Section]) -> str:
        main = _element("main", id="content")
        opening = _add(main, "header")
        _add(opening, "h1", self.title)
        self._fill(opening, lead)
        contents = _add(_add(opening, "nav", aria_label="Contents"), "ol")
        for number, section in enumerate(sections, 1):
            _add(_add(contents, "li"), "a", section.title, href=f"#part{number}")
        _add_command(opening, self.command)
        for number, section in enumerate(sections, 1):
            part = _add(main, "section", aria_labelledby=f"part{number}")
            _add(part, "h2", f"{number}. {section.title}", id=f"part{number}")
            self._fill(part, section.content)
            _add_sources(part, section.sources)
        _add(main, "footer", f"Made by fullyconv {__version__}. This page loads nothing from anywhere.")
        return "<!doctype html>\n" + ET.tostring(self._document(main), encoding="unicode", method="html")

    def _document(self, main: ET.Element) -> ET.Element:
        style, script = (_asset(name) for name in ("page.css", "page.js"))
        document = _element("html", lang="en")
        head = _add(document, "head")
        _add(head, "meta", charset="utf-8")
        _add(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
        policy = (
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {_digest(script)}; "
            "base-uri 'none'; form-action 'none'"
        )
        _add(head, "meta", http_equiv="Content-Security-Policy", content=policy)
        _add(head, "title", self.title)
        _add(head, "style", style)
        body = _add(document, "body")
        _add(body, "a", "Skip to the content", href="#content", class_="skip")
        shared = _add(body, "svg", width="0", height="0", aria_hidden="true", class_="shared")
        shared.extend(self.defined.values())
        body.append(main)
        _add(body, "script", script)
        return document

    def _fill(self, parent: ET.Element, content: Sequence[Content]) -> None:
        for piece in content:
            if isinstance(piece, str):
                _add(parent, "p", piece)
            elif isinstance(piece, Table):
                _add_table(parent, piece)
            elif isinstance(piece, Legend):
                _add_legend(parent, piece)
            elif isinstance(piece, Printed):
                _add(parent, "pre", piece.text, tabindex="0", aria_label="printed by the library")
            elif isinstance(piece, Drawn):
                _add_drawing(parent, piece)
            else:
                self._add_gallery(parent, piece)

    def _add_gallery(self, parent: ET.Element, gallery: Gallery) -> None:
        if gallery.title:
            _add(parent, "h3", gallery.title)
        row = _add(parent, "div", class_=f"gallery across{gallery.across}")
        for picture in gallery.pictures:
            figure = _add(row, "figure")
            _add(figure, "div", picture.title, class_="name")
            self._add_picture(figure, picture)
            if picture.scale:
                _add_scale(figure, picture.scale)
            _add(figure, "figcaption", picture.caption)

    def _add_picture(self, parent: ET.Element, picture: Picture) -> None:
        height, width = picture.size
        drawing = _add(
            parent,
            "svg",
            viewBox=f"0 0 {width} {height}",
            role="img",
            aria_label=picture.alt,
            class_="picture place" if picture.size == self.command.size else "picture",
        )
        for layer in picture.layers:
            high, wide = layer.extent or (height, width)
            used = {"opacity": f"{layer.opacity:g}"} if layer.opacity < 1 else {}
            _add(drawing, "use", href=f"#{self._define(layer, high, wide)}", **used)
        for mark in picture.marks:
            _add_mark(drawing, mark, max(picture.size))

    def _define(self, layer: Layer, height: float, width: float) -> str:
        """Embed a layer, unless it is already, and return its name."""
        data = _encode(layer)
        name = "i" + hashlib.sha256(f"{height}×{width}".encode() + data).hexdigest()[:16]
        if name not in self.defined:
            look = "blocks" if layer.blocks else "smooth"
            self.defined[name] = _element(
                "image",
                id=name,
                href=_data_url(data),
                width=f"{width:g}",
                height=f"{height:g}",
                preserveAspectRatio="none",
                class_=look,
            )
        return name


def _encode(layer: Layer) -> bytes:
    """Return a layer as WebP: blocks to the last bit, all else as photographs."""
    return _webp(layer.pixels if layer.blocks else reduced(layer.pixels), lossless=layer.blocks)


def _webp(pixels: Pixels, *, lossless: bool) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", lossless=lossless, quality=80, method=4)
    return buffer.getvalue()


def _data_url(data: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _add_mark(drawing: ET.Element, mark: Point | Box, longest: int) -> None:
    """Draw a mark twice, dark and wide beneath light and thin, so that it shows on any ground."""
    for look in ("under", "over"):
        if isinstance(mark, Point):
            at = {"cx": f"{mark.column + 0.5}", "cy": f"{mark.row + 0.5}"}
            _add(drawing, "circle", **at, r=f"{0.018 * longest:.2f}", class_=look)
        else:
            (top, bottom), (left, right) = mark.rows, mark.columns
            _add(
                drawing,
                "rect",
                x=f"{left}",
                y=f"{top}",
                width=f"{right - left}",
                height=f"{bottom - top}",
                class_=f"{look} dashed" if mark.dashed else look,
            )


def _add_scale(parent: ET.Element, scale: Scale) -> None:
    bar = _add(parent, "div", class_="scale")
    _add(bar, "span", scale.low)
    colors = ", ".join(scale.colors.anchors)
    _add(
        bar,
        "span",
        class_="bar",
        style=f"background: linear-gradient(to right, {colors})",
        aria_hidden="true",
    )
    _add(bar, "span", scale.high)


def _add_legend(parent: ET.Element, legend: Legend) -> None:
    entries = _add(parent, "ul", class_="legend")
    for color, name, remark in legend.entries:
        entry = _add(entries, "li")
        swatch = _add(entry, "span", class_="swatch", style=f"background: rgb{color}", aria_hidden="true")
        swatch.tail = f"{name} "
        _add(entry, "span", remark, class_="remark")


def _add_table(parent: ET.Element, table: Table) -> None:
    frame = _add(parent, "div", class_="wide", tabindex="0", role="region", aria_label=table.caption)
    grid = _add(frame, "table")
    _add(grid, "caption", table.caption)
    head = _add(_add(grid, "thead"), "tr")
    for name in table.head:
        _add(head, "th", name, scope="col")
    body = _add(grid, "tbody")
    for cells in table.rows:
        row = _add(body, "tr")
        _add(row, "th", cells[0], scope="row")
        for cell in cells[1:]:
            _add(row, "td", cell)


def _add_drawing(parent: ET.Element, drawn: Drawn) -> None:
    figure = _add(parent, "figure")
    frame = _add(figure, "div", class_="wide", tabindex="0", role="region", aria_label="drawing, to scroll")
    height, width = drawn.pixels.shape[:2]
    sides = {"width": f"{round(width / DRAWN_SCALE)}", "height": f"{round(height / DRAWN_SCALE)}"}
    _add(frame, "img", src=_data_url(_webp(drawn.pixels, lossless=True)), alt=drawn.alt, **sides)
    _add(figure, "figcaption", drawn.caption)


def _add_sources(parent: ET.Element, sources: Sequence[Source]) -> None:
    line = _add(parent, "p", "Source: " if len(sources) == 1 else "Sources: ", class_="source")
    for place, source in enumerate(sources):
        link = _add(line, "a", source.text, href=source.url, rel="noreferrer")
        link.tail = "; " if place + 1 < len(sources) else "."


def _add_command(parent: ET.Element, command: Command) -> None:
    box = _add(parent, "div", class_="command")
    _add(box, "p", "To explain another pixel, click it in a picture, or type its place in:")
    form = _add(box, "p")
    for name in ("row", "column"):
        label = _add(form, "label", f"{name} ")
        _add(label, "input", type="number", min="0", id=name, inputmode="numeric")
        label.tail = " "
    top, left = command.origin
    _add(
        box,
        "pre",
        command.text,
        id="command",
        tabindex="0",
        aria_live="polite",
        data_command=command.text,
        data_top=f"{top}",
        data_left=f"{left}",
        data_scale=f"{command.scale:.6g}",
    )


def _element(tag: str, text: str = "", **attributes: str) -> ET.Element:
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    element = ET.Element(tag, named)
    element.text = text
    return element


def _add(parent: ET.Element, tag: str, text: str = "", **attributes: str) -> ET.Element:
    element = _element(tag, text, **attributes)
    parent.append(element)
    return element


def _asset(name: str) -> str:
    return (files("fullyconv.explanation") / name).read_text("utf-8")


def _digest(script: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
