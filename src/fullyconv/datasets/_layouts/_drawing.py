"""Shapes that people drew on an image, painted into a mask when it is read.

A pixel belongs to a shape if its centre lies in it. What a shape's points and pixels are in the file formats
is for their layouts to say; here they are JSON: ``[kind, data, value, number]`` for each shape.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.datasets._layouts._brush import decode_brush
from fullyconv.datasets._sources import as_file, digest_of_values, name_below
from fullyconv.errors import ImageError
from fullyconv.images import Mask, read_mask
from fullyconv.outlines import Polygon, decode_rle, fill_polygons

# (row, column) of the upper left corner, and which pixels from there.
Patch = tuple[int, int, NDArray[np.bool_]]
Shape = tuple[str, Any, int, int]


@dataclass(frozen=True)
class Drawing:
    """The shapes on one image.

    Parameters
    ----------
    path, place
        The file they are in, and where.
    size
        (height, width) of the image.
    shapes
        JSON, a list of ``[kind, data, value, number]``: how and what to paint, the class's value, and the
        object's number, 0 for none.
    largest_first
        Whether smaller shapes cover larger ones; else later ones cover earlier ones.
    ignored
        The value of no class; shapes of it lie below all others where the largest come first.
    has_objects
        Whether a shape has a number.
    numbered
        Paint the objects' numbers instead of their classes.
    """

    path: Path
    place: str
    size: tuple[int, int]
    shapes: str
    largest_first: bool
    ignored: int = 255
    has_objects: bool = False
    numbered: bool = False

    @property
    def objects(self) -> Drawing | None:
        """The same with the objects' numbers; None where no shape is an object."""
        return replace(self, numbered=True) if self.has_objects else None

    def read_mask(self) -> Mask:
        """Paint the shapes, in the narrowest unsigned type.

        Raises
        ------
        ImageError
            A shape is damaged, or has the size of another image.
        """
        shapes: list[Shape] = json.loads(self.shapes)
        try:
            patches = [SHAPES[kind](data, self.size) for kind, data, _, _ in shapes]
        except ImageError as error:
            name = name_below(Path(), self)
            raise ImageError(f"{name}: {error.given}", error.expected, error.fix) from error
        order = list(range(len(shapes)))
        if self.largest_first:
            order.sort(key=lambda k: (shapes[k][2] != self.ignored, -np.count_nonzero(patches[k][2])))
        values = [shape[3] if self.numbered else shape[2] for shape in shapes]
        painted = np.zeros(self.size, np.min_scalar_type(max(values, default=0)))
        for k in order:
            row, column, inside = patches[k]
            part = painted[row : row + inside.shape[0], column : column + inside.shape[1]]
            np.copyto(part, painted.dtype.type(values[k]), where=inside)
        return Mask(painted, None, False)

    def digest(self) -> str:
        """Return digits of the shapes."""
        return digest_of_values(self.size, self.shapes, self.largest_first, self.ignored, self.numbered)


def make_drawing(
    path: Path,
    place: str,
    size: tuple[int, int],
    shapes: Sequence[Shape],
    *,
    largest_first: bool,
    ignored: int,
) -> Drawing:
    """Return the drawing of these shapes."""
    text = json.dumps(shapes, separators=(",", ":"))
    return Drawing(path, place, size, text, largest_first, ignored, any(number for *_, number in shapes))


def flat_ring(points: Any) -> list[float] | None:
    """Return the corners of an area as [x, y, x, y, ...], given so or in pairs.

    None where they are not three or more, or not pairs of finite numbers. JSON is read five times faster
    without a list for each corner.
    """
    try:
        corners = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        return None
    in_pairs = corners.ndim == 2 and corners.shape[1] == 2
    if not (in_pairs or (corners.ndim == 1 and corners.size % 2 == 0)):
        return None
    return corners.ravel().tolist() if corners.size >= 6 and np.isfinite(corners).all() else None


