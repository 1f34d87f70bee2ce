"""Pictures as layers under marks, measured in the pixels of the image they explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullyconv import images
from fullyconv.labels import ClassTable

Size = tuple[int, int]
Pixels = NDArray[np.uint8]

LONGEST = 512
"""Most pixels along a side of an embedded picture: enough on a page, and little to send."""


@dataclass(frozen=True)
class Colors:
    """A scale of colours in even steps, told apart with any colour blindness.

    Parameters
    ----------
    name
        For style sheets.
    anchors
        From the lowest value to the highest, as #rrggbb.
    """

    name: str
    anchors: tuple[str, ...]

    def paint(self, values: NDArray[Any], low: float, high: float) -> Pixels:
        """Paint H×W numbers as H×W×3; what is beyond ``low`` and ``high`` has their colours."""
        table = np.array([[int(color[k : k + 2], 16) for k in (1, 3, 5)] for color in self.anchors])
        places = (np.asarray(values, np.float64) - low) / max(high - low, 1e-12) * (len(table) - 1)
        steps = np.arange(len(table))
        channels = [np.interp(places, steps, table[:, channel]) for channel in range(3)]
        pixels: Pixels = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
        return pixels


# matplotlib's inferno and ColorBrewer's PuOr, at a few places each.
HEAT = Colors("heat", ("#000004", "#320a5e", "#781c6d", "#bc3754", "#ed6925", "#fbb61a", "#fcffa4"))
SIGNED = Colors("signed", ("#2d004b", "#5e3c99", "#b2abd2", "#f7f7f7", "#fdb863", "#e66101", "#7f3b08"))


@dataclass(frozen=True, eq=False)
class Layer:
    """Pixels stretched over a part of a picture.

    Parameters
    ----------
    pixels
        h×w×3, or h×w×4 with the opacity.
    extent
        (height, width) of the part they cover, from the image's first pixel on; all of it if not given.
    blocks
        Show each pixel as a block with sharp edges, and keep every one exactly.
    opacity
        0 to 1.
    """

    pixels: Pixels
    extent: tuple[float, float] | None = None
    blocks: bool = False
    opacity: float = 1.0


@dataclass(frozen=True)
class Point:
    """One pixel, marked by a ring."""

    row: int
    column: int


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, outlined; rows and columns are (start, stop)."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    dashed: bool = False


@dataclass(frozen=True)
class Scale:
    """A bar of colours under a picture, and what its ends mean."""

    colors: Colors
    low: str
    high: str


@dataclass(frozen=True, eq=False)
class Picture:
    """Layers, bottom first, under marks.

    Parameters
    ----------
    size
        (height, width) in pixels of the image.
    layers, marks
        What is drawn.
    title, caption
        Written above and beneath.
    alt
        What is to be seen, for those who cannot.
    scale
        What the colours mean.
    """

    size: Size
    layers: tuple[Layer, ...]
    title: str
    caption: str
    alt: str
    marks: tuple[Point | Box, ...] = ()
    scale: Scale | None = None


def photograph(pixels: NDArray[Any]) -> Pixels:
    """Return an image of any type and channels as H×W×3 for a screen."""
    return images.overlay(pixels, np.zeros(pixels.shape[:2], np.uint8), ClassTable.of(2))


def grayed(photo: Pixels) -> Pixels:
    """Return a photograph without its colours, so that those laid over it can be read."""
    gray = np.rint(photo.mean(axis=2)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def where(chosen: NDArray[np.bool_], colors: Pixels) -> Layer:
    """Return a layer of colours, H×W×3 or one for all, that is there at the chosen pixels H×W alone."""
    opacity = np.where(chosen, 255, 0).astype(np.uint8)
    return Layer(np.dstack((np.broadcast_to(colors, (*chosen.shape, 3)), opacity)), blocks=True)


def heat(values: NDArray[Any], high: float) -> Layer:
    """Return numbers from 0 to ``high`` as a layer; where they are low the photograph shines through."""
    strength = np.clip(reduced(values) / max(high, 1e-12), 0, 1)
    opacity = np.rint(255 * (0.3 + 0.55 * np.sqrt(strength))).astype(np.uint8)
    return Layer(np.dstack((HEAT.paint(strength, 0, 1), opacity)))


def signed(values: NDArray[Any], largest: float) -> Layer:
    """Return numbers around zero as a layer: orange above, violet below, and clear at zero."""
    values = reduced(values)
    strength = np.abs(values) / max(largest, 1e-12)
    opacity = np.rint(255 * np.clip(1.6 * strength, 0, 0.92)).astype(np.uint8)
    # Colours start at a third of the way, since what is faint is said by the opacity.
    shown = np.sign(values) * np.clip(0.45 + 0.55 * strength, 0, 1)
    return Layer(np.dstack((SIGNED.paint(shown, -1.2, 1.2), opacity)))


def strongest(values: NDArray[Any]) -> float:
    """Return what nearly all numbers that are not 0 stay below in size: a few would leave the rest pale."""
    some = np.abs(values[values != 0])
    return max(float(np.quantile(some, 0.995)), 1e-12) if some.size else 1.0


def reduced(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers H×W, or pixels H×W×C, averaged down to what a page shows."""
    scale = LONGEST / max(values.shape[:2])
    if scale >= 1:
        return values
    height, width = (max(1, round(side * scale)) for side in values.shape[:2])
    if values.ndim == 3:
        return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BOX))
    shrunk = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(shrunk)
