"""A module as a torch.fx graph of its layers, with an error that names the layer where that fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn
from torch.fx.proxy import TraceError

from fullyconv.errors import SurgeryError
from fullyconv.surgery.sliding import SlidingLayer

# What Python and fx raise where a forward pass needs a value that only a real image has.
_UNTRACEABLE = (TraceError, TypeError, RuntimeError, ValueError, AttributeError, IndexError, AssertionError)
_SIZE_METHODS = frozenset({"size", "dim", "numel", "ndimension", "nelement", "stride", "is_contiguous"})


@dataclass(frozen=True, eq=False)
class Traced:
    """A module in one mode: its graph, and the constant tensors its forward pass makes."""

    module: nn.Module
    graph: fx.Graph
    constants: dict[str, Any] = field(default_factory=dict)

    def attribute(self, target: str) -> Any:
        """Return the layer, parameter, buffer or constant that the graph calls ``target``."""
        if target in self.constants:
            return self.constants[target]
        owner, _, name = target.rpartition(".")
        return getattr(self.module.get_submodule(owner), name)


def trace(module: nn.Module, *, training: bool) -> Traced:
    """Trace ``module`` in one mode; its layers stay layers, and the module is left as it was.

    A layer whose code branches on sizes cannot be traced but has a meaning at every size, so it stays whole.

    Raises
    ------
    SurgeryError
        The forward pass branches on the values of the image, or cannot be traced outside of any layer.
    """
    before = set(vars(module))
    with in_mode(module, training):
        try:
            graph = _Tracer().trace(module)
        except _UNTRACEABLE as error:
            raise SurgeryError(
                f"the forward pass of {type(module).__name__} cannot be traced: {_first_line(error)}",
                "a forward pass that is the same list of layers for every image",
                "move the branch or loop into a submodule of its own, or pass the part that can be traced",
            ) from error
    # fx leaves the constant tensors that it met as attributes of the module.
    return Traced(module, graph, {name: module.__dict__.pop(name) for name in set(vars(module)) - before})


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Put every layer in one mode, then each back in its own."""
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = training
    try:
        yield
    finally:
        for part, was in modes:
            part.training = was


def layer_name(node: fx.Node) -> str:
    """Return the dotted name of the layer that a node belongs to; empty for the classifier itself."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack")
    return str(next(reversed(stack.values()))[0]) if stack else ""


def described(node: fx.Node) -> str:
    """Return what a node does and in which layer, for messages."""
    owner = layer_name(node)
    if node.op == "call_module":
        return f"layer `{owner}`"
    done = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"`{done}` in " + (f"layer `{owner}`" if owner else "the classifier's own forward pass")


class _Tracer(fx.Tracer):
    """Keeps torch's own layers, and those timm says must not be traced, as single nodes."""

    def __init__(self) -> None:
        # Only a process that has loaded timm can hold one of its models.
        timm = sys.modules.get("timm.layers")
        functions: tuple[Callable[..., Any], ...] = tuple(timm.get_notrace_functions()) if timm else ()
        self._whole: tuple[type, ...] = tuple(timm.get_notrace_modules()) if timm else ()
        super().__init__(autowrap_functions=functions)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (SlidingLayer, *self._whole)) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        known, depth = len(self.graph.nodes), len(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except _UNTRACEABLE as error:
            while len(self.module_stack) > depth:
                self.module_stack.popitem(last=True)
            for node in reversed(list(self.graph.nodes)[known:]):
                self.graph.erase_node(node)
            whole = self.create_proxy("call_module", self.path_of_module(m), args, kwargs)
            whole.node.meta["untraceable"] = _first_line(error)
            return whole

    def to_bool(self, obj: fx.Proxy) -> bool:
        if not _is_size(obj.node):
            raise SurgeryError(
                f"{described(obj.node)} decides by the values of the image which layers run",
                "a forward pass that is the same list of layers for every image",
                "compute both ways and choose with torch.where, or pass the part that does not branch",
            )
        return super().to_bool(obj)


def _is_size(node: fx.Node) -> bool:
    """Whether a value follows from the sizes of tensors alone, not from what they hold."""
    if node.op == "call_method" and node.target in _SIZE_METHODS:
        return True
    if node.op != "call_function" or not node.all_input_nodes:
        return False
    return node.target is getattr or all(_is_size(source) for source in node.all_input_nodes)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
