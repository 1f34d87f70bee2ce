"""Small pictures of an image, its masks and where they differ, as text that a page can hold."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullyconv.images import overlay
from fullyconv.labels import ClassTable, Color, Labels

SIDE = 400  # of the longer side of a picture, in pixels
# Apart for every common colour blindness, and in lightness too.
WRONG: Color = (213, 94, 0)
MISSED: Color = (86, 180, 233)
_IGNORED = 128


@dataclass(frozen=True)
class Panel:
    """One picture: what it shows, in a word and in a sentence, and its bytes as a data URI."""

    name: str
    description: str
    source: str


def draw_panels(
    image: NDArray[Any], truth: Labels, prediction: Labels, classes: ClassTable
) -> tuple[Panel, ...]:
    """Draw an image, both masks over it, and the errors.

    Parameters
    ----------
    image
        H×W×C of any real type.
    truth, prediction
        Labels H×W.
    classes
        Names and colours.
    """
    plain = overlay(image, np.zeros(truth.shape, np.uint8), classes)
    return (
        Panel("image", "the image", encode(plain)),
        Panel("truth", f"its mask: {_shares(truth, classes)}", encode(overlay(image, truth, classes))),
        Panel(
            "prediction",
            f"what the model answers: {_shares(prediction, classes)}",
            encode(overlay(image, prediction, classes)),
        ),
        Panel(
            "errors",
            _errors(truth, prediction, classes),
            encode(draw_errors(plain, truth, prediction, classes)),
        ),
    )


def draw_errors(
    picture: NDArray[np.uint8], truth: Labels, prediction: Labels, classes: ClassTable
) -> NDArray[np.uint8]:
    """Paint wrong pixels over a dim gray picture H×W×3.

    Of two classes, the second is painted where it was overlooked (`MISSED`) and where it is not there
    (`WRONG`); of more, every wrong pixel is (`WRONG`). Ignored pixels become plain gray.
    """
    gray = picture.mean(2, keepdims=True) * 0.45
    drawn = np.repeat(gray, 3, 2).astype(np.uint8)
    ignored = truth == classes.ignore_index
    wrong = (truth != prediction) & ~ignored
    drawn[ignored] = _IGNORED
    drawn[wrong] = WRONG
    if len(classes) == 2:
        drawn[wrong & (prediction == 0)] = MISSED
    return drawn


def encode(picture: NDArray[np.uint8]) -> str:
    """Return a picture H×W×3, at most 400 pixels wide and high, as a data URI."""
    drawn = Image.fromarray(picture)
    drawn.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    buffer = BytesIO()
    drawn.save(buffer, "WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shares(labels: Labels, classes: ClassTable) -> str:
    counts = np.bincount(labels[labels < len(classes)].ravel(), minlength=len(classes))
    order = np.argsort(-counts, kind="stable")[:4]
    total = max(int(counts.sum()), 1)
    return ", ".join(f"{classes.names[k]} {counts[k] / total:.1%}" for k in order if counts[k])


def _errors(truth: Labels, prediction: Labels, classes: ClassTable) -> str:
    counted = truth != classes.ignore_index
    total = max(int(counted.sum()), 1)
    wrong = counted & (truth != prediction)
    if len(classes) == 2:
        missed, invented = ((wrong & (prediction == k)).sum() / total for k in (0, 1))
        return f"errors: {missed:.1%} missed, {invented:.1%} invented {classes.names[1]}"
    return f"errors: {wrong.sum() / total:.1%} of the pixels wrong"
