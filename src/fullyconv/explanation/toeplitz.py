"""A picture of the matrix that a convolution is, for people who meet it for the first time."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_letters
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fullyconv.errors import GeometryError, MachineError, SurgeryError
from fullyconv.surgery.matrices import conv_matrix, conv_output_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SIDE = 1024
"""Most rows or columns of a matrix that can still be seen on a page."""

# Lengths are in inches, from the left and the top edge of the page.
_GAP = 0.45
_LINE = 0.2
_LETTER = 0.076
_MARGIN = 0.5
_READABLE = 0.15
_FINEST = 0.04

_COLORS = "PuOr_r"  # violet for negative, white, orange for positive: told apart with any colour blindness
_MARK = "#009e73"  # a green between them; what it marks is also told by the thick line


def matrix_figure(conv: nn.Conv2d, input_size: tuple[int, int]) -> Figure:
    """Draw a convolution's kernel, its doubly block Toeplitz matrix, and the transpose.

    The kernel's weights have letters where there are few enough, so that each can be found again in the
    matrix. One output pixel is marked everywhere: the input pixels it looks at, its row in the matrix, and
    its column in the transpose.

    Parameters
    ----------
    conv
        A plain convolution with any stride, padding, dilation and groups. Small ones are the clearest:
        ``nn.Conv2d(1, 1, 3)`` on (5, 5).
    input_size
        (height, width) of the input.

    Returns
    -------
    matplotlib.figure.Figure
        To be saved with ``figure.savefig("matrix.png", dpi=150)``; it belongs to no window.

    Raises
    ------
    SurgeryError
        Not a plain ``nn.Conv2d``.
    GeometryError
        An input too small for the kernel, or more than 1024 numbers in or out, which nobody could see.
    MachineError
        matplotlib is not installed.

    Notes
    -----
    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (arXiv 1603.07285),
    sections 4.1 and 4.2.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MachineError(
            "matplotlib is not installed", "it, to draw figures", "pip install 'fullyconv[plot]'"
        ) from error
    kernel, image, output, matrix, transpose = _panels(_Example.of(conv, input_size))
    top, bottom = 2 * _GAP, 3 * _GAP + max(kernel.height, image.height, output.height)
    right = 2 * _GAP + max(kernel.width + image.width + output.width + 2 * _GAP, matrix.width)
    width = right + transpose.width + _GAP
    height = max(bottom + matrix.height, top + transpose.height) + _GAP
    figure = Figure(figsize=(width, height), facecolor="white")
    title = "A convolution is a matrix, and the transposed convolution is its transpose"
    figure.text(_GAP / width, 1 - _GAP / height, title, fontsize=15, weight="bold", va="center")
    kernel.draw(figure, _GAP, top)
    image.draw(figure, 2 * _GAP + kernel.width, top)
    output.draw(figure, 3 * _GAP + kernel.width + image.width, top)
    matrix.draw(figure, _GAP, bottom)
    transpose.draw(figure, right, top)
    return figure


