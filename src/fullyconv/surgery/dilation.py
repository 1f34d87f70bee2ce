"""Finer scores from the same weights: à trous convolution, and shift-and-stitch, which it equals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fullyconv.errors import ConfigError, SurgeryError
from fullyconv.surgery.dense import DenseClassifier
from fullyconv.surgery.positions import Kind, Place, first_tensor, survey
from fullyconv.surgery.sliding import (
    AdaptivePoolWindow,
    CropEnd,
    DilatedAvgPool2d,
    StackPile,
    StackWindow,
    Subsample,
)
from fullyconv.surgery.tracing import Traced, described, trace

Pair = tuple[int, int]


def dilate(dense: DenseClassifier, output_stride: int) -> DenseClassifier:
    """Return the same network with scores every ``output_stride`` pixels, from the same weights.

    Layers that would make the stride larger no longer stride, and the layers after them look at values as far
    apart as before (filter rarefaction, "à trous"). Every ``stride / output_stride``-th score is a score of
    ``dense``; where no layer pads, all scores equal `shift_and_stitch`.

    Parameters
    ----------
    dense
        `convolutionalize` of a classifier; it is left as it is and shares its parameters with the result.
    output_stride
        Pixels from cell to cell, 16, 8, 4, …: a divisor of ``dense.stride``.

    Returns
    -------
    DenseClassifier
        N×C×H×W → N×K×h×w, with about (stride / output_stride)² times the cells.

    Raises
    ------
    ConfigError
        ``output_stride`` does not divide the stride.
    SurgeryError
        A layer cannot be dilated; the message names it.

    Notes
    -----
    Sources: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation"
    (arXiv 1411.4038), section 3.2; Chen et al., "DeepLab" (arXiv 1412.7062), section 3.1.
    """
    _check_stride(dense, output_stride)
    layers: dict[str, nn.Module] = {}
    dilations = {}
    for training in (False, True):
        traced = trace(dense, training=training)
        places = survey(traced, dense.channels, dense.input_size)
        dilations[training] = _Dilation(traced, places, output_stride, layers)
        dilations[training].run()
    parts = {
        target: layers[target] if target in layers else dilation.traced.attribute(target)
        for dilation in dilations.values()
        for node in dilation.graph.nodes
        if node.op in ("call_module", "get_attr") and (target := str(node.target))
    }
    graphs = {training: dilation.graph for training, dilation in dilations.items()}
    return dense.rewritten(graphs, parts, (output_stride, output_stride))


@torch.no_grad()
def shift_and_stitch(dense: DenseClassifier, image: Tensor, output_stride: int) -> Tensor:
    """Return scores every ``output_stride`` pixels by running ``dense`` on shifted images, interleaved.

    The slow way to what `dilate` computes in one pass.

    Parameters
    ----------
    dense
        `convolutionalize` of a classifier.
    image
        N×C×H×W.
    output_stride
        Pixels from cell to cell: a divisor of ``dense.stride``.

    Returns
    -------
    Tensor
        N×K×h×w, the cells whose windows lie inside the image.

    Raises
    ------
    ConfigError
        ``output_stride`` does not divide the stride.

    Notes
    -----
    Source: Long, Shelhamer, Darrell (arXiv 1411.4038), section 3.2.
    """
    _check_stride(dense, output_stride)
    times = dense.stride[0] // output_stride, dense.stride[1] // output_stride
    height, width = int(image.shape[-2]), int(image.shape[-1])
    stitched: Tensor | None = None
    for a in range(times[0]):
        for b in range(times[1]):
            down, right = a * output_stride, b * output_stride
            # Zeros at the end keep the size; the cells that see them are cut off below.
            shifted = F.pad(image[..., down:, right:], (0, right, 0, down))
            scores = first_tensor(dense(shifted))
            if stitched is None:
                rows, columns = scores.shape[2] * times[0], scores.shape[3] * times[1]
                stitched = scores.new_empty(*scores.shape[:2], rows, columns)
            stitched[..., a :: times[0], b :: times[1]] = scores
    assert stitched is not None
    rows = sum(_cells(dense, (height - a * output_stride, width))[0] for a in range(times[0]))
    columns = sum(_cells(dense, (height, width - b * output_stride))[1] for b in range(times[1]))
    return stitched[..., :rows, :columns]


def _cells(dense: DenseClassifier, size: Pair) -> Pair:
    """Return (height, width) of the scores; (0, 0) for images too small for a single one."""
    try:
        return dense.cells(size) if min(size) > 0 else (0, 0)
    except SurgeryError:
        return 0, 0


def _check_stride(dense: DenseClassifier, output_stride: int) -> None:
    if output_stride < 1 or any(own % output_stride for own in dense.stride):
        raise ConfigError(
            f"output_stride={output_stride} for a network of stride {dense.stride[0]}×{dense.stride[1]}",
            "a divisor of the stride",
            f"pass output_stride={max(1, min(dense.stride) // 2)}, or convolutionalize another classifier",
        )


@dataclass(frozen=True)
class _Change:
    """What happens to one layer: the old and the new stride of its own, and how far its values move apart."""

    old_step: Pair
    new_step: Pair
    factor: Pair


@dataclass
class _Dilation:
    """One mode of a dense network on its way to a smaller stride."""

    traced: Traced
    places: dict[fx.Node, Place]
    output_stride: int
    layers: dict[str, nn.Module]
    graph: fx.Graph = field(default_factory=fx.Graph)

    def run(self) -> None:
        """Build the dilated graph."""
        copies: dict[fx.Node, fx.Node] = {}
        piled: set[fx.Node] = set()
        for node in self.traced.graph.nodes:
            layer = self._as_layer(node)
            # Maps that lie one below the other have no stride of their own, and nothing there slides.
            inside = any(source in piled for source in node.all_input_nodes)
            if isinstance(layer, AdaptivePoolWindow) or (inside and not isinstance(layer, StackPile)):
                piled.add(node)
            change = None if inside else self._change(node)
            if change is None:
                copies[node] = self.graph.node_copy(node, copies.__getitem__)
                continue
            rule = next((DILATIONS[kind] for kind in type(layer).__mro__ if kind in DILATIONS), None)
            if rule is None or layer is None:
                copies[node] = self._without_rule(node, change, copies)
                continue
            x = copies[next(s for s in node.all_input_nodes if self.places[s].kind is Kind.MAP)]
            for number, part in enumerate(rule(node, layer, change)):
                own = node.op == "call_module" and isinstance(part, nn.Conv2d)
                target = str(node.target) if own else f"{node.name}_{type(part).__name__}_{number}"
                self.layers.setdefault(target, part)
                x = self.graph.call_module(target, (x,))
            copies[node] = x

    def _change(self, node: fx.Node) -> _Change | None:
        """Return what happens to a node, or None where it stays as it is."""
        sources = [source for source in node.all_input_nodes if self.places[source].kind is Kind.MAP]
        if node.op in ("placeholder", "output") or self.places[node].kind is not Kind.MAP or not sources:
            return None
        before, after = self.places[sources[0]].stride, self.places[node].stride
        if isinstance(self._as_layer(node), AdaptivePoolWindow):
            after = before
        new_before, new_after = self._bounded(before), self._bounded(after)
        if (before, after) == (new_before, new_after):
            return None
        return _Change(
            _ratio(node, after, before), _ratio(node, new_after, new_before), _ratio(node, before, new_before)
        )

    def _bounded(self, stride: tuple[Fraction, Fraction]) -> tuple[Fraction, Fraction]:
        most = Fraction(self.output_stride)
        return min(stride[0], most), min(stride[1], most)

    def _as_layer(self, node: fx.Node) -> nn.Module | None:
        """Return the layer that a node calls, or that its function amounts to."""
        if node.op == "call_module":
            layer: nn.Module = self.traced.attribute(str(node.target))
            return layer
        kinds: dict[Any, Any] = {F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d}
        kind = kinds.get(node.target)
        return kind(*node.args[1:], **node.kwargs) if kind else None

    def _without_rule(self, node: fx.Node, change: _Change, copies: dict[fx.Node, fx.Node]) -> fx.Node:
        if node.target in (F.conv2d, torch.conv2d):
            return self._convolution(node, change, copies)
        source = next(s for s in node.all_input_nodes if self.places[s].kind is Kind.MAP)
        layer = self._as_layer(node)
        looks = layer is not None and any(hasattr(part, "kernel_size") for part in layer.modules())
        if looks or change.old_step != (1, 1) or self.places[source].size != self.places[node].size:
            _refuse(node, "looks at neighbours in a way that cannot be moved apart")
        return self.graph.node_copy(node, copies.__getitem__)

    def _convolution(self, node: fx.Node, change: _Change, copies: dict[fx.Node, fx.Node]) -> fx.Node:
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        options: dict[str, Any] = dict(fx.map_arg(given, copies.__getitem__))
        padding = options.get("padding", 0)
        options["stride"] = change.new_step
        options["dilation"] = _times(_pair(options.get("dilation", 1)), change.factor)
        options["padding"] = padding if isinstance(padding, str) else _times(_pair(padding), change.factor)
        return self.graph.call_function(F.conv2d, (), options)


def _conv(node: fx.Node, layer: nn.Module, change: _Change) -> list[nn.Module]:
    assert isinstance(layer, nn.Conv2d)
    if type(layer).__name__.endswith("Same") and change.old_step != (1, 1):
        _refuse(node, "pads by an amount that depends on the size of the image and on its stride")
    sparse = copy.copy(layer)
    sparse._parameters, sparse._buffers = dict(layer._parameters), dict(layer._buffers)
    sparse.stride, sparse.dilation = change.new_step, _times(_pair(layer.dilation), change.factor)
    if not isinstance(layer.padding, str):
        rows, columns = _times(_pair(layer.padding), change.factor)
        sparse.padding = (rows, columns)
        sparse._reversed_padding_repeated_twice = [columns, columns, rows, rows]
    return [sparse]


def _max_pool(node: fx.Node, layer: nn.Module, change: _Change) -> list[nn.Module]:
    assert isinstance(layer, nn.MaxPool2d)
    rows, columns = _times(_pair(layer.padding), change.factor)
    below, beside = _overhang(layer.ceil_mode, change)
    dilation = _times(_pair(layer.dilation), change.factor)
    pool = nn.MaxPool2d(_pair(layer.kernel_size), change.new_step, dilation=dilation)
    # torch pads at most half a kernel, and not at one end alone.
    padding = (columns, columns + beside, rows, rows + below)
    return [nn.ConstantPad2d(padding, -torch.inf), pool] if any(padding) else [pool]


def _avg_pool(node: fx.Node, layer: nn.Module, change: _Change) -> list[nn.Module]:
    assert isinstance(layer, nn.AvgPool2d)
    if layer.divisor_override:
        _refuse(node, "averages with a divisor of its own")
    return [
        DilatedAvgPool2d(
            _pair(layer.kernel_size),
            change.new_step,
            _times(_pair(layer.padding), change.factor),
            change.factor,
            count_include_pad=layer.count_include_pad,
            overhang=_overhang(layer.ceil_mode, change),
        )
    ]


def _dilated_avg_pool(node: fx.Node, layer: nn.Module, change: _Change) -> list[nn.Module]:
    assert isinstance(layer, DilatedAvgPool2d)
    return [
        DilatedAvgPool2d(
            layer.kernel_size,
            change.new_step,
            _times(layer.padding, change.factor),
            _times(layer.dilation, change.factor),
            count_include_pad=layer.count_include_pad,
            overhang=_times(layer.overhang, change.factor),
        )
    ]


def _stack_window(node: fx.Node, layer: nn.Module, change: _Change) -> list[nn.Module]:
    assert isinstance(layer, StackWindow)
    return [StackWindow(layer.window, _times(layer.dilation, change.factor), layer.order)]


def _subsample(node: fx.Node, layer: nn.Module, change: _Change) -> list[nn.Module]:
    return [Subsample(change.new_step)]


def _crop_end(node: fx.Node, layer: nn.Module, change: _Change) -> list[nn.Module]:
    assert isinstance(layer, CropEnd)
    return [CropEnd(_times(layer.amount, change.factor))]


def _adaptive_pool_window(node: fx.Node, layer: nn.Module, change: _Change) -> list[nn.Module]:
    assert isinstance(layer, AdaptivePoolWindow)
    dilation = _times(layer.dilation, change.factor)
    return [AdaptivePoolWindow(layer.window, layer.output_size, layer.kind, dilation)]


def _overhang(ceil_mode: bool, change: _Change) -> Pair:
    """Return how far windows reach beyond the end of a map where a pool rounds its size up."""
    if not ceil_mode:
        return 0, 0
    return (change.old_step[0] - 1) * change.factor[0], (change.old_step[1] - 1) * change.factor[1]


def _refuse(node: fx.Node, reason: str) -> NoReturn:
    raise SurgeryError(
        f"{described(node)} {reason}",
        "convolutions and pools with a fixed kernel and padding",
        "use a larger output_stride, so that this layer is not changed, or shift_and_stitch",
    )


def _ratio(node: fx.Node, large: tuple[Fraction, Fraction], small: tuple[Fraction, Fraction]) -> Pair:
    ratios = large[0] / small[0], large[1] / small[1]
    if any(ratio.denominator != 1 for ratio in ratios):
        _refuse(node, "changes the stride by a fraction")
    return int(ratios[0]), int(ratios[1])


def _times(first: Pair, second: Pair) -> Pair:
    return first[0] * second[0], first[1] * second[1]


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


DILATIONS: dict[type[nn.Module], Callable[[fx.Node, nn.Module, _Change], list[nn.Module]]] = {
    nn.Conv2d: _conv,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    DilatedAvgPool2d: _dilated_avg_pool,
    StackWindow: _stack_window,
    Subsample: _subsample,
    CropEnd: _crop_end,
    AdaptivePoolWindow: _adaptive_pool_window,
}
