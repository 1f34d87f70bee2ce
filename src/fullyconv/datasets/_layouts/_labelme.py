"""Labelme: a JSON file for each image, with the shapes drawn on it and perhaps the image itself."""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fullyconv.datasets._layouts._drawing import Shape, flat_ring, make_drawing
from fullyconv.datasets._layouts._json import json_files, read_json, size_in
from fullyconv.datasets._layouts._layout import ImageIndex, Layout, name_classes, split_of
from fullyconv.datasets._samples import Sample, counted, problem
from fullyconv.datasets._sources import as_file, digest_of_values
from fullyconv.errors import ImageError
from fullyconv.images import probe, read_image

_BACKGROUND = "_background_"
_IGNORED = "__ignore__"


@dataclass(frozen=True)
class EmbeddedImage:
    """The image within an annotation file, in base 64 under ``imageData``."""

    path: Path
    place: str = "imageData"

    def read_image(self) -> NDArray[Any]:
        """Decode it.

        Raises
        ------
        ImageError
            It is no base 64, or no image.
        """
        with as_file(str(self.path), self._content()) as path:
            return read_image(path)

    def digest(self) -> str:
        """Return digits of the image file."""
        return digest_of_values(self._content())

    def size(self) -> tuple[int, int]:
        """Return (height, width)."""
        with as_file(str(self.path), self._content()) as path:
            return probe(path).size

    def _content(self) -> bytes:
        content = read_json(self.path)
        try:
            return base64.b64decode(content["imageData"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ImageError(
                f"{self.path}: imageData is no base 64", "an image in base 64", "save it again in Labelme"
            ) from error


def find_labelme(root: Path) -> Layout | None:
    """``a.json`` beside ``a.jpg``, or anywhere below."""
    contents = {path: content for path in json_files(root) if is_labelme(content := read_json(path))}
    if not contents:
        return None
    names = _names(root, contents)
    classes = name_classes(str(root), names)
    ignored = classes.classes.ignore_index
    values = {name: k for k, name in enumerate(names)} | {_IGNORED: ignored}
    index = ImageIndex(root)
    samples, problems = [], []
    left_out: Counter[str] = Counter()
    for path, content in contents.items():
        where = path.relative_to(root).as_posix()
        image = _image(path, content, index)
        if image is None:
            what = f"its image {content['imagePath']!r} is not below {root.name}/, and it holds no imageData"
            problems.append(problem(where, what, "add the image, or save the file with its image in Labelme"))
            continue
        shapes: list[Shape] = []
        numbers: dict[Any, int] = {}
        for k, entry in enumerate(content["shapes"]):
            kind = entry.get("shape_type") or "polygon"
            label = str(entry.get("label"))
            if kind not in SHAPE_TYPES:
                left_out[kind] += 1
                continue
            try:
                drawn = SHAPE_TYPES[kind](entry)
            except (KeyError, TypeError, ValueError, IndexError):
                drawn = None
            if drawn is None or label not in values:
                what = f"shape {k + 1} ({kind}, {label!r}) has no area" if label in values else (
                    f"shape {k + 1} is {label!r}, which labels.txt does not list")  # fmt: skip
                problems.append(problem(where, what, "correct it in Labelme"))
                continue
            group = entry.get("group_id")
            number = numbers.setdefault((label, k if group is None else f"group {group}"), len(numbers) + 1)
            is_object = values[label] not in (0, ignored)
            shapes.append((*drawn, values[label], number if is_object else 0))
        size = size_in(content, "imageHeight", "imageWidth") or (
            probe(image).size if isinstance(image, Path) else image.size()
        )
        name = path.relative_to(root).with_suffix("")
        split = next((found for part in name.parts[:-1] if (found := split_of(part))), None)
        drawing = make_drawing(path, "shapes", size, shapes, largest_first=False, ignored=ignored)
        samples.append(Sample(name.as_posix(), image, drawing, split, drawing.objects))
    notes = [
        f"{counted(number, 'shape')} of the kind {kind} left out: no area"
        for kind, number in sorted(left_out.items())
    ]
    return Layout(
        f"Labelme annotations with {counted(len(samples), 'image')}",
        tuple(samples),
        tuple(problems),
        ("masks: later shapes cover earlier ones, as in Labelme", *notes),
        classes,
    )


def is_labelme(content: Any) -> bool:
    """Whether JSON holds the shapes of one image."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("shapes"), list)
        and isinstance(content.get("imagePath"), str)
        and all(isinstance(entry, dict) for entry in content["shapes"])
    )


def _names(root: Path, contents: Mapping[Path, Any]) -> list[str]:
    """Return the classes: those of ``labels.txt`` in their order, else all labels by the alphabet."""
    listed = root / "labels.txt"
    if listed.is_file():
        names = [line.strip() for line in listed.read_text("utf-8-sig", errors="replace").splitlines()]
    else:
        names = sorted({str(entry.get("label")) for each in contents.values() for entry in each["shapes"]})
    return ["background", *(name for name in names if name not in ("", _BACKGROUND, _IGNORED, "background"))]


def _image(path: Path, content: Any, index: ImageIndex) -> Path | EmbeddedImage | None:
    found = index.find(content["imagePath"], near=path.parent)
    return found or (EmbeddedImage(path) if content.get("imageData") else None)


def _polygon(entry: dict[str, Any]) -> tuple[str, Any] | None:
    ring = flat_ring(entry["points"])
    return ("polygons", [ring]) if ring else None


def _rectangle(entry: dict[str, Any]) -> tuple[str, Any] | None:
    (x, y), (right, bottom) = entry["points"]
    return ("polygons", [[x, y, right, y, right, bottom, x, bottom]])


def _circle(entry: dict[str, Any]) -> tuple[str, Any] | None:
    """Return a circle by its centre and a point on it."""
    (x, y), (at_x, at_y) = entry["points"]
    radius = math.hypot(at_x - x, at_y - y)
    return ("ellipse", [x, y, radius, radius, 0])


def _mask(entry: dict[str, Any]) -> tuple[str, Any] | None:
    """Return a bitmap by its first corner."""
    (x, y), _ = entry["points"]
    return ("bitmap", [int(y), int(x), entry["mask"]]) if isinstance(entry["mask"], str) else None


SHAPE_TYPES = {"polygon": _polygon, "rectangle": _rectangle, "circle": _circle, "mask": _mask}
