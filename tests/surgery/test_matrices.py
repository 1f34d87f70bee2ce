"""Convolutions as matrices: equal to torch, transposed as torch transposes, Toeplitz by definition."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from fullyconv.errors import GeometryError, MachineError, SurgeryError
from fullyconv.surgery.matrices import (
    bias_vector,
    conv_matrix,
    conv_output_size,
    conv_transpose_matrix,
)

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MODES = ("zeros", "reflect", "replicate", "circular")

# torch pads an even kernel with padding "same" itself, and says that this takes a copy.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")


@dataclass(frozen=True)
class Case:
    layer: Any
    size: tuple[int, ...]


def integers(low: int, high: int, axes: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(low, high)] * axes)


@st.composite
def convolutions(draw: st.DrawFn, modes: tuple[str, ...] = MODES) -> Case:
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))
    groups = draw(st.integers(1, 3))
    kernel, dilation = draw(integers(1, 4, axes)), draw(integers(1, 3, axes))
    padding = draw(st.one_of(st.sampled_from(["same", "valid"]), integers(0, 3, axes)))
    stride = (1,) * axes if padding == "same" else draw(integers(1, 3, axes))
    mode = draw(st.sampled_from(modes))
    size = draw(integers(1, 7, axes))
    conv = CONVOLUTIONS[axes](
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
        dtype=torch.float64,
    )
    return Case(conv, size)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> Case:
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))
    groups = draw(st.integers(1, 2))
    stride, dilation = draw(integers(1, 3, axes)), draw(integers(1, 3, axes))
    extra = tuple(draw(st.integers(0, max(pair) - 1)) for pair in zip(stride, dilation, strict=True))
    layer = TRANSPOSED[axes](
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        draw(integers(1, 4, axes)),
        stride,
        draw(integers(0, 2, axes)),
        extra,
        groups,
        bias=draw(st.booleans()),
        dilation=dilation,
        dtype=torch.float64,
    )
    return Case(layer, draw(integers(1, 5, axes)))


def run(case: Case) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return a random input and torch's output, or None where torch refuses the size."""
    x = torch.randn(1, case.layer.in_channels, *case.size, dtype=torch.float64, requires_grad=True)
    try:
        return x, case.layer(x)
    except RuntimeError:
        return None


def flat(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.detach().numpy().ravel()


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_the_matrix_is_the_convolution(case: Case) -> None:
    ran = run(case)
    if ran is None:
        with pytest.raises(GeometryError):
            conv_matrix(case.layer, case.size)
        return
    x, y = ran
    matrix = conv_matrix(case.layer, case.size)
    np.testing.assert_allclose(matrix @ flat(x) + bias_vector(case.layer, case.size), flat(y), atol=1e-12)
    assert conv_output_size(case.layer, case.size) == y.shape[2:]
    assert matrix.has_canonical_format
    assert matrix.dtype == np.float64


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_the_transpose_is_the_gradient_for_the_input(case: Case) -> None:
    ran = run(case)
    assume(ran is not None)
    x, y = ran
    back = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, x, back)
    np.testing.assert_allclose(conv_matrix(case.layer, case.size).T @ flat(back), flat(gradient), atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(transposed_convolutions())
def test_the_matrix_is_the_transposed_convolution(case: Case) -> None:
    ran = run(case)
    if ran is None:
        with pytest.raises(GeometryError):
            conv_transpose_matrix(case.layer, case.size)
        return
    x, y = ran
    matrix = conv_transpose_matrix(case.layer, case.size)
    np.testing.assert_allclose(matrix @ flat(x) + bias_vector(case.layer, case.size), flat(y), atol=1e-12)
    assert conv_output_size(case.layer, case.size) == y.shape[2:]
    assert matrix.has_canonical_format


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    list(product([1, 2, 3], [0, 1], [1, 2], [1, 2])),
)
def test_transposing_the_matrix_gives_conv_transpose2d(
    stride: int, padding: int, dilation: int, groups: int
) -> None:
    conv = nn.Conv2d(4, 6, (3, 2), stride, padding, dilation, groups, bias=False, dtype=torch.float64)
    size = (8, 9)
    y = conv(torch.zeros(1, 4, *size, dtype=torch.float64))
    y = torch.randn_like(y)
    smallest = F.conv_transpose2d(y, conv.weight, None, stride, padding, 0, groups, dilation).shape[2:]
    left_over = tuple(whole - part for whole, part in zip(size, smallest, strict=True))
    expected = F.conv_transpose2d(y, conv.weight, None, stride, padding, left_over, groups, dilation)
    matrix = conv_matrix(conv, size)
    np.testing.assert_allclose(matrix.T @ flat(y), flat(expected), atol=1e-12)

    twin = nn.ConvTranspose2d(
        6, 4, (3, 2), stride, padding, left_over, groups, bias=False, dilation=dilation, dtype=torch.float64
    )
    twin.weight = conv.weight
    assert (conv_transpose_matrix(twin, y.shape[2:]) != matrix.T).nnz == 0


