"""How a report writes numbers, names and colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fullyconv.evaluation import Evaluation
from fullyconv.labels import ClassTable
from fullyconv.reports._findings import Contender
from fullyconv.reports._markup import Child, Markup, element


def kind_of(contender: Contender) -> str:
    """Return what a reader calls the network."""
    names = {"unet": "U-Net", "backbone_unet": "U-Net", "fcn": "FCN", "dense": "Dense classifier"}
    kind = contender.model.architecture.kind
    return names.get(kind, kind)


def split_of(evaluation: Evaluation) -> str:
    """Return what a reader calls the scored images."""
    return {"val": "validation", "train": "training"}.get(evaluation.split, evaluation.split)


def named(classes: ClassTable, index: int) -> list[Child]:
    """Return a class's colour and name."""
    return [swatch(classes.colors[index]), classes.names[index]]


def swatch(color: tuple[int, int, int]) -> Markup:
    """Return a small square of a colour."""
    return element("span", class_="swatch", style=f"background:rgb{tuple(color)}", aria_hidden="true")


def number(value: float | NDArray[np.float64]) -> str:
    """Return a score with three digits, or n/a."""
    return "n/a" if np.isnan(value) else f"{float(value):.3f}"


def bounds(evaluation: Evaluation, name: str, place: int | tuple[()] = ()) -> str:
    """Return the interval of a score, of one class where there is one for each."""
    if name not in evaluation.intervals or np.isnan(evaluation.intervals[name][0][place]):
        return "n/a"
    low, high = evaluation.intervals[name]
    return f"{low[place]:.3f} to {high[place]:.3f}"


def signed(gain: tuple[float, float, float]) -> str:
    """Return a difference and its interval."""
    value, low, high = gain
    return f"{value:+.3f}" + ("" if np.isnan(low) else f" ({low:+.3f} to {high:+.3f})")


def size_of(size: tuple[int, int]) -> str:
    """Return rows and columns as text."""
    return f"{size[0]}×{size[1]}"
