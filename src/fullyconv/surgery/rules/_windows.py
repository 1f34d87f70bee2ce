"""Rules for what acts on the positions inside a window: pools, convolutions, means over space."""

from __future__ import annotations

import copy
import operator
from dataclasses import replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fullyconv.surgery.lifting import Lifted, Lifting, NoDenseForm, Pair
from fullyconv.surgery.rules._vectors import by_channel
from fullyconv.surgery.sliding import AdaptivePoolWindow, CropEnd, DilatedAvgPool2d, adaptive_regions


def convolution(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """A convolution inside the window, without padding: its taps move apart with the window's values."""
    layer = lifting.part(node)
    if type(layer).forward is not nn.Conv2d.forward:
        raise NoDenseForm("is a convolution of another kind inside the head")
    padding = {"valid": 0, "same": 0 if layer.kernel_size == (1, 1) else 1}.get(layer.padding, layer.padding)
    kernel, stride, dilation = (_pair(o) for o in (layer.kernel_size, layer.stride, layer.dilation))
    x = _before_window(lifting, node, x, kernel, _pair(padding), stride, dilation)
    sliding = layer
    if x.dilation != (1, 1) or stride != (1, 1):
        sliding = copy.copy(layer)
        sliding._parameters = dict(layer._parameters)
        sliding.stride = (1, 1)
        sliding.dilation = tuple(own * apart for own, apart in zip(layer.dilation, x.dilation, strict=True))
    dense = lifting.instead(node, sliding, x.node)
    return _after_window(lifting, node, x, dense, stride)


def fixed_pool(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Pooling with a fixed kernel inside the window."""
    layer = lifting.part(node)

    def option(position: int, name: str, default: Any) -> Any:
        return getattr(layer, name, default) if layer else lifting.argument(node, position, name, default)

    kernel = _pair(option(1, "kernel_size", None))
    stride = _pair(option(2, "stride", None) or kernel)
    average = isinstance(layer, nn.AvgPool2d) or node.target is F.avg_pool2d
    own = (1, 1) if average else _pair(option(4, "dilation", 1))
    x = _before_window(lifting, node, x, kernel, _pair(option(3, "padding", 0)), stride, own)
    dense = slide_pool(lifting, node, x, kernel, (own[0] * x.dilation[0], own[1] * x.dilation[1]), average)
    return _after_window(lifting, node, x, dense, stride)


def adaptive_pool(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Adaptive pooling to k×k: a sliding pool, its regions at fixed places of the window."""
    average = isinstance(lifting.part(node), nn.AdaptiveAvgPool2d) or node.target is F.adaptive_avg_pool2d
    height, width = lifting.places[node].shape[-2:]
    regions = adaptive_regions(x.window[0], height), adaptive_regions(x.window[1], width)
    if x.window == (height, width):
        return x
    _check_map(x)
    if all(_is_regular(parts) for parts in regions):
        dense = slide_pool(lifting, node, x, (regions[0][0][1], regions[1][0][1]), x.dilation, average)
        step = tuple(parts[1][0] if len(parts) > 1 else 1 for parts in regions)
        return _after_window(lifting, node, x, dense, (step[0], step[1]))
    if x.dilation != (1, 1):
        raise NoDenseForm("pools a pooled map to a size that does not divide it")
    dense = lifting.layer(
        node, AdaptivePoolWindow(x.window, (height, width), "mean" if average else "max"), x.node
    )
    return replace(_after_window(lifting, node, x, dense, (1, 1)), dilation=(1, 1), piled=True)


def _is_regular(regions: list[Pair]) -> bool:
    """Whether pooled regions have one size and lie equally far apart: one sliding pool gives them all."""
    step = regions[1][0] if len(regions) > 1 else 1
    return step > 0 and all((a, b - a) == (k * step, regions[0][1]) for k, (a, b) in enumerate(regions))


def _check_map(x: Lifted) -> None:
    """Refuse windows that are no map N×C×h×w."""
    if len(x.axes) != 4 or any(set(axis) - {name} for axis, name in zip(x.axes, "NCHW", strict=True)):
        raise NoDenseForm("acts on positions in an order that is not understood")


def _before_window(
    lifting: Lifting, node: fx.Node, x: Lifted, kernel: Pair, padding: Pair, stride: Pair, dilation: Pair
) -> Lifted:
    """Refuse what a layer with a kernel cannot do to a window, and leave out what it does not reach."""
    _check_map(x)
    if any(padding):
        raise NoDenseForm("pads with zeros inside the window, where the larger image has values")
    if x.piled and (kernel, stride) != ((1, 1), (1, 1)):
        raise NoDenseForm("acts on a map that was pooled to a size that does not divide it")
    count = lifting.places[node].shape[2:]
    reached = [
        (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(count, stride, kernel, dilation, strict=True)
    ]
    rest = [(w - r) * apart for w, r, apart in zip(x.window, reached, x.dilation, strict=True)]
    if not any(rest):
        return x
    return replace(x, node=lifting.layer(node, CropEnd((rest[0], rest[1])), x.node))


def _after_window(lifting: Lifting, node: fx.Node, x: Lifted, dense: fx.Node, stride: Pair) -> Lifted:
    shape = lifting.places[node].shape
    apart = tuple(
        old * step if taps > 1 else 1 for old, step, taps in zip(x.dilation, stride, shape[2:], strict=True)
    )
    axes = tuple((name,) if extent > 1 else () for name, extent in zip("NCHW", shape, strict=True))
    return replace(
        x,
        node=dense,
        channels=shape[1],
        window=(shape[2], shape[3]),
        dilation=(apart[0], apart[1]),
        axes=axes,
    )


def slide_pool(
    lifting: Lifting, node: fx.Node, x: Lifted, kernel: Pair, dilation: Pair, average: bool
) -> fx.Node:
    """Add a pool that moves by one position."""
    if kernel == (1, 1):
        return x.node
    pool: nn.Module = nn.MaxPool2d(kernel, stride=1, dilation=dilation)
    if average:
        plain = nn.AvgPool2d(kernel, stride=1)
        pool = plain if dilation == (1, 1) else DilatedAvgPool2d(kernel, dilation=dilation)
    return lifting.layer(node, pool, x.node)


def reduce(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Mean, maximum and sum over space (a sliding pool) or over channels."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    dims = lifting.argument(node, 1, "dim")
    if dims is None or x.piled:
        raise NoDenseForm("reduces the batch, or a map that was pooled to a size that does not divide it")
    factors = {factor for dim in ([dims] if isinstance(dims, int) else dims) for factor in x.axes[dim]}
    if factors <= {"C"}:
        x = by_channel(lifting, node, x)
        dense = lifting.call(getattr(torch, name), x.node, 1, keepdim=True)
        return replace(x.without({"C"}), node=dense).seen_as(lifting.places[node].shape)
    if not factors <= {"H", "W"}:
        raise NoDenseForm("reduces channels and positions, or the batch, at once")
    kernel = (x.window[0] if "H" in factors else 1, x.window[1] if "W" in factors else 1)
    dense = slide_pool(lifting, node, x, kernel, x.dilation, average=name != "amax")
    if name == "sum":
        dense = lifting.call(operator.mul, dense, prod(kernel))
    return replace(x.without(factors), node=dense).seen_as(lifting.places[node].shape)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