@settings(max_examples=40, deadline=None)
@given(convolutions(modes=("zeros",)))
def test_the_matrix_is_a_sum_of_shifts(case: Case) -> None:
    """Brute force: each tap is its weight times (shift along each axis ⊗ …), each group on its own."""
    assume(run(case) is not None)
    conv = case.layer
    weight = conv.weight.detach().numpy()
    outputs, inputs = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    expected: Any = 0
    for tap in np.ndindex(*conv.kernel_size):
        shifts = np.ones((1, 1))
        for axis, size in enumerate(case.size):
            shifts = np.kron(shifts, shift(conv, axis, tap[axis], size))
        channels = np.zeros((conv.out_channels, conv.in_channels))
        for group in range(conv.groups):
            rows = slice(group * outputs, (group + 1) * outputs)
            channels[rows, group * inputs : (group + 1) * inputs] = weight[(rows, slice(None), *tap)]
        expected = expected + np.kron(channels, shifts)
    np.testing.assert_array_equal(conv_matrix(conv, case.size).toarray(), expected)


def shift(conv: Any, axis: int, tap: int, size: int) -> NDArray[np.float64]:
    """Return the matrix that picks, for each output along one axis, the pixel under one tap."""
    reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
    before, both = (reach // 2, reach) if conv.padding == "same" else (0, 0)
    if not isinstance(conv.padding, str):
        before, both = conv.padding[axis], 2 * conv.padding[axis]
    count = (size + both - reach - 1) // conv.stride[axis] + 1
    picked = np.zeros((count, size))
    for output in range(count):
        pixel = output * conv.stride[axis] + tap * conv.dilation[axis] - before
        if 0 <= pixel < size:
            picked[output, pixel] = 1
    return picked


def is_toeplitz(grid: NDArray[Any]) -> bool:
    """By definition: entry (i, j) equals entry (i + 1, j + 1); entries may be blocks (rows, columns, …)."""
    return bool((grid[1:, 1:] == grid[:-1, :-1]).all())


def is_doubly_block_toeplitz(block: NDArray[Any], output: tuple[int, int], size: tuple[int, int]) -> bool:
    blocks = block.reshape(output[0], output[1], size[0], size[1]).transpose(0, 2, 1, 3)
    return is_toeplitz(blocks) and all(is_toeplitz(inner) for row in blocks for inner in row)


def channel_blocks(conv: nn.Conv2d, size: tuple[int, int]) -> tuple[tuple[int, int], list[NDArray[Any]]]:
    """Return the output size and the block of every pair of an output and an input channel."""
    height, width = conv(torch.zeros(1, conv.in_channels, *size)).shape[2:]
    dense = conv_matrix(conv, size).toarray()
    grid = dense.reshape(conv.out_channels, height * width, conv.in_channels, size[0] * size[1])
    return (height, width), [grid[o, :, i] for o in range(conv.out_channels) for i in range(conv.in_channels)]


@settings(max_examples=60, deadline=None)
@given(
    kernel=integers(1, 4, 2),
    dilation=integers(1, 2, 2),
    padding=integers(0, 3, 2),
    mode=st.sampled_from(["zeros", "circular"]),
    groups=st.sampled_from([1, 2]),
    size=integers(4, 8, 2),
)
def test_stride_one_is_doubly_block_toeplitz(
    kernel: Any, dilation: Any, padding: Any, mode: str, groups: int, size: Any
) -> None:
    conv = nn.Conv2d(2, 2, kernel, 1, padding, dilation, groups, padding_mode=mode)
    assume(all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    output, blocks = channel_blocks(conv, size)
    assert len(blocks) == 4
    for block in blocks:
        assert is_doubly_block_toeplitz(block, output, size)


def test_the_definition_can_fail() -> None:
    """Stride 2 and mirrored borders are not Toeplitz, nor is a shuffled matrix."""
    for conv in (nn.Conv2d(1, 1, 3, 2), nn.Conv2d(1, 1, 3, 1, 1, padding_mode="reflect")):
        output, (block,) = channel_blocks(conv, (7, 7))
        assert not is_doubly_block_toeplitz(block, output, (7, 7))
    output, (block,) = channel_blocks(nn.Conv2d(1, 1, 3), (7, 7))
    assert is_doubly_block_toeplitz(block, output, (7, 7))
    assert not is_doubly_block_toeplitz(block[::-1], output, (7, 7))


@pytest.mark.parametrize("stride", [2, 3])
def test_with_a_stride_block_rows_move_by_it(stride: int) -> None:
    output, (block,) = channel_blocks(nn.Conv2d(1, 1, 3, stride), (9, 9))
    blocks = block.reshape(*output, 9, 9).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(blocks[1:, stride:], blocks[:-1, :-stride])
    inner = blocks[0, 0]
    np.testing.assert_array_equal(inner[1:, stride:], inner[:-1, :-stride])


def test_the_published_example() -> None:
    """Dumoulin and Visin, section 4.1: the 4×16 matrix of a 3×3 kernel on 4×4."""
    conv = nn.Conv2d(1, 1, 3, bias=False)
    conv.weight = nn.Parameter(torch.arange(1.0, 10.0).reshape(1, 1, 3, 3))
    expected = [
        [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0],
        [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0],
        [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9],
    ]
    np.testing.assert_array_equal(conv_matrix(conv, (4, 4)).toarray(), expected)


def test_zero_weights_are_stored_and_zero_padding_is_not() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1)
    nn.init.zeros_(conv.weight)
    assert conv_matrix(conv, (3, 3)).nnz == 9 + 4 * 6 + 4 * 4


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(torch.float16, "float32"), (torch.bfloat16, "float32"), (torch.float32, "float32")],
)
def test_dtypes(dtype: torch.dtype, stored: str) -> None:
    conv = nn.Conv2d(2, 3, 3, dtype=dtype)
    matrix = conv_matrix(conv, (4, 4))
    assert matrix.dtype == bias_vector(conv, (4, 4)).dtype == stored
    assert set(matrix.data) == set(conv.weight.detach().float().numpy().ravel())
    assert bias_vector(nn.Conv2d(2, 3, 3, bias=False, dtype=dtype), (4, 4)).dtype == stored


