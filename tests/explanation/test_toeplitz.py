"""The picture of a convolution's matrix shows the matrix that `conv_matrix` builds, and says so in words."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fullyconv.errors import GeometryError, MachineError, SurgeryError
from fullyconv.explanation import matrix_figure
from fullyconv.surgery.matrices import conv_matrix

FigureCanvasAgg = pytest.importorskip(
    "matplotlib.backends.backend_agg", reason="an extra: plot"
).FigureCanvasAgg


def pictures(figure: Any) -> list[np.ma.MaskedArray[Any, Any]]:
    """The values shown, panel by panel: kernel, input, output, matrix, transpose."""
    return [axes.images[0].get_array() for axes in figure.axes]


def words(figure: Any) -> str:
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


def letters(axes: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    written = np.full(shape, "", dtype=object)
    for text in axes.texts:
        column, row = text.get_position()
        written[row, column] = text.get_text()
    return written


SHAPES = [
    (nn.Conv2d(1, 1, 3), (5, 5)),
    (nn.Conv2d(1, 1, 3, padding=1), (4, 4)),
    (nn.Conv2d(2, 3, 2, stride=2), (4, 6)),
    (nn.Conv2d(2, 2, (2, 3), dilation=2, groups=2), (5, 6)),
    (nn.Conv2d(1, 1, 4, padding="same"), (4, 5)),
    (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), (4, 4)),
    (nn.Conv2d(1, 1, 1, bias=False, dtype=torch.bfloat16), (1, 1)),
]


@pytest.mark.parametrize(("conv", "size"), SHAPES)
def test_the_matrix_and_its_transpose_are_shown(conv: nn.Conv2d, size: tuple[int, int]) -> None:
    kernel, _, output, matrix, transpose = pictures(matrix_figure(conv, size))
    expected = conv_matrix(conv, size)
    np.testing.assert_array_equal(matrix.filled(0), expected.toarray())
    np.testing.assert_array_equal(transpose, matrix.T)
    assert (~matrix.mask).sum() == expected.nnz
    height, width = conv.kernel_size
    for (o, c), _ in np.ndenumerate(conv.weight[:, :, 0, 0].detach().float().numpy()):
        shown = kernel[o * height : (o + 1) * height, c * width : (c + 1) * width]
        np.testing.assert_array_equal(shown, conv.weight[o, c].detach().double())
    assert output.size * conv.out_channels == len(matrix)


def test_letters_name_the_same_weight_everywhere() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1)
    figure = matrix_figure(conv, (4, 4))
    kernel, _, _, matrix, transpose = figure.axes
    values: dict[str, float] = {}
    for (row, column), value in np.ndenumerate(kernel.images[0].get_array().data):
        letter, written = letters(kernel, (6, 6))[row, column].split("\n")
        values[letter] = value
        assert float(written) == pytest.approx(value, rel=0.05)
    assert len(values) == 36
    named = letters(matrix, (32, 32))
    np.testing.assert_array_equal(letters(transpose, (32, 32)), named.T)
    shown = np.vectorize(lambda letter: values.get(letter, 0.0))(named)
    np.testing.assert_array_equal(shown, matrix.images[0].get_array().filled(0))


def test_the_marked_pixel_is_marked_everywhere() -> None:
    figure = matrix_figure(nn.Conv2d(1, 1, 3), (5, 5))
    _, image, output, matrix, transpose = figure.axes
    marked = [patch.get_bbox().bounds for patch in image.patches]
    assert marked == [(c - 0.5, r - 0.5, 1, 1) for r in (1, 2, 3) for c in (1, 2, 3)]
    assert [patch.get_bbox().bounds for patch in output.patches] == [(0.5, 0.5, 1, 1)]
    assert [patch.get_bbox().bounds for patch in matrix.patches] == [(-0.5, 3.5, 25, 1)]
    assert [patch.get_bbox().bounds for patch in transpose.patches] == [(3.5, -0.5, 1, 25)]
    assert "Row 4 (outlined)" in words(figure)
    assert letters(image, (5, 5))[1, 1] == "6\na"


@pytest.mark.parametrize(
    ("options", "says", "says_not"),
    [
        ({}, "called doubly block Toeplitz", "moved"),
        ({"padding": 1, "padding_mode": "circular"}, "called doubly block Toeplitz", "moved"),
        ({"stride": (1, 2)}, "1 to the right, and in a block each row is the one above moved 2 ", "Toep"),
        ({"padding": 1, "padding_mode": "replicate"}, "looked at from more places", "Toeplitz"),
    ],
)  # fmt: skip
def test_the_caption_claims_no_more_than_is_true(options: Any, says: str, says_not: str) -> None:
    text = words(matrix_figure(nn.Conv2d(1, 1, 3, **options), (5, 5)))
    assert says in text
    assert says_not not in text


@pytest.mark.parametrize(
    ("conv", "size"), [*SHAPES, (nn.Conv2d(1, 8, 1), (3, 9)), (nn.Conv2d(8, 1, 3), (9, 3))]
)
def test_nothing_leaves_the_page_or_lies_on_something_else(conv: nn.Conv2d, size: tuple[int, int]) -> None:
    figure = matrix_figure(conv, size)
    renderer = FigureCanvasAgg(figure).get_renderer()
    page = figure.bbox
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    for index, box in enumerate(boxes):
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1
        for other in boxes[:index]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 3 or height <= 3


def test_it_can_be_saved_without_a_window() -> None:
    file = BytesIO()
    figure = matrix_figure(nn.Conv2d(1, 1, 3), (4, 4))
    assert figure.canvas.manager is None
    figure.savefig(file, dpi=40)
    assert file.getvalue().startswith(b"\x89PNG")


def test_matrices_too_large_to_see_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"smaller input_size, such as \(5, 5\)"):
        matrix_figure(nn.Conv2d(3, 8, 3), (32, 32))


def test_other_layers_are_refused() -> None:
    with pytest.raises(SurgeryError, match="two-dimensional"):
        matrix_figure(nn.Conv1d(1, 1, 3), (5, 5))  # type: ignore[arg-type]  # wrong on purpose


def test_a_missing_matplotlib_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MachineError, match=r"pip install 'fullyconv\[plot\]'"):
        matrix_figure(nn.Conv2d(1, 1, 3), (5, 5))
