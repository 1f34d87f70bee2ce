"""How far a network looks: the receptive field of one cell, along the largest path."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fullyconv.surgery.positions import Kind, Place
from fullyconv.surgery.sliding import AdaptivePoolWindow, DilatedAvgPool2d, StackWindow
from fullyconv.surgery.tracing import Traced

_KERNELS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, DilatedAvgPool2d)


def receptive_field(traced: Traced, places: dict[fx.Node, Place]) -> tuple[int, int]:
    """Return (height, width) in pixels of what one cell of the first output depends on.

    The field grows by (kernel − 1) · dilation · stride at each layer (Dumoulin and Visin, arXiv 1603.07285,
    and Araujo et al., Distill 2019); zero padding counts as part of it.
    """
    fields: dict[fx.Node, tuple[Fraction, Fraction]] = {}
    for node in traced.graph.nodes:
        sources = [source for source in node.all_input_nodes if source in fields]
        if node.op == "placeholder":
            fields[node] = (Fraction(1), Fraction(1))
        elif sources and places.get(node) is not None and node.op != "output":
            extent = window_of(traced, places, node)
            stride = next(
                (places[s].stride for s in sources if places[s].kind is Kind.MAP), (Fraction(0),) * 2
            )
            fields[node] = (
                max(fields[s][0] for s in sources) + (extent[0] - 1) * stride[0],
                max(fields[s][1] for s in sources) + (extent[1] - 1) * stride[1],
            )
        elif node.op == "output":
            height, width = fields[node.all_input_nodes[0]]
            return ceil(height), ceil(width)
    raise AssertionError("a graph without an output")


def window_of(traced: Traced, places: dict[fx.Node, Place], node: fx.Node) -> tuple[int, int]:
    """Return how many rows and columns of its input one output value of a node spans."""
    if node.op == "call_module":
        return _layer_window(traced.attribute(str(node.target)))
    if node.target in (F.avg_pool2d, F.max_pool2d):
        return _pair(node.args[1] if len(node.args) > 1 else node.kwargs["kernel_size"])
    if node.target in (F.conv2d, torch.conv2d):
        weight = node.args[1] if len(node.args) > 1 else node.kwargs["weight"]
        dilation = _pair(node.args[5] if len(node.args) > 5 else node.kwargs.get("dilation", 1))
        assert isinstance(weight, fx.Node)
        return _extent(places[weight].shape[-2:], dilation)
    return 1, 1


def _layer_window(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, _KERNELS):
        return _extent(_pair(layer.kernel_size), _pair(getattr(layer, "dilation", 1)))
    if isinstance(layer, StackWindow):
        return _extent(layer.window, layer.dilation)
    if isinstance(layer, AdaptivePoolWindow):
        return layer.window
    # A layer that stayed whole spans at most what its own layers span one after the other.
    inside = [_layer_window(part) for part in layer.children()]
    return 1 + sum(height - 1 for height, _ in inside), 1 + sum(width - 1 for _, width in inside)


def _extent(kernel: Any, dilation: tuple[int, int]) -> tuple[int, int]:
    return (int(kernel[0]) - 1) * dilation[0] + 1, (int(kernel[1]) - 1) * dilation[1] + 1


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))