def turned_box(x: float, y: float, width: float, height: float, degrees: float) -> list[float]:
    """Return the corners [x, y, ...] of a box that is turned clockwise about its upper left corner."""
    turn = np.deg2rad(degrees)
    right = np.array([np.cos(turn), np.sin(turn)])
    down = np.array([-np.sin(turn), np.cos(turn)])
    start = np.array([x, y])
    corners = [start, start + width * right, start + width * right + height * down, start + height * down]
    return [float(part) for corner in corners for part in corner]


def _polygons(rings: list[list[float]], size: tuple[int, int]) -> Patch:
    """Paint the union of rings [x, y, x, y, ...]."""
    corners = [np.asarray(ring, np.float64).reshape(-1, 2)[:, ::-1] for ring in rings]
    (top, left), (high, wide) = _box(np.concatenate(corners), size)
    polygons = [Polygon(1, (ring - (top, left),)) for ring in corners]
    return top, left, fill_polygons(polygons, (high, wide)).astype(bool)


def _ellipse(data: list[float], size: tuple[int, int]) -> Patch:
    """Paint an ellipse: centre x and y, the two radii, and its clockwise turn in degrees."""
    x, y, across, along, degrees = data
    reach = max(across, along)
    (top, left), (high, wide) = _box(np.array([[y - reach, x - reach], [y + reach, x + reach]]), size)
    rows, columns = np.mgrid[top : top + high, left : left + wide] + 0.5
    turn = np.deg2rad(degrees)
    first = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    second = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
    inside = (first / max(across, 1e-9)) ** 2 + (second / max(along, 1e-9)) ** 2 <= 1
    return top, left, inside


def _run_lengths(rle: dict[str, Any], size: tuple[int, int]) -> Patch:
    if list(rle.get("size", ())) != list(size):
        raise _other_size("run lengths", rle.get("size"), size)
    return _cropped(decode_rle(rle))


def _brush(data: tuple[list[int], list[int]], size: tuple[int, int]) -> Patch:
    """Paint a brush stroke where it covers half of a pixel or more."""
    own, runs = data
    if list(own) != list(size):
        raise _other_size("a brush stroke", own, size)
    return _cropped(decode_brush(runs, size) >= 128)


def _bitmap(data: tuple[int, int, str], size: tuple[int, int]) -> Patch:
    """Paint a small image of its own, given as row, column and a PNG in base 64; the rest is cut off."""
    row, column, text = data
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(
            "the bitmap of a shape is no base 64", "a PNG in base 64", "export it again"
        ) from error
    with as_file("the bitmap of a shape", content) as path:
        inside = read_mask(path).values != 0
    if inside.ndim == 3:
        inside = inside.any(2)
    top, left = max(row, 0), max(column, 0)
    return top, left, inside[top - row : size[0] - row, left - column : size[1] - column]


def _cropped(inside: NDArray[np.bool_]) -> Patch:
    """Return what surrounds the pixels of an object: hundreds of whole images would fill the memory."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return 0, 0, np.zeros((0, 0), bool)
    top, left = int(rows[0]), int(columns[0])
    return top, left, inside[top : rows[-1] + 1, left : columns[-1] + 1].copy()


def _box(corners: NDArray[np.float64], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the upper left pixel and the size of what surrounds corners, within the image."""
    low = np.clip(np.floor(corners.min(0)), 0, size).astype(int)
    high = np.clip(np.ceil(corners.max(0)), low, size).astype(int)
    return (int(low[0]), int(low[1])), (int(high[0] - low[0]), int(high[1] - low[1]))


def _other_size(what: str, own: object, size: tuple[int, int]) -> ImageError:
    return ImageError(
        f"{what} of size {own} on an image of {size[0]}×{size[1]}",
        "the size of the image, as [height, width]",
        "export the annotations again, for this image",
    )


SHAPES: dict[str, Callable[[Any, tuple[int, int]], Patch]] = {
    "polygons": _polygons,
    "ellipse": _ellipse,
    "run lengths": _run_lengths,
    "brush": _brush,
    "bitmap": _bitmap,
}
