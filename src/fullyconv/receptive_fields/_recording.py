"""Run a network on tensors without values and write down what each operation does to rows and columns."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fullyconv.errors import FullyconvError, GeometryError
from fullyconv.geometry import Everywhere, Graph, Node, Pointwise
from fullyconv.receptive_fields._operations import LIKE, MODULES, OPERATIONS, UNIFORM
from fullyconv.receptive_fields._steps import FOLDED, Axes, Seen, Step, broadcasting, mixes
from fullyconv.surgery.positions import ShapesAsTheyAre, has_no_values, shapes_only
from fullyconv.surgery.tracing import in_mode


@dataclass(frozen=True)
class GlobalContext:
    """An operation whose result at one position depends on the whole image.

    Parameters
    ----------
    layer
        The dotted name of the module in the network; empty for the network itself.
    operation
        The torch operation.
    """

    layer: str
    operation: str

    def __str__(self) -> str:
        return f"{self.layer or 'the network'} ({self.operation})"


@dataclass(frozen=True)
class Recording:
    """A network at one input size: the graphs of its rows and columns, and what needs the whole image."""

    rows: Graph
    columns: Graph
    context: tuple[GlobalContext, ...]


@dataclass(frozen=True)
class _Place:
    """Which node's positions a tensor holds, and in which dimensions; not local once all were mixed."""

    node: str
    sizes: tuple[int, int]
    axes: Axes | None
    local: bool


def record(model: nn.Module, channels: int, size: tuple[int, int]) -> Recording:
    """Record ``model`` on an input of ``channels`` × ``size``; no pixel is computed and no weight is touched.

    Raises
    ------
    GeometryError
        Where the network does not run at this size, decides by pixel values, or returns no map.
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    recorder = _Recorder()
    try:
        twin = model if has_no_values(model) else _twin(model)
        with (
            in_mode(twin, training=False),
            recorder.watching(twin),
            warnings.catch_warnings(),
            torch.no_grad(),
            shapes_only(twin),
            ShapesAsTheyAre(),
        ):
            warnings.simplefilter("ignore")
            image = torch.empty(1, channels, *size, dtype=parameter.dtype, device=parameter.device)
            recorder.follow(image, _Place(Graph.INPUT, size, (-2, -1), local=True))
            with recorder:
                output = _scores(twin(image))
    except FullyconvError:
        raise
    except Exception as error:
        raise GeometryError(
            f"a network that fails on an input of {channels} channels and {size[0]}×{size[1]}: "
            f"{str(error).strip().splitlines()[0] if str(error) else type(error).__name__}",
            "a network that runs at this size and whose steps do not depend on pixel values",
            "use a larger input, check the number of channels, or rewrite the step that reads values",
        ) from error
    return recorder.recording(output)


def _scores(output: Any) -> torch.Tensor:
    """Return the map among what a network returned: itself, the entry ``out``, or the first."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping) and output:
        return _scores(output["out"] if "out" in output else next(iter(output.values())))
    if isinstance(output, Sequence) and output and not isinstance(output, str):
        return _scores(output[0])
    raise GeometryError(
        f"a network that returns {type(output).__name__}",
        "a tensor N×K×H×W, or a dict or sequence of such",
        "return the score map from forward",
    )


