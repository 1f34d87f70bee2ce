"""A fully connected layer as a convolution, and a convolution as a fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, prod

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fullyconv.errors import GeometryError, MachineError, SurgeryError
from fullyconv.surgery.matrices import MAX_ENTRIES, Convolution, bias_vector, conv_matrix


def linear_to_conv(linear: nn.Linear, feature_size: tuple[int, int]) -> nn.Conv2d:
    """Return the convolution that a fully connected layer is on a map of ``feature_size``.

    A layer of C·h·w inputs becomes an h×w kernel over C channels. On a map of h×w it gives the same K numbers
    as K×1×1; on a larger map it gives what the layer gives on each h×w window.

    Parameters
    ----------
    linear
        A layer that reads a flattened N×C×h×w map in (channel, row, column) order, as ``nn.Flatten`` gives.
    feature_size
        (height, width) of that map at the training size.

    Returns
    -------
    nn.Conv2d
        N×C×H×W → N×K×(H−h+1)×(W−w+1). Its parameters are views of the layer's: the same memory (training one
        in place changes the other), dtype, device, train/eval mode and ``requires_grad``.

    Raises
    ------
    SurgeryError
        Not a plain ``nn.Linear``, or its inputs are no whole number of channels of ``feature_size``.
    GeometryError
        ``feature_size`` is not two positive numbers.

    Notes
    -----
    Source: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation"
    (arXiv 1411.4038), section 3.1. The reverse is `conv_to_linear`.

    Examples
    --------
    >>> linear_to_conv(nn.Linear(512 * 7 * 7, 4096), (7, 7))
    Conv2d(512, 4096, kernel_size=(7, 7), stride=(1, 1))
    """
    if not isinstance(linear, nn.Linear) or type(linear).forward is not nn.Linear.forward:
        raise SurgeryError(
            f"a layer of class {type(linear).__module__}.{type(linear).__qualname__}",
            "an nn.Linear with the forward pass of that class",
            "pass the fully connected layer itself",
        )
    if is_lazy(linear.weight):
        raise SurgeryError(
            "a lazy fully connected layer that has no weights yet",
            "a layer with weights",
            "run the network once on an image of the training size",
        )
    channels = _channels(linear.in_features, feature_size)
    # The meta device makes the layer without drawing numbers that would be thrown away.
    conv = nn.Conv2d(channels, linear.out_features, feature_size, bias=linear.bias is not None, device="meta")
    kernel = linear.weight.detach().reshape(conv.weight.shape)
    conv.weight = nn.Parameter(kernel, requires_grad=linear.weight.requires_grad)
    if linear.bias is not None:
        conv.bias = nn.Parameter(linear.bias.detach(), requires_grad=linear.bias.requires_grad)
    return conv.train(linear.training)


def conv_to_linear(
    conv: Convolution, input_size: Sequence[int], *, max_entries: int = MAX_ENTRIES
) -> nn.Linear:
    """Return the fully connected layer that a convolution is on inputs of one size.

    Parameters
    ----------
    conv
        A plain convolution with any stride, padding, dilation, groups and bias.
    input_size
        Size of the input, (height, width) for two dimensions.
    max_entries
        Refuse to build a dense matrix with more entries than this.

    Returns
    -------
    nn.Linear
        N×(C·H·W) → N×(K·out_h·out_w), flattened in (channel, row, column) order on both sides, with a copy
        of the weights in the convolution's dtype, device, train/eval mode and ``requires_grad``. Most entries
        are zero: `conv_matrix` is the same matrix without them.

    Raises
    ------
    SurgeryError, GeometryError
        As `conv_matrix`.
    MachineError
        More than ``max_entries`` entries.

    Notes
    -----
    Where the kernel covers the whole input (an h×w kernel without padding on an h×w input) the matrix has no
    zeros, and ``linear_to_conv(conv_to_linear(conv, (h, w)), (h, w))`` has the weights of ``conv`` again.

    Examples
    --------
    >>> conv_to_linear(nn.Conv2d(3, 8, 3, padding=1), (4, 4))
    Linear(in_features=48, out_features=128, bias=True)
    """
    matrix = conv_matrix(conv, input_size, max_entries=max_entries)
    outputs, inputs = matrix.shape
    if outputs * inputs > max_entries:
        raise MachineError(
            f"a dense matrix of {outputs:,} × {inputs:,} for input size {tuple(input_size)}",
            f"at most max_entries={max_entries:,} entries",
            "use conv_matrix, which stores no zeros, a smaller input_size, or a larger max_entries",
        )
    linear = nn.Linear(inputs, outputs, bias=conv.bias is not None, device="meta")
    weight = torch.from_numpy(matrix.toarray()).to(conv.weight)
    linear.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    if conv.bias is not None:
        bias = torch.from_numpy(bias_vector(conv, input_size)).to(conv.bias)
        linear.bias = nn.Parameter(bias, requires_grad=conv.bias.requires_grad)
    return linear.train(conv.training)


def _channels(in_features: int, feature_size: tuple[int, int]) -> int:
    """Return C of C·h·w inputs, or say which feature sizes would fit."""
    if not isinstance(feature_size, Sequence) or len(feature_size) != 2 or min(feature_size) < 1:
        raise GeometryError(
            f"feature size {feature_size}", "two positive numbers", "pass (height, width) of the feature map"
        )
    channels, rest = divmod(in_features, prod(feature_size))
    if rest:
        sides = [side for side in range(1, isqrt(in_features) + 1) if in_features % side**2 == 0]
        fits = ", ".join(f"{side}×{side} of {in_features // side**2} channels" for side in reversed(sides))
        height, width = feature_size
        raise SurgeryError(
            f"a fully connected layer of {in_features} inputs on a {height}×{width} feature map",
            f"a multiple of {height}·{width} = {height * width} inputs",
            f"pass the size of the map before it was flattened; square ones that fit: {fits}",
        )
    return channels