@dataclass(frozen=True)
class _Example:
    """A convolution on one input size, and the output pixel that is marked.

    ``matrix`` and ``kernel`` (O·kh × C/groups·kw, the kernels side by side) hold NaN where nothing is stored;
    ``letters`` and ``kernel_letters`` name the weights at the same places, or are empty strings.
    """

    conv: nn.Conv2d
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    matrix: NDArray[np.float64]
    letters: NDArray[np.str_]
    kernel: NDArray[np.float64]
    kernel_letters: NDArray[np.str_]

    @classmethod
    def of(cls, conv: nn.Conv2d, input_size: tuple[int, int]) -> _Example:
        """Compute everything that is drawn."""
        if not isinstance(conv, nn.Conv2d):
            raise SurgeryError(
                f"a layer of class {type(conv).__name__}",
                "an nn.Conv2d",
                "pass a two-dimensional convolution",
            )
        sparse = conv_matrix(conv, input_size)
        if max(sparse.shape) > MAX_SIDE:
            raise GeometryError(
                f"a matrix of {sparse.shape[0]} × {sparse.shape[1]} for input size {tuple(input_size)}",
                f"at most {MAX_SIDE} rows and columns, to be seen on a page",
                "use a smaller input_size, such as (5, 5), or a convolution of fewer channels",
            )
        # The same convolution with its weights numbered from 1 says which weight is where.
        settings: dict[str, Any] = {name: getattr(conv, name) for name in _SETTINGS}
        numbered = nn.Conv2d(**settings)
        numbers = torch.arange(1.0, conv.weight.numel() + 1).reshape(conv.weight.shape)
        numbered.weight = nn.Parameter(numbers)
        places = conv_matrix(numbered, input_size).toarray().astype(int)
        matrix = np.where(places > 0, sparse.toarray(), np.nan)
        height, width = conv_output_size(conv, input_size)
        named = conv.weight.numel() <= len(ascii_letters) and conv.padding_mode == "zeros"
        alphabet = np.array(["", *ascii_letters] if named else [""])
        return cls(
            conv=conv,
            input_size=(input_size[0], input_size[1]),
            output_size=(height, width),
            matrix=matrix,
            letters=alphabet[places * named],
            kernel=_side_by_side(conv.weight.detach().double().cpu().numpy()),
            kernel_letters=alphabet[_side_by_side(numbers.numpy()).astype(int) * named],
        )

    @property
    def marked(self) -> int:
        """The output pixel in the middle, whose kernel sticks out least."""
        height, width = self.output_size
        return height // 2 * width + width // 2


_SETTINGS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)


def _side_by_side(weight: NDArray[Any]) -> NDArray[Any]:
    """Lay O×C kernels of h×w out as O rows of C kernels."""
    outputs, channels, height, width = weight.shape
    return weight.transpose(0, 2, 1, 3).reshape(outputs * height, channels * width)


