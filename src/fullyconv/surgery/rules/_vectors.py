"""Rules for shapes and for what acts on every number: the dense map stays, or is read in another way."""

from __future__ import annotations

import operator
from dataclasses import replace
from fractions import Fraction
from math import lcm, prod

import torch
from torch import fx

from fullyconv.surgery.lifting import Lifted, Lifting, NoDenseForm
from fullyconv.surgery.positions import tensors
from fullyconv.surgery.sliding import CropTo, StackPile, StackWindow, Subsample


def as_vector(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Bring the window's values into channels, so that the dense map holds a plain vector per position."""
    if x.window == (1, 1):
        return x
    if len(x.axes) != 2 or x.axes[0] != ("N",):
        raise NoDenseForm("acts on the positions inside the window")
    order = order_of(x.axes[1])
    if x.piled and order != "CHW":
        raise NoDenseForm("reorders the positions inside the window")
    stack = StackPile(prod(x.window)) if x.piled else StackWindow(x.window, x.dilation, order)
    return replace(
        x.without({"H", "W"}),
        node=lifting.layer(node, stack, x.node),
        axes=(("N",), ("C",)),
        channels=x.channels * prod(x.window),
        piled=False,
    )


def scores(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """What the classifier returns: a vector per sample."""
    x = as_vector(lifting, node, x)
    if x.axes[:1] != (("N",),) or any(axis not in (("C",), ()) for axis in x.axes[1:]):
        raise NoDenseForm("is no vector of scores per sample")
    return x


def by_channel(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Make sure that the dense map's channels are the classifier's, so that weights per channel fit."""
    separate = len(x.axes) > 2 and all(len(axis) <= 1 for axis in x.axes)
    return x if separate else as_vector(lifting, node, x)


def pointwise(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Activations, dropout, identities, scalars: the same on any shape."""
    return replace(x, node=lifting.repeated(node, {lifting.values(node)[0]: x.node}))


def per_channel(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Layers for maps with weights per channel, such as BatchNorm2d."""
    return pointwise(lifting, node, by_channel(lifting, node, x))


def combine(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Arithmetic of two values, or of a value and a constant that is broadcast along channels."""
    sources = lifting.values(node)
    if len(sources) > 1:
        met = meet(lifting, node, [lifting.value(source) for source in sources])
        dense = lifting.repeated(node, {s: value.node for s, value in zip(sources, met, strict=True)})
        wider = max(met, key=lambda value: prod(value.shape))
        return replace(wider, node=dense)
    constants = {
        source: lifting.places[source].value for source in node.all_input_nodes if source != sources[0]
    }
    if all(value.numel() == 1 for constant in constants.values() for value in tensors(constant)):
        return pointwise(lifting, node, x)
    x = by_channel(lifting, node, x)
    operands = {sources[0]: x.node} | {source: _along_channels(lifting, source, x) for source in constants}
    return replace(x, node=lifting.repeated(node, operands))


def _along_channels(lifting: Lifting, source: fx.Node, x: Lifted) -> fx.Node:
    """Return a constant as K×1×1, where it is broadcast along channels only."""
    shape = tuple(lifting.places[source].value.shape)
    aligned = x.axes[len(x.axes) - len(shape) :]
    fits = len(aligned) == len(shape) and all(
        extent == 1 or (axis == ("C",) and extent == x.channels)
        for extent, axis in zip(shape, aligned, strict=True)
    )
    if not fits:
        raise NoDenseForm(f"combines with a constant of {shape} that differs from position to position")
    return lifting.method("reshape", lifting.copied(source), -1, 1, 1)


def meet(lifting: Lifting, node: fx.Node, values: list[Lifted]) -> list[Lifted]:
    """Bring values to the same positions: equal windows, the coarsest stride, the smallest size."""
    uneven = len({value.stride for value in values}) > 1
    if uneven or len({(value.window, value.dilation, value.piled) for value in values}) > 1:
        values = [as_vector(lifting, node, value) for value in values]
    if not uneven:
        return values
    rows, columns = (lcm(*(int(value.stride[axis]) for value in values)) for axis in (0, 1))
    thinned = []
    for value in values:
        step = rows // int(value.stride[0]), columns // int(value.stride[1])
        thinned.append(value.node if step == (1, 1) else lifting.layer(node, Subsample(step), value.node))
    return [
        replace(
            value,
            node=lifting.layer(node, CropTo(), dense, *thinned),
            stride=(Fraction(rows), Fraction(columns)),
        )
        for value, dense in zip(values, thinned, strict=True)
    ]


def concatenate(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Concatenation along channels."""
    sources = lifting.given(node, 0, "tensors")
    if not isinstance(sources, (list, tuple)) or not all(lifting.is_value(source) for source in sources):
        raise NoDenseForm("concatenates with a constant")
    values = [
        by_channel(lifting, node, lifting.value(source)) for source in sources if isinstance(source, fx.Node)
    ]
    axis = int(lifting.argument(node, 1, "dim", 0)) % len(x.axes)
    met = meet(lifting, node, values)
    if any(
        value.axes[axis] not in (("C",), ()) or (value.axes[axis] == () and value.channels > 1)
        for value in met
    ):
        raise NoDenseForm("concatenates along an axis other than the channels")
    dense = lifting.call(torch.cat, [value.node for value in met], 1)
    axes = tuple(("C",) if k == axis else old for k, old in enumerate(met[0].axes))
    return replace(met[0], node=dense, channels=sum(value.channels for value in met), axes=axes)


def regroup(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Flatten, view, reshape, squeeze, unsqueeze: the dense map stays, the reading of it changes."""
    return x.seen_as(lifting.places[node].shape)


def select(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Indexing that drops axes of size 1, or takes a range of channels."""
    shape = lifting.places[node].shape
    if prod(shape) == prod(x.shape):
        return x.seen_as(shape)
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    cut = [(axis, part) for axis, part in enumerate(index) if part != slice(None)]
    if len(cut) != 1 or not isinstance(cut[0][1], slice) or x.axes[cut[0][0]] != ("C",):
        raise NoDenseForm("picks single positions")
    dense = lifting.call(operator.getitem, x.node, (slice(None), cut[0][1]))
    return replace(x, node=dense, channels=shape[cut[0][0]])


def reorder(lifting: Lifting, node: fx.Node, x: Lifted) -> Lifted:
    """Permute and transpose: the dense map stays N×C×H×W."""
    # A shape of different numbers tells where each axis went, in whatever way it is written.
    marked = torch.empty(tuple(range(2, 2 + len(x.axes))), device="meta")
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    moved = getattr(torch.Tensor, name)(marked, *node.args[1:], **node.kwargs)
    return replace(x, axes=tuple(x.axes[extent - 2] for extent in moved.shape))


def order_of(axis: tuple[str, ...]) -> str:
    """Return C, H and W in the order in which an axis holds them; those of size 1 fit in anywhere."""
    held = [factor for factor in axis if factor in "CHW"]
    if held == sorted(held):
        return "CHW"
    return "".join(held + [factor for factor in "CHW" if factor not in held])
