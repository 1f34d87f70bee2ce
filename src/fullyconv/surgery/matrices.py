"""Convolutions as matrices: a sparse doubly block Toeplitz matrix, and its transpose."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parameter import is_lazy

from fullyconv.errors import GeometryError, MachineError, SurgeryError

if TYPE_CHECKING:
    from scipy import sparse

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConvolution = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

MAX_ENTRIES = 2**28
"""Largest number of stored entries by default: 2 GiB in float32 with 32-bit indices."""


def conv_matrix(
    conv: Convolution, input_size: Sequence[int], *, max_entries: int = MAX_ENTRIES
) -> sparse.csr_array[Any, tuple[int, int]]:
    """Return the matrix that a convolution multiplies its flattened input by.

    For one image ``x`` of C×H×W and ``b = bias_vector(conv, (H, W))``::

        conv(x).flatten() == conv_matrix(conv, (H, W)) @ x.flatten() + b

    The bias is not part of the matrix. Row ``(o, y, x)`` holds the kernel of output channel ``o`` where it
    lies when it computes output pixel ``(y, x)``; columns are the input's ``(channel, row, column)``.

    Parameters
    ----------
    conv
        An ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d`` with any stride, padding (numbers, ``"same"``,
        ``"valid"``), padding mode, dilation and groups.
    input_size
        Size of the input, (height, width) for two dimensions.
    max_entries
        Refuse to build a matrix with more stored entries than this.

    Returns
    -------
    scipy.sparse.csr_array
        (O·out_h·out_w) × (C·H·W), row-major in (channel, row, column) on both sides, sorted indices, in the
        weight's dtype (half precision, which scipy.sparse does not have, becomes float32). Taps that fall on
        zero padding are not stored; taps with weight 0 are.

    Raises
    ------
    SurgeryError
        Not a plain convolution: another layer, or a subclass with a forward pass of its own.
    GeometryError
        An input size of the wrong length, or too small for the kernel or the padding mode.
    MachineError
        More than ``max_entries`` stored entries.

    Notes
    -----
    With stride 1 and zero padding the matrix is *doubly block Toeplitz* for each pair of an output and an
    input channel: seen as out_h × H blocks of out_w × W entries, all blocks on one diagonal are equal (block
    (y, v) depends on ``v − y`` only), and each block is constant along its own diagonals (entry (x, u)
    depends on ``u − x`` only). Circular padding keeps this; reflected and replicated padding break it at the
    border.
    With stride s each row of blocks is the one above moved s blocks to the right.
    The transpose is the transposed convolution, which is also the gradient with respect to the input.
    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (arXiv 1603.07285),
    section 4.1.

    Examples
    --------
    >>> conv = nn.Conv2d(1, 1, 3, bias=False)
    >>> conv_matrix(conv, (4, 4)).shape
    (4, 16)
    """
    _check_plain(conv, _CONVOLUTIONS)
    sizes = _check_size(conv, input_size)
    looks = []
    for axis, count in enumerate(conv_output_size(conv, sizes)):
        looks.append(_looks(conv, axis, _number_pixels(conv, axis, sizes[axis]), count))
    return _assemble(conv, looks, sizes, max_entries)


def conv_transpose_matrix(
    conv_transpose: TransposedConvolution, input_size: Sequence[int], *, max_entries: int = MAX_ENTRIES
) -> sparse.csr_array[Any, tuple[int, int]]:
    """Return the matrix that a transposed convolution multiplies its flattened input by.

    It is the transpose of the matrix of the matching convolution: the one with the same weight tensor,
    stride, padding, dilation and groups, on an input of the size that the transposed convolution puts out.

    Parameters
    ----------
    conv_transpose
        An ``nn.ConvTranspose1d``, ``nn.ConvTranspose2d`` or ``nn.ConvTranspose3d``, output padding included.
    input_size
        Size of its input, (height, width) for two dimensions.
    max_entries
        Refuse to build a matrix with more stored entries than this.

    Returns
    -------
    scipy.sparse.csr_array
        (O·out_h·out_w) × (C·H·W), as in `conv_matrix`; the bias is in `bias_vector`.

    Raises
    ------
    SurgeryError, GeometryError, MachineError
        As `conv_matrix`.
    """
    _check_plain(conv_transpose, _TRANSPOSED)
    counts = _check_size(conv_transpose, input_size)
    sizes = conv_output_size(conv_transpose, counts)
    looks = []
    for axis, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        looks.append(_looks(conv_transpose, axis, _number_pixels(conv_transpose, axis, size), count))
    return _assemble(conv_transpose, looks, sizes, max_entries).T.tocsr()


def conv_output_size(conv: Convolution | TransposedConvolution, input_size: Sequence[int]) -> tuple[int, ...]:
    """Return the size of what a convolution or transposed convolution puts out.

    Parameters
    ----------
    conv
        A plain convolution or transposed convolution.
    input_size
        Size of its input, (height, width) for two dimensions.

    Returns
    -------
    tuple of int
        One number of pixels per axis, at least 1.

    Raises
    ------
    SurgeryError, GeometryError
        As `conv_matrix`.
    """
    _check_plain(conv, _CONVOLUTIONS + _TRANSPOSED)
    sizes = _check_size(conv, input_size)
    outputs = []
    for axis, size in enumerate(sizes):
        reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
        margin = sum(_padding(conv, axis))
        if conv.transposed:
            output = (size - 1) * conv.stride[axis] + reach + conv.output_padding[axis] - margin
        else:
            output = (size + margin - reach) // conv.stride[axis] + 1
        if output < 1:
            raise GeometryError(
                f"input size {sizes} for a kernel that reaches {reach} pixels along axis {axis}, "
                f"padding {margin}",
                "an output of at least one pixel",
                "use a larger input_size"
                if not conv.transposed
                else "use a larger input_size or less padding",
            )
        outputs.append(output)
    return tuple(outputs)


def bias_vector(conv: Convolution | TransposedConvolution, input_size: Sequence[int]) -> NDArray[Any]:
    """Return what a convolution adds to the matrix product: its bias at every output pixel.

    Parameters
    ----------
    conv
        A plain convolution or transposed convolution.
    input_size
        Size of its input, (height, width) for two dimensions.

    Returns
    -------
    ndarray
        O·out_h·out_w numbers, row-major in (channel, row, column); zeros where the layer has no bias.

    Raises
    ------
    SurgeryError, GeometryError
        As `conv_matrix`.
    """
    pixels = prod(conv_output_size(conv, input_size))
    if conv.bias is None:
        return np.zeros(conv.out_channels * pixels, dtype=_to_numpy(conv.weight).dtype)
    return np.repeat(_to_numpy(conv.bias), pixels)


def _assemble(
    conv: Convolution | TransposedConvolution,
    looks: list[NDArray[np.int64]],
    sizes: tuple[int, ...],
    max_entries: int,
) -> sparse.csr_array[Any, tuple[int, int]]:
    """Build the CSR arrays of a convolution in their final order, from where its taps look."""
    weight = _to_numpy(conv.weight)
    out_channels, channels = weight.shape[:2]
    looked = reduce(_cross, zip(looks, sizes, strict=True), np.zeros((1, 1), dtype=np.int64))
    present = looked >= 0
    entries = out_channels * channels * int(present.sum())
    if entries > max_entries:
        raise MachineError(
            f"a matrix of {entries:,} stored entries for input size {sizes}",
            f"at most max_entries={max_entries:,}",
            "use a smaller input_size, or a larger max_entries where memory has room for 16 bytes an entry",
        )
    from scipy import sparse  # here: who only predicts need not wait for it

    # The rows of one output channel, as (pixel, channel, tap); all output channels of a group repeat them.
    pixels, taps = looked.shape
    kept = np.broadcast_to(present[:, None, :], (pixels, channels, taps))
    space = prod(sizes)
    index = sparse.get_index_dtype(maxval=max(entries, channels * conv.groups * space))
    columns = (np.arange(channels)[:, None] * space + looked[:, None, :])[kept].astype(index)
    weights = np.broadcast_to(np.arange(channels * taps).reshape(channels, taps), kept.shape)[kept]
    group = np.arange(out_channels, dtype=index) // (out_channels // conv.groups)
    row_lengths = np.tile(channels * present.sum(axis=1), out_channels)
    matrix = sparse.csr_array(
        (
            np.take(weight.reshape(out_channels, -1), weights, axis=1).ravel(),
            (columns + group[:, None] * index(channels * space)).ravel(),
            np.concatenate([[0], np.cumsum(row_lengths)]).astype(index),
        ),
        shape=(out_channels * pixels, channels * conv.groups * space),
    )
    # Mirrored or repeated borders let several taps look at one pixel.
    matrix.sum_duplicates()
    return matrix


def _cross(looked: NDArray[np.int64], axis: tuple[NDArray[np.int64], int]) -> NDArray[np.int64]:
    """Join the axes so far (pixels × taps → input position, −1 outside) with the next, row-major."""
    looks, size = axis
    first, second = looked[:, None, :, None], looks[None, :, None, :]
    joined = np.where((first < 0) | (second < 0), -1, first * size + second)
    return joined.reshape(looked.shape[0] * looks.shape[0], -1)


def _looks(
    conv: Convolution | TransposedConvolution, axis: int, numbers: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return, for ``count`` outputs along one axis and each tap, the input pixel looked at."""
    starts = np.arange(count) * conv.stride[axis]
    steps = np.arange(conv.kernel_size[axis]) * conv.dilation[axis]
    looks: NDArray[np.int64] = numbers[starts[:, None] + steps]
    return looks