@dataclass(frozen=True)
class _Panel:
    """A grid of coloured cells under a title and a caption.

    ``blocks`` are the heights and widths of the outlined blocks, thinnest lines first; ``axes`` name what the
    rows and the columns count, and give them numbers; ``marks`` are (row, column, rows, columns).
    """

    title: str
    caption: str
    values: NDArray[np.float64]
    texts: NDArray[np.str_]
    limit: float
    cell: float
    blocks: tuple[tuple[int, int], ...] = ()
    axes: tuple[str, str] | None = None
    marks: tuple[tuple[int, int, int, int], ...] = ()
    least_width: float = 2.3

    @property
    def margin(self) -> float:
        """Room for the axes' numbers."""
        return _MARGIN if self.axes else 0.0

    @property
    def width(self) -> float:
        return float(max(self.margin + self.values.shape[1] * self.cell, self.least_width))

    @property
    def lines(self) -> list[str]:
        return wrap(self.caption, int(self.width / _LETTER))

    @property
    def height(self) -> float:
        return float((len(self.lines) + 1.5) * _LINE + self.margin + self.values.shape[0] * self.cell)

    def draw(self, figure: Any, left: float, top: float) -> None:
        """Draw the panel with its upper left corner at (left, top)."""
        from matplotlib.patches import Rectangle

        page_width, page_height = figure.get_size_inches()
        rows, columns = self.values.shape
        x, y = left / page_width, 1 - top / page_height
        figure.text(x, y, self.title, fontsize=11.5, weight="bold", va="top")
        caption = "\n".join(self.lines)
        figure.text(
            x,
            y - 1.2 * _LINE / page_height,
            caption,
            fontsize=9.5,
            va="top",
            color="#333333",
            linespacing=1.3,
        )
        axes = figure.add_axes(
            (
                (left + self.margin) / page_width,
                1 - (top + self.height) / page_height,
                columns * self.cell / page_width,
                rows * self.cell / page_height,
            )
        )
        axes.imshow(self.values, cmap=_COLORS, vmin=-self.limit, vmax=self.limit, aspect="auto")
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
        if self.cell >= _READABLE:
            self._draw_lines(axes, 1, 1, 0.5, "#d0d0d0")
            self._write(axes)
        for level, (height, width) in enumerate(self.blocks):
            shorter = min(height, width) * self.cell
            if shorter > _FINEST:
                thickness = min(0.9 + 1.1 * level, 3 * shorter)
                self._draw_lines(axes, height, width, thickness, ("#444444", "black")[level])
        for row, column, height, width in self.marks:
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5),
                    width,
                    height,
                    fill=False,
                    edgecolor=_MARK,
                    linewidth=max(1.0, min(3.0, 12 * self.cell)),
                    clip_on=False,
                    zorder=5,
                )
            )
        if self.axes:
            self._number(axes)

    def _draw_lines(self, axes: Any, height: int, width: int, thickness: float, color: str) -> None:
        rows, columns = self.values.shape
        style = {"colors": color, "linewidth": thickness, "clip_on": False}
        axes.hlines(np.arange(0, rows + 1, height) - 0.5, -0.5, columns - 0.5, **style)
        axes.vlines(np.arange(0, columns + 1, width) - 0.5, -0.5, rows - 0.5, **style)

    def _write(self, axes: Any) -> None:
        for (row, column), text in np.ndenumerate(self.texts):
            value = self.values[row, column]
            color = "white" if abs(value) > 0.6 * self.limit else "black"
            lines = text.split("\n")
            longest = max(1, *map(len, lines))
            size = min(11.0, self.cell * 72 * min(0.62, 1.35 / longest, 0.75 / len(lines)))
            axes.text(
                column, row, text, ha="center", va="center", fontsize=size, color=color, linespacing=1.0
            )

    def _number(self, axes: Any) -> None:
        """Say what rows and columns count, with a number for each where there is room."""
        assert self.axes is not None
        rows, columns = self.values.shape
        axes.set_ylabel(self.axes[0], fontsize=9.5)
        axes.set_xlabel(self.axes[1], fontsize=9.5)
        axes.xaxis.set_label_position("top")
        step = 1 if self.cell >= _READABLE else max(1, round(0.4 / self.cell))
        axes.set_xticks(range(0, columns, step))
        axes.set_yticks(range(0, rows, step))
        axes.tick_params(
            top=False, left=False, bottom=False, labeltop=True, labelbottom=False, labelsize=7, pad=1
        )


