"""Class tables: the names, colours and ignore index that give integers in a mask their meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ConfigError

Color = tuple[int, int, int]
Labels = NDArray[np.integer[Any]]

# Okabe and Ito's palette (jfly.uni-koeln.de/color), told apart with every common colour blindness.
_PALETTE: tuple[Color, ...] = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def default_color(index: int) -> Color:
    """Return the colour of class ``index``: Okabe-Ito first, then a fixed well-spread sequence."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    # Steps by the golden angle in hue never repeat and keep neighbours far apart.
    hue = (index * 0.6180339887498949) % 1.0
    sector, fraction = divmod(hue * 6, 1)
    high, low = (220, 60) if index % 2 else (160, 20)
    rising = round(low + (high - low) * fraction)
    falling = high + low - rising
    return [
        (high, rising, low),
        (falling, high, low),
        (low, high, rising),
        (low, falling, high),
        (rising, low, high),
        (high, low, falling),
    ][int(sector)]


@dataclass(frozen=True)
class ClassTable:
    """The classes a network tells apart.

    Parameters
    ----------
    names
        One name per class; the position is the class index.
    colors
        One (red, green, blue) triple of 0 to 255 per class; empty takes the default palette.
    ignore_index
        The label of pixels that take no part in loss or scores. Not a class.

    Raises
    ------
    ConfigError
        Fewer than two classes, doubled names, or an ignore index that is also a class.

    Examples
    --------
    >>> table = ClassTable(("background", "nucleus"))
    >>> len(table), table.colors[1]
    (2, (230, 159, 0))
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...] = ()
    ignore_index: int = 255

    def __post_init__(self) -> None:
        if not self.colors:
            object.__setattr__(self, "colors", tuple(default_color(k) for k in range(len(self.names))))
        if len(self.names) < 2:
            raise ConfigError(
                f"a class table of {len(self.names)} classes",
                "two or more",
                "name the background as a class too",
            )
        doubled = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if doubled:
            raise ConfigError(
                f"class names used twice: {doubled}", "one name per class", "rename one of them"
            )
        if len(self.colors) != len(self.names):
            raise ConfigError(
                f"{len(self.colors)} colours for {len(self.names)} classes",
                "one colour per class",
                "add or drop some",
            )
        for name, color in zip(self.names, self.colors, strict=True):
            if len(color) != 3 or not all(0 <= part <= 255 for part in color):
                raise ConfigError(
                    f"class {name!r} has colour {color}", "three numbers of 0 to 255", "correct it"
                )
        if 0 <= self.ignore_index < len(self.names) or not 0 <= self.ignore_index <= 65535:
            raise ConfigError(
                f"ignore index {self.ignore_index} with {len(self.names)} classes",
                f"a number from {len(self.names)} to 65535",
                "use 255, or 65535 where there are more than 255 classes",
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, classes: ClassTable | Sequence[str] | int) -> ClassTable:
        """Return a table from a table, a list of names, or a number of classes."""
        if isinstance(classes, ClassTable):
            return classes
        names = tuple(f"class {k}" for k in range(classes)) if isinstance(classes, int) else tuple(classes)
        return cls(names, ignore_index=255 if len(names) <= 255 else 65535)

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """The smallest unsigned type that holds every label and the ignore index."""
        return np.dtype(np.uint8) if self.ignore_index <= 255 else np.dtype(np.uint16)

    def to_colors(self, labels: Labels) -> NDArray[np.uint8]:
        """Paint labels H×W as colours H×W×3; pixels at the ignore index become white.

        Raises
        ------
        ConfigError
            A label is neither a class nor the ignore index.
        """
        unknown = np.setdiff1d(np.unique(labels), [*range(len(self)), self.ignore_index])
        if unknown.size:
            raise ConfigError(
                f"labels {unknown.tolist()}",
                f"0 to {len(self) - 1} or {self.ignore_index}",
                "check that this class table belongs to these labels",
            )
        palette = np.full((max(self.ignore_index, len(self)) + 1, 3), 255, np.uint8)
        palette[: len(self)] = self.colors
        return palette[labels]

    def from_colors(self, colors: NDArray[np.uint8]) -> tuple[Labels, NDArray[np.bool_]]:
        """Find each pixel's class by its exact colour.

        Parameters
        ----------
        colors
            H×W×3, uint8.

        Returns
        -------
        labels
            H×W; the ignore index where no class has the colour.
        known
            H×W; False where no class has the colour.
        """
        codes = _codes(colors)
        table = _codes(np.array(self.colors, np.uint8))
        order = np.argsort(table)
        place = np.minimum(np.searchsorted(table[order], codes), len(self) - 1)
        known = table[order][place] == codes
        labels: Labels = np.where(known, order[place], self.ignore_index).astype(self.dtype)
        return labels, np.asarray(known, np.bool_)


def _codes(colors: NDArray[np.uint8]) -> NDArray[np.int64]:
    red, green, blue = (colors[..., channel].astype(np.int64) for channel in range(3))
    return (red << 16) | (green << 8) | blue
