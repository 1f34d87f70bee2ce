"""Shapes on an image, painted: against brute force, pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullyconv.datasets._layouts._drawing import Shape, flat_ring, make_drawing
from fullyconv.errors import ImageError
from fullyconv.outlines import encode_rle

SIZE = (19, 23)
IGNORED = 255


@st.composite
def boxes(draw) -> tuple[int, int, int, int]:
    """Top, left, bottom, right; perhaps beyond the image, perhaps empty."""
    top, left = draw(st.integers(-4, SIZE[0])), draw(st.integers(-4, SIZE[1]))
    return top, left, top + draw(st.integers(0, 12)), left + draw(st.integers(0, 12))


@st.composite
def crowds(draw) -> list[tuple[Shape, np.ndarray]]:
    """Shapes as the layouts write them, each with its pixels."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    found = []
    for number, (top, left, bottom, right) in enumerate(draw(st.lists(boxes(), max_size=12)), 1):
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        kind = draw(st.sampled_from(["polygons", "run lengths", "brush"]))
        value = draw(st.sampled_from([1, 2, 3, IGNORED]))
        data: Any = [[left, top, right, top, right, bottom, left, bottom]]
        if kind == "run lengths":
            data = encode_rle(inside, compress=draw(st.booleans()))
        elif kind == "brush":
            data = [list(SIZE), pack(np.where(inside, 255, 0))]
        found.append(((kind, data, value, number), inside))
    return found


def pack(alpha: np.ndarray) -> list[int]:
    """Write a stroke with one run for each byte, as plainly as the format allows."""
    pixels = np.repeat(alpha.ravel(), 4).tolist()
    bits = f"{len(pixels):032b}{7:05b}" + f"{0:04b}" * 4 + "".join(f"1000{each:08b}" for each in pixels)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


@settings(max_examples=40, deadline=None)
@given(crowds(), st.booleans())
def test_a_drawing_is_its_shapes_painted_one_over_the_other(crowd, largest_first):
    order = list(range(len(crowd)))
    if largest_first:
        order.sort(key=lambda k: (crowd[k][0][2] != IGNORED, -int(crowd[k][1].sum())))
    labels, numbers = np.zeros(SIZE, int), np.zeros(SIZE, int)
    for k in order:
        (_, _, value, number), inside = crowd[k]
        labels[inside], numbers[inside] = value, number
    shapes = [shape for shape, _ in crowd]
    drawing = make_drawing(Path("a.json"), "x", SIZE, shapes, largest_first=largest_first, ignored=IGNORED)
    assert (drawing.read_mask().values == labels).all()
    if not crowd:
        assert drawing.objects is None
    else:
        assert drawing.objects is not None
        assert (drawing.objects.read_mask().values == numbers).all()


def test_shapes_without_numbers_are_no_objects():
    shapes: list[Shape] = [("polygons", [[0, 0, 4, 0, 0, 4]], 1, 0)]
    drawing = make_drawing(Path("a.json"), "x", SIZE, shapes, largest_first=True, ignored=IGNORED)
    assert drawing.objects is None
    assert drawing.read_mask().values.sum() == 6


@pytest.mark.parametrize("points", [[1, 2, 3, 4, 5, 6.5], [[1, 2], [3, 4], [5, 6.5]]])
def test_corners_come_in_pairs_or_in_a_row(points):
    assert flat_ring(points) == [1, 2, 3, 4, 5, 6.5]


@pytest.mark.parametrize(
    "points",
    [
        [], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [[1, 2], [3, 4]], [[1, 2, 3]] * 4, [1, 2, 3, 4, 5, None],
        [[1, 2], [3, 4], [5]], [1, 2, 3, 4, 5, float("inf")], "outline", None, [[[1, 2]] * 3],
    ],
)  # fmt: skip
def test_what_surrounds_nothing_is_no_ring(points):
    assert flat_ring(points) is None


def test_run_lengths_of_another_image_are_named():
    shapes: list[Shape] = [("run lengths", encode_rle(np.ones((4, 4), bool)), 1, 1)]
    drawing = make_drawing(Path("a.json"), "image a", SIZE, shapes, largest_first=True, ignored=IGNORED)
    with pytest.raises(
        ImageError, match=r"a.json, image a: run lengths of size \[4, 4\] on an image of 19×23"
    ):
        drawing.read_mask()
