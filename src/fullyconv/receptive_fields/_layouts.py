"""Operations that move dimensions, cut them, or compute along them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from fullyconv.geometry import Everywhere, Pad, Pointwise, Rule, Window
from fullyconv.receptive_fields._steps import FOLDED, Seen, Step, mixes, pointwise


def getitem(seen: Seen, x: Any, index: Any) -> Step:
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(item is None or item is Ellipsis or isinstance(item, int | slice) for item in items):
        return mixes(seen)
    used = sum(item is not None and item is not Ellipsis for item in items)
    rest = [slice(None)] * (len(seen.shape) - used)
    here = items.index(Ellipsis) if Ellipsis in items else len(items)
    items[here : here + 1] = rest
    kept: list[int] = []
    rules: dict[int, Rule] = {}
    dimension = -len(seen.shape)
    for item in items:
        if item is None:
            kept.append(0)
            continue
        if isinstance(item, slice):
            kept.append(dimension)
            rules[dimension] = _slice_rule(item, seen.shape[dimension])
        dimension += 1
    if any(axis not in kept for axis in seen.axes):
        return mixes(seen)
    fused = seen.axes[0] == seen.axes[1]
    if fused and rules[seen.axes[0]] != Pointwise():
        return mixes(seen)
    rows, columns = (kept.index(axis) - len(kept) for axis in seen.axes)
    return Step((rules[seen.axes[0]], rules[seen.axes[1]]), (rows, columns))


def _slice_rule(item: slice, size: int) -> Rule:
    start, stop, step = item.indices(size)
    if start == 0 and stop == size and step == 1:
        return Pointwise()
    if step == 1:
        return Pad(-start, stop - size)
    return Window(1, step, -start, stop - size)


def reshape(seen: Seen, *_: Any, **__: Any) -> Step:
    """Find rows and columns again by how many elements lie behind each of their positions."""
    height, width = seen.sizes
    rows, columns = (axis + len(seen.shape) for axis in seen.axes)
    behind_column = prod(seen.shape[columns + 1 :])
    behind_row = behind_column * width if rows == columns else prod(seen.shape[rows + 1 :])
    made = [(size, prod(seen.made[i + 1 :])) for i, size in enumerate(seen.made)]
    count = len(made)
    by_column = [i - count for i, found in enumerate(made) if found == (width, behind_column)]
    if by_column:
        by_row = [i - count for i, found in enumerate(made) if found == (height, behind_row)]
        by_row = [axis for axis in by_row if axis != by_column[-1]]
        if by_row:
            return Step(axes=(by_row[-1], by_column[-1]))
    fused = [i - count for i, found in enumerate(made) if found == (height * width, behind_column)]
    if fused and behind_row == behind_column * width:
        return Step(axes=(fused[-1], fused[-1]))
    return FOLDED


def permute(seen: Seen, x: Any, *dims: Any) -> Step:
    order = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    count = len(seen.shape)
    places = [d % count for d in order]
    rows, columns = (places.index(axis + count) - count for axis in seen.axes)
    return Step(axes=(rows, columns))


def transpose(seen: Seen, x: Any, dim0: int, dim1: int) -> Step:
    count = len(seen.shape)
    first, second = dim0 % count - count, dim1 % count - count
    swapped = {first: second, second: first}
    rows, columns = (swapped.get(axis, axis) for axis in seen.axes)
    return Step(axes=(rows, columns))


def _without_dimensions(seen: Seen, dims: Sequence[int]) -> Step:
    rows, columns = (axis + sum(d > axis for d in dims) for axis in seen.axes)
    return Step(axes=(rows, columns))


def reduction(seen: Seen, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Step:
    if isinstance(dim, torch.Tensor):
        return pointwise(seen)
    count = len(seen.shape)
    given = range(count) if dim is None else [dim] if isinstance(dim, int) else dim
    dims = [d % count - count for d in given]
    if not set(dims) & set(seen.axes):
        return Step(axes=seen.axes) if keepdim else _without_dimensions(seen, dims)
    if not keepdim or seen.axes[0] == seen.axes[1]:
        return FOLDED
    rows, columns = (Everywhere(1) if axis in dims else Pointwise() for axis in seen.axes)
    return Step((rows, columns), seen.axes)


def along(seen: Seen, x: Any, dim: int | None = None, *_: Any, **__: Any) -> Step:
    """Softmax and its like: positions stay apart unless they are what is summed over."""
    if dim is None or dim % len(seen.shape) - len(seen.shape) in seen.axes:
        return mixes(seen)
    return Step(axes=seen.axes)


def normalize(seen: Seen, x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Step:
    return along(seen, x, dim)


def split(seen: Seen, x: Any, sections: Any = None, dim: int = 0, **_: Any) -> Step:
    return along(seen, x, dim)


def unbind(seen: Seen, x: Any, dim: int = 0) -> Step:
    along = dim % len(seen.shape) - len(seen.shape)
    return mixes(seen) if along in seen.axes else _without_dimensions(seen, [along])


def concatenation(seen: Seen, tensors: Any, dim: int = 0) -> Step:
    return along(seen, tensors, dim)


def stack(seen: Seen, tensors: Any, dim: int = 0) -> Step:
    new = dim % len(seen.made) - len(seen.made)
    rows, columns = (axis - (axis <= new) for axis in seen.axes)
    return Step(axes=(rows, columns))


def layer_norm(seen: Seen, x: Any, normalized_shape: Sequence[int], *_: Any, **__: Any) -> Step:
    return mixes(seen) if max(seen.axes) >= -len(normalized_shape) else Step(axes=seen.axes)


def linear(seen: Seen, *_: Any, **__: Any) -> Step:
    return mixes(seen) if -1 in seen.axes else Step(axes=seen.axes)


def batch_norm(seen: Seen, *_: Any, training: bool = False, **__: Any) -> Step:
    # Statistics of the batch are statistics over positions; kept ones are not.
    return mixes(seen) if training else Step(axes=seen.axes)


def instance_norm(
    seen: Seen,
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Step:
    return mixes(seen) if use_input_stats else Step(axes=seen.axes)
