"""Sums of losses by weight, written as one line of text, and the table of losses that the text may name."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fullyconv.errors import ConfigError
from fullyconv.losses._boundary import Boundary
from fullyconv.losses._loss import Loss
from fullyconv.losses._pixels import CrossEntropy, Focal
from fullyconv.losses._regions import Dice, Jaccard, LovaszSoftmax, Tversky


class WeightedSum(nn.Module):
    """A sum of losses, each times a factor.

    Parameters
    ----------
    terms
        Pairs of factor, above 0, and loss.

    Raises
    ------
    ConfigError
        No terms, or a factor that is not above 0.
    """

    def __init__(self, terms: Sequence[tuple[float, nn.Module]]) -> None:
        super().__init__()
        factors = tuple(float(factor) for factor, _ in terms)
        if not factors or not all(0 < factor < math.inf for factor in factors):
            raise ConfigError(
                f"a sum of losses with the factors {list(factors)}",
                "one term or more, factors above 0",
                "write for instance 'cross_entropy + 0.5*dice'",
            )
        self.factors = factors
        self.losses = nn.ModuleList(loss for _, loss in terms)

    def forward(self, scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the sum; arguments as for every :class:`Loss`."""
        terms = zip(self.factors, self.losses, strict=True)
        first, *others = [factor * loss(scores, labels, weights) for factor, loss in terms]
        total: Tensor = sum(others, start=first)
        return total


def parse_loss(
    text: str, *, ignore_index: int = 255, class_weights: Sequence[float] | Tensor | None = None
) -> WeightedSum:
    """Build a loss from text such as "cross_entropy + 0.5*dice".

    Parameters
    ----------
    text
        Names of :data:`LOSSES` with optional options in brackets and factors before them, joined by +:
        "cross_entropy(label_smoothing=0.1) + 0.5*tversky(alpha=0.3, beta=0.7)".
    ignore_index, class_weights
        Given to every loss.

    Raises
    ------
    ConfigError
        The text does not read like this, names no loss of the table, or gives an option it does not have.

    Examples
    --------
    >>> parse_loss("cross_entropy + 0.5*dice").factors
    (1.0, 0.5)
    """
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise _unreadable(text) from error
    shared = {"ignore_index": ignore_index, "class_weights": class_weights}
    return WeightedSum([(factor, _build(term, shared)) for factor, term in _terms(expression)])


def _terms(expression: ast.expr) -> list[tuple[float, ast.expr]]:
    match expression:
        case ast.BinOp(left, ast.Add(), right):
            return [*_terms(left), *_terms(right)]
        case ast.BinOp(ast.Constant(int() | float() as factor), ast.Mult(), term):
            return [(factor, term)]
        case ast.BinOp(term, ast.Mult(), ast.Constant(int() | float() as factor)):
            return [(factor, term)]
    return [(1.0, expression)]


def _build(term: ast.expr, shared: dict[str, Any]) -> Loss:
    match term:
        case ast.Name(name):
            options = {}
        case ast.Call(ast.Name(name), [], keywords) if all(
            keyword.arg and isinstance(keyword.value, ast.Constant) for keyword in keywords
        ):
            options = {str(each.arg): ast.literal_eval(each.value) for each in keywords}
        case _:
            raise _unreadable(ast.unparse(term))
    if name not in LOSSES:
        raise ConfigError(f"a loss {name!r}", f"one of {', '.join(LOSSES)}", "correct the name")
    parameters = inspect.signature(LOSSES[name]).parameters
    known = {option: parameters[option].default for option in parameters if option not in shared}
    for option, value in options.items():
        right = (bool,) if isinstance(known.get(option), bool) else (int, float)
        if option not in known or type(value) not in right:
            choice = ", ".join(f"{each}={default}" for each, default in known.items()) or "none"
            raise ConfigError(
                f"option {option}={value!r} of loss {name!r}",
                f"one of its options, like its default: {choice}",
                "correct or drop it",
            )
    return LOSSES[name](**shared, **options)


def _unreadable(text: str) -> ConfigError:
    return ConfigError(
        f"a loss {text!r}",
        "names of losses, each with an optional factor before and options behind, joined by +",
        "write for instance 'cross_entropy(label_smoothing=0.1) + 0.5*dice'",
    )


LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "focal": Focal,
    "dice": Dice,
    "tversky": Tversky,
    "jaccard": Jaccard,
    "lovasz_softmax": LovaszSoftmax,
    "boundary": Boundary,
}