# Padding the pixels' numbers instead of the pixels turns every padding mode into the same gather.
_PADDING_MODES: dict[str, dict[str, Any]] = {
    "zeros": {"mode": "constant", "constant_values": -1},
    "reflect": {"mode": "reflect"},
    "replicate": {"mode": "edge"},
    "circular": {"mode": "wrap"},
}


def _number_pixels(conv: Convolution | TransposedConvolution, axis: int, size: int) -> NDArray[np.int64]:
    """Number the pixels of one padded axis: each place names the pixel it shows, −1 is zero padding."""
    padding = _padding(conv, axis)
    limit = {"reflect": size - 1, "circular": size}.get(conv.padding_mode, max(padding))
    if max(padding) > limit:
        raise GeometryError(
            f"{conv.padding_mode} padding of {max(padding)} pixels along axis {axis} of size {size}",
            f"at most {limit}",
            f"use an input of at least {size + max(padding) - limit} pixels along that axis",
        )
    numbers: NDArray[np.int64] = np.pad(np.arange(size), padding, **_PADDING_MODES[conv.padding_mode])
    return numbers


def _padding(conv: Convolution | TransposedConvolution, axis: int) -> tuple[int, int]:
    """Return the pixels added before and after one axis."""
    if conv.padding == "valid":
        return 0, 0
    if conv.padding == "same":
        total = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
        return total // 2, total - total // 2
    return int(conv.padding[axis]), int(conv.padding[axis])