def _panels(example: _Example) -> tuple[_Panel, _Panel, _Panel, _Panel, _Panel]:
    """Return the kernel, the input, the output, the matrix and its transpose."""
    conv, matrix, marked = example.conv, example.matrix, example.marked
    (height, width), (out_height, out_width) = example.input_size, example.output_size
    outputs, inputs = matrix.shape
    limit = float(np.abs(example.kernel).max()) or 1.0
    cell = min(0.3, 8.5 / max(matrix.shape))
    small = 2.3 / max(4, height, width, out_height, out_width)
    one = conv.in_channels == conv.out_channels == 1
    blocks = [(out_width, width)] if one else [(out_width, width), (out_height * out_width, height * width)]
    # Of several channels, the small pictures show the first.
    looked = matrix[marked, : height * width].reshape(height, width)
    kernel = _Panel(
        "The kernel" if one else f"The {conv.weight.shape[0] * conv.weight.shape[1]} kernels",
        f"{conv.weight.numel()} weights. Orange is positive, violet negative."
        + ("" if one else " A row for each output channel, a column for each input channel it reads."),
        example.kernel,
        _stacked(example.kernel_letters, example.kernel),
        limit,
        2.3 / max(4, *example.kernel.shape),
        blocks=((1, 1), (conv.kernel_size[0], conv.kernel_size[1])),
    )
    image = _Panel(
        f"The input, {height}×{width}",
        f"Its pixels are numbered row by row{'' if one else ' (first channel)'}. To compute output pixel "
        f"{marked}, the kernel lies on the coloured ones.",
        looked,
        _stacked(_numbers(height, width), example.letters[marked, : height * width].reshape(height, width)),
        limit,
        small,
        blocks=((1, 1),),
        marks=tuple((int(row), int(column), 1, 1) for row, column in np.argwhere(~np.isnan(looked))),
    )
    output = _Panel(
        f"The output, {out_height}×{out_width}",
        f"Stride {_brief(conv.stride)}, padding {_brief(conv.padding)}, dilation {_brief(conv.dilation)}: "
        f"the kernel fits in {out_height * out_width} places.",
        np.full(example.output_size, np.nan),
        _numbers(out_height, out_width),
        limit,
        small,
        blocks=((1, 1),),
        marks=((marked // out_width, marked % out_width, 1, 1),),
    )
    forward = _Panel(
        f"The convolution: a matrix of {outputs} × {inputs}",
        f"A row for each output pixel, a column for each input pixel{'' if one else ', channel by channel'}. "
        f"Row {marked} (outlined) has the kernel's weights in the columns of the pixels they lie on; empty "
        f"cells are zero. Multiply by the input written as one column of {inputs} numbers, and you have "
        f"convolved it. {_structure(conv)}{'' if one else ' Thick lines part the channels.'}",
        matrix,
        example.letters,
        limit,
        cell,
        blocks=tuple(blocks),
        axes=("output pixel", "input pixel"),
        marks=((marked, 0, 1, inputs),),
        least_width=7.0,
    )
    backward = _Panel(
        f"The transposed convolution: {inputs} × {outputs}",
        f"The same matrix with rows and columns swapped: {outputs} numbers in, {inputs} out. Column {marked} "
        f"(outlined) hands the number at pixel {marked} to all pixels it was computed from, each time "
        "multiplied by the weight there; where several meet, they add up. It brings back the size, not the "
        "values. This is how an FCN upsamples, and how gradients flow back.",
        matrix.T,
        example.letters.T,
        limit,
        cell,
        blocks=tuple((across, down) for down, across in blocks),
        axes=("input pixel", "output pixel"),
        marks=((0, marked, inputs, 1),),
        least_width=3.6,
    )
    return kernel, image, output, forward, backward


def _structure(conv: nn.Conv2d) -> str:
    """Say in plain words what repeats in the matrix."""
    blocks = "Thin lines cut it into blocks, one for each pair of an output row and an input row"
    if conv.stride == (1, 1) and conv.padding_mode in ("zeros", "circular"):
        return (
            f"{blocks}: blocks on a diagonal are equal, and in a block every diagonal repeats one weight. "
            "Such a matrix is called doubly block Toeplitz."
        )
    if conv.padding_mode == "zeros":
        return (
            f"{blocks}. Each row of blocks is the one above moved {conv.stride[0]} to the right, and in a "
            f"block each row is the one above moved {conv.stride[1]} to the right."
        )
    return f"{blocks}. The padding repeats pixels, so some of them are looked at from more places."


def _stacked(upper: NDArray[np.str_], lower: NDArray[Any]) -> NDArray[np.str_]:
    """Write two lines into each cell where both have something to say, else the upper one."""
    written = [
        f"{above}\n{below if isinstance(below, str) else f'{below:.2g}'}".strip() if above else ""
        for above, below in zip(upper.flat, lower.flat, strict=True)
    ]
    return np.array(written).reshape(upper.shape)


def _numbers(height: int, width: int) -> NDArray[np.str_]:
    """Number the pixels row by row."""
    return np.arange(height * width).astype(str).reshape(height, width)


def _brief(setting: str | tuple[int, ...]) -> str:
    """``(2, 2)`` is 2, ``(1, 2)`` is 1×2, ``"same"`` is same."""
    if isinstance(setting, str):
        return setting
    return str(setting[0]) if len(set(setting)) == 1 else "×".join(map(str, setting))
