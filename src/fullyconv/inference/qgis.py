"""How QGIS 3 shows masks and outlines: style files beside them, which it opens with them."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from fullyconv.images import atomic_file
from fullyconv.labels import ClassTable

_CLASS = "map_get(\"classification\", 'name')"  # an expression of QGIS, for what polygons say of themselves


def write_mask_style(path: Path, classes: ClassTable) -> None:
    """Write names and colours of the classes, and replace a style that is there.

    Without it QGIS lists 256 colours of the palette by number. Class 0 is the background and transparent, as
    in overlays.
    """
    root = Element("qgis", version="3.22")
    pipe = SubElement(root, "pipe")
    renderer = SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1")
    palette = SubElement(renderer, "colorPalette")
    for label, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        entry = SubElement(palette, "paletteEntry", value=str(label), label=name)
        entry.set("color", "#{:02x}{:02x}{:02x}".format(*color))
        entry.set("alpha", "255" if label else "0")
    _write(path, root)


def write_outline_style(path: Path, classes: ClassTable) -> None:
    """Write that polygons are filled by class, lightly, and replace a style that is there."""
    root = Element("qgis", version="3.22")
    renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr=_CLASS)
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for label, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        if label == 0:  # which has no outlines
            continue
        SubElement(categories, "category", value=name, label=name, symbol=name, render="true", type="string")
        symbol = SubElement(symbols, "symbol", type="fill", name=name)
        options = SubElement(SubElement(symbol, "layer", {"class": "SimpleFill"}), "Option", type="Map")
        plain = ",".join(map(str, color))
        for key, value in (("color", f"{plain},64"), ("outline_color", f"{plain},255")):
            SubElement(options, "Option", name=key, value=value, type="QString")
    _write(path, root)


def _write(path: Path, root: Element) -> None:
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_bytes(tostring(root, "utf-8"))