def _check_plain(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Refuse layers whose forward pass is not the one the matrix is made for."""
    if not any(isinstance(layer, kind) and type(layer).forward is kind.forward for kind in kinds):
        names = ", ".join(f"nn.{kind.__name__}" for kind in kinds)
        raise SurgeryError(
            f"a layer of class {type(layer).__module__}.{type(layer).__qualname__}",
            f"one of {names}, with the forward pass of that class",
            "pass the plain layer; a subclass that pads or rescales by itself has to be written out as plain "
            "layers first",
        )
    if any(is_lazy(parameter) or parameter.is_meta for parameter in layer.parameters()):
        raise SurgeryError(
            f"a layer {type(layer).__name__} that has no weights yet",
            "a layer with weights",
            "load them, or run a lazy network once on an image of the training size",
        )


def _check_size(conv: Convolution | TransposedConvolution, size: Sequence[int]) -> tuple[int, ...]:
    """Refuse an input size that is not one positive number per axis."""
    axes = len(conv.kernel_size)
    if not isinstance(size, Sequence) or len(size) != axes or any(pixels < 1 for pixels in size):
        raise GeometryError(
            f"input size {size}",
            f"{axes} positive numbers, one per axis",
            "pass (height, width) for two dimensions, without batch and channels",
        )
    return tuple(int(pixels) for pixels in size)


def _to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Return the numbers of a tensor, half precision widened to float32."""
    values = tensor.detach().cpu()
    return (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).numpy()
