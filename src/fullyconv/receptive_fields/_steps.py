"""What a rule of an operation is told, and what it answers.

A rule is called as the operation was, after a `Seen` that says where rows and columns lie in its first
tensor, and answers with a `Step`: the geometry of both axes, and where they lie in the result. Dimensions are
counted from the end, so broadcasting leaves them alone; rows and columns flattened into one dimension share
its number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from fullyconv.geometry import Everywhere, Pointwise, Rule

Axes = tuple[int, int]
Rules = tuple[Rule, Rule]
MAP_AXES = (-2, -1)
SAME: Rules = (Pointwise(), Pointwise())


@dataclass(frozen=True)
class Seen:
    """The first tensor of an operation, and its first result.

    Parameters
    ----------
    axes
        The dimensions of rows and columns in ``shape``, counted from the end.
    sizes
        How many rows and columns there are.
    shape, made
        The shapes of the tensor and of the result.
    """

    axes: Axes
    sizes: tuple[int, int]
    shape: tuple[int, ...]
    made: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """What an operation does: the rules of rows and columns, and where these lie in the result.

    ``axes`` is None where rows and columns are no longer told apart from other dimensions. ``context`` marks
    an operation that depends on the whole image although its rules are local.
    """

    rules: Rules = SAME
    axes: Axes | None = MAP_AXES
    context: bool = False


OperationRule = Callable[..., Step]


FOLDED = Step((Everywhere(1), Everywhere(1)), None)  # rows and columns mixed beyond recovery


def mixes(seen: Seen, *_: Any, **__: Any) -> Step:
    """Every position of the result depends on every one given; also the answer for unknown operations."""
    if len(seen.made) != len(seen.shape):
        return FOLDED
    rows, columns = seen.axes
    if rows == columns:
        kept = seen.made[rows] == prod(seen.sizes)
        return Step((Everywhere(), Everywhere()), seen.axes) if kept else FOLDED
    return Step((_everywhere(seen, rows), _everywhere(seen, columns)), seen.axes)


def _everywhere(seen: Seen, axis: int) -> Everywhere:
    made = seen.made[axis]
    return Everywhere() if made == seen.shape[axis] else Everywhere(made)


def pointwise(seen: Seen, *_: Any, **__: Any) -> Step:
    """Each position for itself."""
    return Step(axes=seen.axes)


def broadcasting(seen: Seen, *_: Any, **__: Any) -> Step:
    """Each position for itself, with tensors spread over each other."""
    return Step(axes=seen.axes)
