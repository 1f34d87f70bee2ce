"""Lifting: from the graph of a classifier to the graph that gives its scores at every position.

A classifier is a *trunk* that ends in maps, and a *head* that turns maps into vectors and vectors into
scores. The trunk stays as it is. In the head, a value of the classifier at the training size (a vector N×C,
a pooled map N×C×7×7, a flattened one N×25088) becomes a dense map that holds this value for every window of
the feature map. The rules, one per operation, are in `fullyconv.surgery.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod
from typing import Any, NoReturn

import torch.nn.functional as F
from torch import fx, nn

from fullyconv.errors import SurgeryError
from fullyconv.surgery.positions import BATCH, Kind, Place
from fullyconv.surgery.tracing import Traced, described

Pair = tuple[int, int]
Axes = tuple[tuple[str, ...], ...]

# Words in the names of classes that attend over positions, and in those that only gate channels or pixels.
_ATTENTION = ("Attention", "LiteMLA", "Transformer")
_GATES = ("Channel", "Spatial", "Pixel", "Coord", "Squeeze")


class NoDenseForm(Exception):  # noqa: N818 (it names a finding)
    """A rule does not apply; the message completes "layer `x` …"."""


@dataclass(frozen=True)
class Lifted:
    """A value of the classifier's head, held for every window in one dense map.

    Parameters
    ----------
    node
        The dense map, N×channels×H'×W', in the new graph.
    axes
        For each axis of the classifier's own value, which of the factors N (batch), C (channels), H and W
        (rows and columns of the window) it holds, in order; factors of size 1 are left out.
    channels, window
        Sizes of C, and of H and W.
    stride
        Distance of neighbouring positions of the dense map, in image pixels.
    dilation
        Where the window's value (i, j) lies: i·dilation[0] rows and j·dilation[1] columns further on.
    piled
        The values of a window do not lie on the map around its position, but as h·w whole maps, one below
        the other: N×channels×(h·w·H')×W'. Needed where the values lie at irregular distances.
    """

    node: fx.Node
    axes: Axes
    channels: int
    window: Pair
    stride: tuple[Fraction, Fraction]
    dilation: Pair = (1, 1)
    piled: bool = False

    @property
    def factors(self) -> dict[str, int]:
        """Size of each factor."""
        return {"N": BATCH, "C": self.channels, "H": self.window[0], "W": self.window[1]}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the classifier's own value."""
        return tuple(prod(self.factors[factor] for factor in axis) for axis in self.axes)

    def seen_as(self, shape: tuple[int, ...]) -> Lifted:
        """Return the same value with its factors in order grouped to ``shape``.

        Raises
        ------
        NoDenseForm
            An axis would hold part of a factor.
        """
        queue = [factor for axis in self.axes for factor in axis]
        axes: list[tuple[str, ...]] = []
        for extent in shape:
            group: list[str] = []
            while prod(self.factors[factor] for factor in group) < extent and queue:
                group.append(queue.pop(0))
            axes.append(tuple(group))
        seen = replace(self, axes=tuple(axes))
        if queue or seen.shape != shape:
            raise NoDenseForm(f"splits or mixes axes, from {self.shape[1:]} to {shape[1:]} per sample")
        return seen

    def without(self, factors: set[str]) -> Lifted:
        """Return this value with some factors reduced to size 1."""
        window = (1 if "H" in factors else self.window[0], 1 if "W" in factors else self.window[1])
        return replace(
            self,
            axes=tuple(tuple(factor for factor in axis if factor not in factors) for axis in self.axes),
            channels=1 if "C" in factors else self.channels,
            window=window,
            dilation=self.dilation if window != (1, 1) else (1, 1),
        )


Rule = Callable[["Lifting", fx.Node, Lifted], Lifted]


@dataclass
class Lifting:
    """One classifier in one mode on its way to the dense form; rules add to ``graph`` and ``layers``."""

    traced: Traced
    places: dict[fx.Node, Place]
    rules: Mapping[Any, Rule]
    unknown: Rule
    layers: dict[str, nn.Module] = field(default_factory=dict)
    graph: fx.Graph = field(default_factory=fx.Graph)
    flattened: set[str] = field(default_factory=set)
    _lifted: dict[fx.Node, Lifted] = field(default_factory=dict)
    _copies: dict[fx.Node, fx.Node] = field(default_factory=dict)

    def run(self) -> Lifted:
        """Build the dense graph and return its first output."""
        trunk = trunk_nodes(self.traced, self.places)
        for node in self.traced.graph.nodes:
            if node.op == "output":
                self.graph.output(fx.map_arg(node.args[0], self._output))
                return self._finished(self._first_output(node))
            if _is_record(node):
                continue
            if node in trunk or node.op == "placeholder":
                self.copied(node)
            elif self.is_value(node) and node.users:
                self._lifted[node] = self._by_rule(node)
        raise AssertionError("a graph without an output")

    def is_value(self, argument: Any) -> bool:
        """Whether an argument of an operation is made from the image's pixels."""
        return isinstance(argument, fx.Node) and self.places[argument].kind not in (Kind.CONSTANT, Kind.OTHER)

    def values(self, node: fx.Node) -> list[fx.Node]:
        """Return those arguments of an operation that are made from the image's pixels."""
        return [source for source in node.all_input_nodes if self.is_value(source)]

    def value(self, node: fx.Node) -> Lifted:
        """Return a value of the head; a map of the trunk enters the head here."""
        if node not in self._lifted:
            self._lifted[node] = self._entering(node)
        return self._lifted[node]

    def part(self, node: fx.Node) -> Any:
        """Return the layer that a node calls; None where it calls a function."""
        return self.traced.attribute(str(node.target)) if node.op == "call_module" else None

    def argument(self, node: fx.Node, position: int, name: str, default: Any = None) -> Any:
        """Return an option of an operation, with what it refers to as it is at the training size."""
        return fx.map_arg(self.given(node, position, name, default), lambda source: self.places[source].value)

    def given(self, node: fx.Node, position: int, name: str, default: Any = None) -> Any:
        """Return an option of an operation as written."""
        return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)

    def copied(self, node: fx.Node) -> fx.Node:
        """Return the node of the new graph that repeats a node of the trunk, or a constant."""
        if node not in self._copies:
            if node in self._lifted:
                refuse(node, "is used as a size or an option")
            self._copies[node] = self.graph.node_copy(node, self.copied)
        return self._copies[node]

    def repeated(self, node: fx.Node, dense: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """Repeat an operation in the new graph, on other arguments."""
        return self.graph.node_copy(node, lambda source: dense.get(source) or self.copied(source))

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Add a function call."""
        return self.graph.call_function(function, args, kwargs)

    def method(self, name: str, *args: Any) -> fx.Node:
        """Add a method call."""
        return self.graph.call_method(name, args)

    def layer(self, node: fx.Node, layer: nn.Module, *args: fx.Node) -> fx.Node:
        """Add a new layer without weights, for an operation."""
        name = f"{node.name}_{type(layer).__name__}"
        while hasattr(self.traced.module, name) or repr(self.layers.get(name, layer)) != repr(layer):
            name += "_"
        self.layers.setdefault(name, layer)
        return self.graph.call_module(name, args)

    def instead(self, node: fx.Node, layer: nn.Module, x: fx.Node) -> fx.Node:
        """Put a new form of the classifier's layer in its place, under its name."""
        known = self.layers.setdefault(str(node.target), layer)
        if repr(known) != repr(layer):
            refuse(node, f"is used twice, as {known} and as {layer}")
        return self.graph.call_module(str(node.target), (x,))

    def _by_rule(self, node: fx.Node) -> Lifted:
        rule = self._rule(node)
        if rule is None:
            refuse(node, "has no sliding form")
        try:
            lifted = rule(self, node, self.value(self.values(node)[0]))
        except NoDenseForm as error:
            refuse(node, str(error))
        if lifted.shape != self.places[node].shape:
            refuse(node, f"gives {self.places[node].shape[1:]} per sample, which is not understood")
        return lifted

    def _rule(self, node: fx.Node) -> Rule | None:
        if node.op != "call_module":
            return self.rules.get(node.target)
        return next((self.rules[c] for c in type(self.part(node)).__mro__ if c in self.rules), self.unknown)

    def _entering(self, node: fx.Node) -> Lifted:
        place = self.places[node]
        if place.kind is not Kind.MAP or len(place.shape) != 4:
            refuse(node, "gives the head something that is not a map of features")
        (channel,) = {1, 2, 3} - set(place.axes)
        dense, order = self.copied(node), (0, channel, *place.axes)
        if order != (0, 1, 2, 3):
            dense = self.method("permute", dense, *order)
        names = dict(zip(order, "NCHW", strict=True))
        axes = tuple((names[axis],) if place.shape[axis] > 1 else () for axis in range(4))
        return Lifted(dense, axes, place.shape[channel], place.size, place.stride)

    def _first_output(self, node: fx.Node) -> fx.Node:
        first = self.values(node)[0]
        return self._first_output(first) if _is_record(first) else first

    def _output(self, node: fx.Node) -> fx.Node:
        """Return what stands for a value of the classifier in the structure of its outputs."""
        if not self.is_value(node):
            return self.copied(node)
        if _is_record(node):
            return self.repeated(node, {source: self._output(source) for source in self.values(node)})
        return self._finished(node).node

    def _finished(self, node: fx.Node) -> Lifted:
        """Return an output as dense scores N×K×H'×W'."""
        place = self.places[node]
        if node not in self._lifted and (place.kind is not Kind.MAP or place.size != (1, 1)):
            refuse(node, f"gives an output of {place.shape[1:]} per sample that is no vector of scores")
        scores = self.value(node)
        try:
            self._lifted[node] = self.rules["output"](self, node, scores)
        except NoDenseForm as error:
            refuse(node, f"gives an output that {error}")
        return self._lifted[node]


def refuse(node: fx.Node, reason: str) -> NoReturn:
    """Raise the error that names the layer which has no dense form."""
    untraceable = node.meta.get("untraceable")
    raise SurgeryError(
        f"{described(node)} {reason}"
        + (f" (its code cannot be traced: {untraceable})" if untraceable else "")
        + "; this classifier has no dense form",
        "a trunk of convolutions, then pooling or flatten, then layers that act on vectors",
        "choose a convolutional classifier, or replace this layer by one that acts at each position",
    )


def refuse_mixing(traced: Traced) -> None:
    """Raise the error that names the first layer that attends or recurs over positions, if any."""
    for node in traced.graph.nodes:
        names = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
        if node.op == "call_module":
            inside = traced.attribute(str(node.target)).named_modules()
            names += [f"{node.target}.{part}".removesuffix(".") for part, _ in inside]
        for name in names:
            layer = traced.module.get_submodule(name)
            kind = type(layer).__name__
            attends = any(word in kind for word in _ATTENTION) and not any(word in kind for word in _GATES)
            if name and (attends or isinstance(layer, nn.RNNBase)):
                raise SurgeryError(
                    f"layer `{name}` ({kind}) mixes all positions; this classifier has no dense form",
                    "a trunk of convolutions, then pooling or flatten, then layers that act on vectors",
                    "choose a convolutional classifier",
                )


def trunk_nodes(traced: Traced, places: dict[fx.Node, Place]) -> set[fx.Node]:
    """Return the nodes that are maps, or that maps are made of (gates, sizes).

    Raises
    ------
    SurgeryError
        A map is made from positions that were merged into one axis, as attention does.
    """
    trunk: set[fx.Node] = set()
    for node in reversed(list(traced.graph.nodes)):
        if node.op != "output" and (places[node].kind is Kind.MAP or any(u in trunk for u in node.users)):
            trunk.add(node)
    for node in traced.graph.nodes:
        # A change in place (`x.div_(2)`) counts although nobody uses what the call returns.
        if node.op == "call_method" and str(node.target).endswith("_") and node.args[0] in trunk:
            trunk.add(node)
        mixed = [source for source in node.all_input_nodes if places[source].kind is Kind.MIXED]
        if node in trunk and places[node].kind is Kind.MAP and mixed:
            refuse(_first_mixed(mixed[0], places), "mixes all positions")
    return trunk - _sliding_pools(traced, places)


def _first_mixed(node: fx.Node, places: dict[fx.Node, Place]) -> fx.Node:
    """Return where positions were first merged, upstream of ``node``."""
    while True:
        earlier = [source for source in node.all_input_nodes if places[source].kind is Kind.MIXED]
        if not earlier:
            return node
        node = earlier[0]


def _sliding_pools(traced: Traced, places: dict[fx.Node, Place]) -> set[fx.Node]:
    """Return average pools that cover the whole map (global pooling with a fixed kernel), and what follows.

    As a part of the trunk they would stride by whole windows; as a part of the head they slide.
    """
    found: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node.op in ("placeholder", "output") or places[node].kind is not Kind.MAP:
            continue
        sources = [source for source in node.all_input_nodes if places[source].kind is Kind.MAP]
        single = len(places[node].shape) == 4 and places[node].size == (1, 1)
        covers = _average_kernel(traced, node) == (places[sources[0]].size if sources else None) != (1, 1)
        if single and (covers or (sources and all(source in found for source in sources))):
            found.add(node)
    # Where the result meets a larger map again, the pool is a part of the trunk.
    users = {user for node in found for user in node.users if user.op != "output"}
    return set() if any(places[user].kind is Kind.MAP and user not in found for user in users) else found


def _is_record(node: fx.Node) -> bool:
    """Whether a node packs outputs into a named tuple or another class of its own."""
    return isinstance(node.target, type) and issubclass(node.target, (tuple, dict))


def _average_kernel(traced: Traced, node: fx.Node) -> Pair:
    """Return the kernel of an average pool with a fixed one; (0, 0) for anything else."""
    kernel: Any = (0, 0)
    if node.op == "call_module":
        layer = traced.attribute(str(node.target))
        kernel = layer.kernel_size if isinstance(layer, nn.AvgPool2d) else kernel
    elif node.target is F.avg_pool2d:
        kernel = node.args[1] if len(node.args) > 1 else node.kwargs["kernel_size"]
    return (kernel, kernel) if isinstance(kernel, int) else (kernel[0], kernel[-1])
