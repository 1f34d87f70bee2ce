"""Rules for what acts on the channels at each position: fully connected layers, norms, softmax."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fullyconv.surgery.lifting import Lifted, Lifting, NoDenseForm
from fullyconv.surgery.linear import linear_to_conv
from fullyconv.surgery.rules._vectors import as_vector, by_channel, order_of
from fullyconv.surgery.sliding import BatchToPositions, PositionsToBatch, WindowConv2d


def linear(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """A fully connected layer becomes a convolution over the window that it was trained on."""
    layer = lifting.part(node)
    x, order, sizes = _before_linear(lifting, node, x)
    if order == "CHW":
        conv = linear_to_conv(layer, (sizes[1], sizes[2]))
        lifting.flattened.add(f"{node.target}.weight")
    else:
        ordered = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta").train(
            layer.training
        )
        kernels = _in_order(layer.weight.detach().reshape(-1, *sizes), order).flatten(1)
        ordered.weight = nn.Parameter(kernels, layer.weight.requires_grad)
        conv = linear_to_conv(ordered, (sizes[order.index("H")], sizes[order.index("W")]))
        conv.bias = layer.bias
        conv.train(layer.training)
    if conv.kernel_size != (1, 1):
        conv = WindowConv2d.like(conv)
        conv.dilation = x.dilation
    return _after_linear(x, lifting.instead(node, conv, x.node), layer.out_features)


def linear_function(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """`F.linear` with weights that may be computed: the same convolution as a function."""
    x, order, sizes = _before_linear(lifting, node, x)
    outputs = int(lifting.argument(node, 1, "weight").shape[0])
    weight, bias = lifting.given(node, 1, "weight"), lifting.given(node, 2, "bias")
    kernels = lifting.method("reshape", lifting.copied(weight), outputs, *sizes)
    if order != "CHW":
        kernels = lifting.method("permute", kernels, 0, *(1 + order.index(factor) for factor in "CHW"))
    bias = lifting.copied(bias) if isinstance(bias, fx.Node) else None
    return _after_linear(x, lifting.call(F.conv2d, x.node, kernels, bias, 1, 0, x.dilation), outputs)


def _in_order(kernels: torch.Tensor, order: str) -> torch.Tensor:
    return kernels.permute(0, *(1 + order.index(factor) for factor in "CHW"))


def _before_linear(lifting: Lifting, node: fx.Node, x: Lifted) -> tuple[Lifted, str, tuple[int, ...]]:
    """Return the operand, the order of the factors that the layer reads, and their sizes."""
    if x.piled:
        x = as_vector(lifting, node, x)
    last, others = set(x.axes[-1]), {factor for axis in x.axes[:-1] for factor in axis}
    if "N" in last or "C" in others or (last & {"H", "W"} and others & {"H", "W"}):
        raise NoDenseForm("connects positions with each other, channel by channel")
    order = order_of(x.axes[-1])
    sizes = tuple(x.factors[factor] if factor in last else 1 for factor in order)
    return x, order, sizes


def _after_linear(x: Lifted, dense: fx.Node, outputs: int) -> Lifted:
    left = x.without({*x.axes[-1], "C"})
    return replace(left, node=dense, channels=outputs, axes=(*left.axes[:-1], ("C",) if outputs > 1 else ()))


def batch_norm_1d(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Batch normalisation of vectors: the two-dimensional one, with the same weights and statistics."""
    layer = lifting.part(node)
    x = by_channel(lifting, node, x)
    options = (layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    twin = nn.BatchNorm2d(layer.num_features, *options, device="meta").train(layer.training)
    twin._parameters, twin._buffers = dict(layer._parameters), dict(layer._buffers)
    return replace(x, node=lifting.instead(node, twin, x.node))


def last_axis(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Layer normalisation and others that act on the last axis: channels are moved last, and back."""
    x = by_channel(lifting, node, x)
    shape = getattr(lifting.part(node), "normalized_shape", None) or lifting.argument(
        node, 1, "normalized_shape"
    )
    if x.axes[-1] != ("C",) or len(shape) != 1:
        raise NoDenseForm("normalises over positions")
    last = lifting.method("permute", x.node, 0, 2, 3, 1)
    dense = lifting.repeated(node, {lifting.values(node)[0]: last})
    return replace(x, node=lifting.method("permute", dense, 0, 3, 1, 2))


def softmax(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Softmax and others along one axis, which must be the channels."""
    x = by_channel(lifting, node, x)
    layer = lifting.part(node)
    dim = layer.dim if layer else lifting.argument(node, 2 if node.target is F.normalize else 1, "dim", 1)
    if x.axes[1 if dim is None else dim] not in (("C",), ()):
        raise NoDenseForm("normalises over the batch or over positions")
    function: Any = node.target
    if layer:
        function = torch.log_softmax if isinstance(layer, nn.LogSoftmax) else torch.softmax
    elif isinstance(function, str):
        function = getattr(torch, function)
    return replace(x, node=lifting.call(function, x.node, dim=1))


def at_each_position(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """A layer that the table does not know, from vectors to vectors: positions become samples of a batch."""
    shape, own = lifting.places[node].shape, x.shape[1:]
    channels = prod(shape[1:])
    if x.window != (1, 1) or len(node.all_input_nodes) != 1 or shape[1:2] != (channels,):
        raise NoDenseForm("has no sliding form")
    batch = lifting.layer(node, PositionsToBatch(own), x.node)
    dense = lifting.repeated(node, {lifting.values(node)[0]: batch})
    axes = (("N",), ("C",) if channels > 1 else (), *((),) * (len(shape) - 2))
    return replace(
        x, node=lifting.layer(node, BatchToPositions(), dense, x.node), channels=channels, axes=axes
    )
