"""Which layers of a trunk let every position see the whole image."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fullyconv.surgery.positions import Kind, Place
from fullyconv.surgery.tracing import Traced, layer_name

_GLOBAL_LAYERS = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)
_GLOBAL_FUNCTIONS = (F.group_norm, F.instance_norm)
# Size of the map a layer is probed on: more than kernels reach.
_FAR = 48


def global_context(traced: Traced, places: dict[fx.Node, Place], trunk: set[fx.Node]) -> tuple[str, ...]:
    """Return the names of the trunk's layers that pool, normalise or attend over all positions, in order."""
    names = dict.fromkeys(
        layer_name(node) or node.name
        for node in traced.graph.nodes
        if node in trunk and _looks_everywhere(traced, places, node)
    )
    return tuple(names)


def _looks_everywhere(traced: Traced, places: dict[fx.Node, Place], node: fx.Node) -> bool:
    maps = [source for source in node.all_input_nodes if places[source].kind is Kind.MAP]
    if not maps:
        return False
    if places[node].kind in (Kind.VECTOR, Kind.MIXED) or node.target in _GLOBAL_FUNCTIONS:
        return True
    if node.op != "call_module":
        return False
    layer = traced.attribute(str(node.target))
    if isinstance(layer, _GLOBAL_LAYERS):
        return True
    unknown = not type(layer).__module__.startswith("torch.nn") and not isinstance(
        layer, (nn.Conv2d, nn.BatchNorm2d)
    )
    return unknown and len(maps) == 1 and len(node.all_input_nodes) == 1 and _sees_far(layer, places[maps[0]])


@torch.no_grad()
def _sees_far(layer: nn.Module, place: Place) -> bool:
    """Whether a change in one corner of a map shows in the opposite corner; assumed without values."""
    if any(value.is_meta for value in layer.state_dict().values()):
        return True
    probe = copy.deepcopy(layer).cpu().float().eval()
    random = torch.Generator().manual_seed(0)
    for parameter in probe.parameters():
        # A branch that starts at zero must show, too.
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    shape = list(place.shape)
    shape[0], shape[place.axes[0]], shape[place.axes[1]] = 1, _FAR, _FAR
    before = torch.randn(shape, generator=random)
    after = before.clone()
    _corner(after, place, 0).add_(100)
    first, second = probe(before), probe(after)
    if not isinstance(first, torch.Tensor) or first.dim() != len(shape):
        return False
    return not torch.equal(_corner(first, place, -1), _corner(second, place, -1))


def _corner(features: torch.Tensor, place: Place, index: int) -> torch.Tensor:
    for axis in sorted(place.axes, reverse=True):
        features = features.select(axis, index)
    return features


def padded_layers(traced: Traced, trunk: set[fx.Node]) -> tuple[str, ...]:
    """Return the names of the trunk's layers that read zeros beyond the border of a map, in order."""
    names = dict.fromkeys(
        layer_name(node) or node.name for node in traced.graph.nodes if node in trunk and _pads(traced, node)
    )
    return tuple(names)


def _pads(traced: Traced, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(_layer_pads(layer) for layer in traced.attribute(str(node.target)).modules())
    if node.target is F.pad:
        return True
    positions: dict[Any, int] = {F.max_pool2d: 3, F.avg_pool2d: 3, F.conv2d: 4, torch.conv2d: 4}
    position = positions.get(node.target)
    if position is None:
        return False
    padding = node.args[position] if len(node.args) > position else node.kwargs.get("padding", 0)
    return padding not in (0, (0, 0), [0, 0], "valid") or bool(node.kwargs.get("ceil_mode", False))


def _layer_pads(layer: nn.Module) -> bool:
    if isinstance(layer, (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)):
        return True
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        padding = layer.padding
        dynamic = type(layer).__name__.endswith("Same") and layer.kernel_size not in (1, (1, 1))
        return padding not in (0, (0, 0), "valid") or dynamic or bool(getattr(layer, "ceil_mode", False))
    return False
