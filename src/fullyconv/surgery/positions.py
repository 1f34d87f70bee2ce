"""Which axes of a classifier's values are positions: those that grow when the image grows.

Running a traced classifier on three sizes without computing (fake tensors), the training size, one taller
and one wider, tells for every value which axis holds rows of positions, which holds columns, and at what
stride. No rule per operation is needed for that.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fullyconv.errors import SurgeryError
from fullyconv.surgery.tracing import Traced, described, in_mode

# Divisible by every stride that occurs, so that growth divided by it is exactly one over the stride.
_GROWTH = 2**7 * 3**2 * 5 * 7
# A prime no layer uses as a size, so that a batch is recognised wherever it appears.
BATCH = 101


class Kind(Enum):
    """What a value of a classifier is, by how it grows with the image."""

    MAP = auto()
    """One axis of rows and one of columns: features at positions."""
    VECTOR = auto()
    """The same size for every image: positions are gone."""
    MIXED = auto()
    """Positions merged into one axis (tokens), spread over the batch, or only rows or only columns."""
    FIXED = auto()
    """Cannot be computed for another size of image."""
    CONSTANT = auto()
    """Does not depend on the image."""
    OTHER = auto()
    """Not a tensor: a size, a flag."""


@dataclass(frozen=True)
class Place:
    """What one node gives: its value at the training size (a fake tensor), and where its positions are."""

    kind: Kind
    value: Any
    axes: tuple[int, int] = (-1, -1)
    stride: tuple[Fraction, Fraction] = (Fraction(0), Fraction(0))

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of every axis at the training size."""
        return tuple(first_tensor(self.value).shape)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a map at the training size."""
        return self.shape[self.axes[0]], self.shape[self.axes[1]]


def survey(traced: Traced, channels: int, size: tuple[int, int]) -> dict[fx.Node, Place]:
    """Place every node of a traced classifier that takes N×C×H×W images.

    Parameters
    ----------
    traced
        The graph; its first placeholder is the image, other placeholders must have defaults.
    channels, size
        Channels and (height, width) of the images the classifier was trained on.

    Raises
    ------
    SurgeryError
        The classifier does not run on this size; the message names the layer.
    """
    shapes = [size, (size[0] + _GROWTH, size[1]), (size[0], size[1] + _GROWTH)]
    small, tall, wide = (_run(traced, channels, shape, strict=shape == size) for shape in shapes)
    places: dict[fx.Node, Place] = {}
    for node in traced.graph.nodes:
        seen = node.op == "placeholder" or any(
            source in places and places[source].kind is not Kind.CONSTANT for source in node.all_input_nodes
        )
        places[node] = (
            _place(small.get(node), tall.get(node), wide.get(node))
            if seen
            else Place(Kind.CONSTANT, small.get(node))
        )
    return places


def output_size(traced: Traced, channels: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the first output map for images of ``size``, without computing it."""
    values = _run(traced, channels, size, strict=True)
    output = next(iter(reversed(traced.graph.nodes)))
    height, width = first_tensor(values[output]).shape[-2:]
    return int(height), int(width)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a nested output in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)


def first_tensor(value: Any) -> torch.Tensor:
    """Return the first tensor of a nested output."""
    return next(tensors(value))


def _place(small: Any, tall: Any, wide: Any) -> Place:
    if next(tensors(small), None) is None:
        return Place(Kind.OTHER, small)
    shape = first_tensor(small).shape
    if not all(
        next(tensors(big), None) is not None and first_tensor(big).dim() == len(shape) for big in (tall, wide)
    ):
        return Place(Kind.FIXED, small)
    down = [big - old for big, old in zip(first_tensor(tall).shape, shape, strict=True)]
    right = [big - old for big, old in zip(first_tensor(wide).shape, shape, strict=True)]
    rows = [axis for axis, growth in enumerate(down) if growth]
    columns = [axis for axis, growth in enumerate(right) if growth]
    if not rows and not columns:
        return Place(Kind.VECTOR, small)
    if len(rows) != 1 or len(columns) != 1 or rows == columns or 0 in (rows[0], columns[0]):
        return Place(Kind.MIXED, small)
    stride = Fraction(_GROWTH, down[rows[0]]), Fraction(_GROWTH, right[columns[0]])
    return Place(Kind.MAP, small, (rows[0], columns[0]), stride)


def _run(traced: Traced, channels: int, size: tuple[int, int], *, strict: bool) -> dict[fx.Node, Any]:
    """Return the fake value of every node; unless ``strict``, nodes that cannot be computed are left out."""
    # In eval mode, since norms in train mode count the batches they see.
    without_values = shapes_only(traced.module)
    with in_mode(traced.module, False), _quiet(), torch.no_grad(), without_values, ShapesAsTheyAre():
        parameter = next(traced.module.parameters(), None)
        image = torch.empty(
            BATCH,
            channels,
            *size,
            device=parameter.device if parameter is not None else None,
            dtype=parameter.dtype if parameter is not None else None,
        )
        walk = _Walk(traced, strict)
        walk.values(image)
        return walk.env


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging the operations that fail at another size: that they do is what is asked."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was


def has_no_values(module: nn.Module) -> bool:
    """Say whether all tensors of ``module`` are on the device "meta"; not where it has none."""
    own = [*module.parameters(), *module.buffers()]
    return bool(own) and all(tensor.is_meta for tensor in own)


def shapes_only(module: nn.Module) -> AbstractContextManager[object]:
    """Return what keeps a run of ``module`` from computing; nothing is needed where it has no values itself.

    That spares torch's fake tensors, which take ten times as long as tensors on "meta".
    """
    return nullcontext() if has_no_values(module) else FakeTensorMode(allow_non_fake_inputs=True)


_POINTWISE = {F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, torch.sigmoid}


class ShapesAsTheyAre(TorchFunctionMode):
    """Passes values on where norms or activations would compute: runs without values take long there."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _POINTWISE and args:
            return args[0].view_as(args[0])
        if function is F.batch_norm:
            image, mean = args[:2]
            if image.dim() > 1 and (mean is None or len(mean) == image.shape[1]):
                return image.view_as(image)
        return function(*args, **(kwargs or {}))


class _Walk(fx.Interpreter):
    """Evaluates a graph node by node, keeping every value."""

    def __init__(self, traced: Traced, strict: bool) -> None:
        super().__init__(traced.module, garbage_collect_values=False, graph=traced.graph)
        self._traced = traced
        self._strict = strict

    def fetch_attr(self, target: str) -> Any:
        return self._traced.attribute(target)

    def values(self, image: torch.Tensor) -> None:
        self.args_iter = iter((image,))
        for node in self.graph.nodes:
            if any(source not in self.env for source in node.all_input_nodes):
                continue
            try:
                self.env[node] = self.run_node(node)
            except Exception as error:
                if self._strict:
                    raise _does_not_run(node, image, error) from error


def _does_not_run(node: fx.Node, image: torch.Tensor, error: Exception) -> SurgeryError:
    if isinstance(error, DataDependentOutputException):
        return SurgeryError(
            f"{described(node)} takes a number out of the values of the image",
            "a forward pass that is the same list of layers for every image",
            "keep it a tensor, such as x.amax((1, 2, 3), keepdim=True) in place of x.max().item()",
        )
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return SurgeryError(
        f"{described(node)} fails on images of {'×'.join(map(str, image.shape[1:]))}: {reason}",
        "the channels and input_size the classifier was trained on",
        "pass its training size as input_size=(height, width), and channels= where they are not found",
    )