def test_parametrized_weights_are_the_ones_in_use() -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3, bias=False))
    x = torch.randn(1, 2, 5, 5)
    np.testing.assert_allclose(conv_matrix(conv, (5, 5)) @ flat(x), flat(conv(x)), atol=1e-5)


class PaddingItself(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(input, (0, 1, 0, 1)))


@pytest.mark.parametrize("layer", [nn.Linear(4, 4), nn.ConvTranspose2d(1, 1, 3), PaddingItself(1, 1, 3)])
def test_other_layers_are_refused_by_name(layer: Any) -> None:
    with pytest.raises(SurgeryError, match=type(layer).__name__):
        conv_matrix(layer, (4, 4))


def test_a_convolution_is_no_transposed_one() -> None:
    with pytest.raises(SurgeryError, match="Conv2d"):
        conv_transpose_matrix(nn.Conv2d(1, 1, 3), (4, 4))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(SurgeryError, match="Linear"):
        bias_vector(nn.Linear(1, 1), (4, 4))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("conv", [nn.LazyConv2d(3, 3), nn.Conv2d(3, 3, 3, device="meta")])
def test_layers_without_weights_are_refused(conv: nn.Conv2d) -> None:
    with pytest.raises(SurgeryError, match="no weights yet"):
        conv_matrix(conv, (4, 4))


@pytest.mark.parametrize("size", [(4,), (4, 4, 4), (0, 4), 4])
def test_sizes_that_are_no_height_and_width_are_refused(size: Any) -> None:
    with pytest.raises(GeometryError, match="height, width"):
        conv_matrix(nn.Conv2d(1, 1, 3), size)


@pytest.mark.parametrize(
    ("conv", "words"),
    [
        (nn.Conv2d(1, 1, 5), "larger input_size"),
        (nn.Conv2d(1, 1, 3, padding=4, padding_mode="reflect"), "at least 5 pixels"),
        (nn.Conv2d(1, 1, 3, padding=5, padding_mode="circular"), "at least 5 pixels"),
    ],
)
def test_inputs_too_small_are_refused(conv: nn.Conv2d, words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        conv_matrix(conv, (4, 4))


def test_a_transposed_convolution_padded_to_nothing_is_refused() -> None:
    with pytest.raises(GeometryError, match="less padding"):
        conv_transpose_matrix(nn.ConvTranspose2d(1, 1, 3, padding=3), (2, 2))


def test_matrices_that_would_fill_the_memory_are_refused_before_they_are_built() -> None:
    conv = nn.Conv2d(64, 64, 3, padding=1)
    with pytest.raises(MachineError, match=r"1,838,694,400 stored entries"):
        conv_matrix(conv, (224, 224))
    with pytest.raises(MachineError, match="max_entries=10"):
        conv_transpose_matrix(nn.ConvTranspose2d(1, 1, 3), (2, 2), max_entries=10)
    assert conv_matrix(nn.Conv2d(1, 1, 3), (3, 3), max_entries=9).nnz == 9


def calls(function: Callable[[], Any]) -> int:
    """How many functions were called meanwhile, Python's and C's."""
    count = 0

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_built_without_a_loop_over_entries() -> None:
    """That is what keeps it under a second, which `benchmarks/bounds.py` measures."""
    conv = nn.Conv2d(64, 64, 3, padding=1)
    assert conv_matrix(conv, (32, 32)).nnz == 64 * 64 * (3 * 32 - 2) ** 2
    few, many = (calls(lambda size=size: conv_matrix(conv, (size, size))) for size in (8, 32))
    assert few == many < 2000