def _twin(model: nn.Module) -> nn.Module:
    """Return copies of all modules that share the tensors of the model.

    What watches them is met by nobody who computes with the model meanwhile, in another thread.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._path: list[tuple[str, bool]] = []
        self._nodes: dict[str, tuple[Node, Node]] = {}
        self._context: dict[str, GlobalContext] = {}
        # Tensors are kept so that no identity is given twice; they hold no memory.
        self._places: dict[int, tuple[torch.Tensor, _Place]] = {}
        self._uniform: dict[int, torch.Tensor] = {}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Note which module is running, and what the modules of `MODULES` make."""
        handles = []
        for name, module in model.named_modules():
            leaf = next(module.children(), None) is None
            handles.append(module.register_forward_pre_hook(partial(self._enter, name, leaf)))
            handles.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, leaf: bool, *_: Any) -> None:
        self._path.append((name, leaf))

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        rule = MODULES.get(type(module))
        if rule is not None:
            given = [t for t in _tensors(args) if id(t) in self._places]
            places = [(self._places[id(t)][1], tuple(t.shape)) for t in given]
            # What its operations were taken for is left behind: nothing leads to it any more.
            self._apply(type(module).__name__, partial(rule, module=module), places, [], [*_tensors(result)])
        self._path.pop()

    def follow(self, tensor: torch.Tensor, place: _Place) -> None:
        """Remember where the rows and columns of ``tensor`` lie."""
        self._places[id(tensor)] = (tensor, place)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = _operation(func)
        given = list(_tensors(args[:1] if operation in LIKE else (args, kwargs)))
        shapes = [tuple(tensor.shape) for tensor in given]
        result = func(*args, **kwargs)
        tracked = [(t, s) for t, s in zip(given, shapes, strict=True) if id(t) in self._places]
        if operation in UNIFORM:
            self._uniform.update((id(tensor), tensor) for tensor in _tensors(result))
        elif tracked:
            # Assigning to a part changes a tensor without returning it.
            made = [args[0]] if operation == "__setitem__" else list(_tensors(result))
            rule = OPERATIONS.get(operation, OPERATIONS.get(operation.rstrip("_"), mixes))
            places = [(self._places[id(t)][1], s) for t, s in tracked]
            strangers = [t for t in given if id(t) not in self._places and id(t) not in self._uniform]
            self._apply(operation, lambda seen: rule(seen, *args, **kwargs), places, strangers, made)
        return result

    def _apply(
        self,
        operation: str,
        rule: Callable[[Seen], Step],
        tracked: list[tuple[_Place, tuple[int, ...]]],
        strangers: list[torch.Tensor],
        made: list[torch.Tensor],
    ) -> None:
        if not tracked or not made:
            return
        places = [place for place, _ in tracked]
        shape = tuple(made[0].shape)
        first = max(places, key=lambda place: (place.axes is not None, place.local, place.sizes))
        if first.axes is None:
            # A reshape to four dimensions makes a map again of what was folded away.
            opened = OPERATIONS.get(operation) is OPERATIONS["reshape"] and len(shape) == 4
            step = Step((Everywhere(shape[-2]), Everywhere(shape[-1]))) if opened else FOLDED
        else:
            given_shape = next(s for place, s in tracked if place is first)
            seen = Seen(first.axes, first.sizes, given_shape, shape)
            apart = any(place.axes != first.axes for place in places)
            fixed = OPERATIONS.get(operation) is broadcasting and any(
                _varies(t, first.axes) for t in strangers
            )
            step = mixes(seen) if apart or fixed else _understood(rule, seen)
        place = self._move(operation, places, first, step, shape)
        for tensor in made:
            self.follow(tensor, place if tensor.ndim == len(shape) else _folded(place))

    def _move(
        self, operation: str, places: list[_Place], first: _Place, step: Step, shape: tuple[int, ...]
    ) -> _Place:
        """Add the node that ``step`` asks for, and return where its result lies."""
        sizes = (1, 1)
        if step.axes is not None and min(step.axes) < -len(shape):
            step = FOLDED
        if step.axes is not None:
            rows, columns = step.axes
            expected = tuple(rule.output_size(n) for rule, n in zip(step.rules, first.sizes, strict=True))
            sizes = (expected[0], expected[1]) if rows == columns else (shape[rows], shape[columns])
            meeting = {place.sizes for place in places} - {(1, 1)}
            if expected != sizes or (len(meeting) > 1 and isinstance(step.rules[0], Everywhere)):
                # Torch made another size than the rule says, or branches of unequal size were mixed.
                step = Step((Everywhere(sizes[0]), Everywhere(sizes[1])), step.axes)
        local = any(place.local for place in places)
        if not local:
            step = Step((Everywhere(sizes[0]), Everywhere(sizes[1])), step.axes)
        nodes = tuple(dict.fromkeys(place.node for place in places))
        if len(nodes) == 1 and step.rules == (Pointwise(), Pointwise()) and not step.context:
            return _Place(first.node, first.sizes, step.axes, first.local)
        name = self._name(operation)
        rows_rule, columns_rule = step.rules
        self._nodes[name] = (Node(name, rows_rule, nodes), Node(name, columns_rule, nodes))
        if local and (step.context or any(isinstance(rule, Everywhere) for rule in step.rules)):
            self._context[name] = GlobalContext(self._path[-1][0] if self._path else "", operation)
        lost = any(isinstance(rule, Everywhere) and rule.outputs is not None for rule in step.rules)
        return _Place(name, sizes, step.axes, local and not lost)

    def _name(self, operation: str) -> str:
        layer, leaf = self._path[-1] if self._path else ("", False)
        plain = operation.strip("_")
        inside = f"{layer}.{plain}" if layer else plain
        for name in (layer, inside) if leaf and layer else (inside,):
            if name not in self._nodes and name != Graph.INPUT:
                return name
        count = 2
        while f"{inside}#{count}" in self._nodes:
            count += 1
        return f"{inside}#{count}"

    def recording(self, output: torch.Tensor) -> Recording:
        """Return what leads to ``output``."""
        _, place = self._places.get(id(output), (None, None))
        if place is None or place.axes != (-2, -1):
            raise GeometryError(
                f"a network whose output of shape {'×'.join(map(str, output.shape))} has no rows and columns",
                "a map of scores N×K×H×W",
                "make the classifier fully convolutional first: fullyconv.convolutionalize(classifier)",
            )
        wanted = {place.node}
        for name, (node, _) in reversed(self._nodes.items()):
            if name in wanted:
                wanted.update(node.inputs)
        pairs = [pair for name, pair in self._nodes.items() if name in wanted]
        context = dict.fromkeys(found for name, found in self._context.items() if name in wanted)
        return Recording(
            Graph(tuple(rows for rows, _ in pairs)),
            Graph(tuple(columns for _, columns in pairs)),
            tuple(context),
        )


def _understood(rule: Callable[[Seen], Step], seen: Seen) -> Step:
    """Apply a rule; a form of the operation that it does not know may do anything."""
    try:
        return rule(seen)
    except (TypeError, ValueError, IndexError):
        return mixes(seen)


def _folded(place: _Place) -> _Place:
    return _Place(place.node, place.sizes, None, place.local)


def _varies(stranger: torch.Tensor, axes: Axes) -> bool:
    """Say whether a tensor that is not computed from the image differs between rows or columns."""
    return any(stranger.ndim >= -axis and stranger.shape[axis] > 1 for axis in axes)


def _operation(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    # A property of a tensor arrives as the getter of its descriptor.
    return str(getattr(getattr(func, "__self__", None), "__name__", name)) if name == "__get__" else name


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
