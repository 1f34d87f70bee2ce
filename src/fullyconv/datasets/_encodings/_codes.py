"""What one pixel of a mask file says, and which label that stands for.

A *code* is the value of a pixel, or its colour packed as ``red << 16 | green << 8 | blue``. ``MISPLACED``
stands for a colour in a dataset of values, and for a value in a dataset of colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.images import Mask
from fullyconv.labels import ClassTable, Color, Labels

Codes = NDArray[np.integer[Any]]

MISPLACED = -(2**62)

# Compression and smoothing change a code by less than half of this, but at borders.
LEAST_APART = 32


@dataclass(frozen=True)
class Census:
    """How many pixels of one mask file have each code.

    Parameters
    ----------
    name
        The file, as messages name it.
    pixels
        Code to number of pixels.
    colored
        Whether the codes are colours.
    palette
        The file's own palette, if it has one.
    lossy
        Whether the file's compression may have changed codes.
    read
        Reads the file again, where it can be: to say where a code is.
    """

    name: str
    pixels: Mapping[int, int]
    colored: bool
    palette: tuple[Color, ...] | None
    lossy: bool = False
    read: Callable[[], Mask] | None = None

    def first_place(self, code: int) -> tuple[int, int] | None:
        """Return the first (row, column) with a code, if it is known."""
        if self.read is None:
            return None
        codes = pixel_codes(self.read().values)
        row, column = divmod(int(np.argmax(codes == code)), codes.shape[1])
        return row, column


@dataclass(frozen=True)
class Encoding:
    """How the mask files of a dataset spell labels.

    Parameters
    ----------
    classes
        The classes, and the ignore index of the labels.
    labels
        Code to label: a class position or the ignore index.
    colored
        Whether codes are colours.
    notes
        What was understood, one line each.
    fix
        What to do about a code that has no label.
    """

    classes: ClassTable
    labels: Mapping[int, int]
    colored: bool
    notes: tuple[str, ...]
    fix: str

    def decode(self, values: Codes) -> tuple[Labels, NDArray[np.bool_]]:
        """Turn the values of a mask file into labels.

        Parameters
        ----------
        values
            H×W values, or H×W×3 colours.

        Returns
        -------
        labels
            H×W, of the class table's dtype; the ignore index where the code is unknown.
        known
            H×W; False where the code is unknown.
        """
        codes = self.codes(values)
        keys, targets = self._table
        if codes.dtype in (np.uint8, np.uint16):
            lookup = np.full(np.iinfo(codes.dtype).max + 1, -1)
            fitting = keys < len(lookup)
            lookup[keys[fitting]] = targets[fitting]
            labels = lookup[codes]
        else:
            place = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
            labels = np.where(keys[place] == codes, targets[place], -1)
        known = labels >= 0
        labels[~known] = self.classes.ignore_index
        return labels.astype(self.classes.dtype), known

    def codes(self, values: Codes) -> Codes:
        """Return the code of each pixel, H×W."""
        codes = pixel_codes(values)
        if values.ndim == 3:
            return codes if self.colored else np.where(is_gray(codes), codes & 255, MISPLACED)
        return np.full(values.shape, MISPLACED) if self.colored else codes

    @cached_property
    def can_snap(self) -> bool:
        """Whether the classes' codes lie so far apart that a changed code still tells its class."""
        keys = np.array([self._point(key) for key in self.labels], np.float64)
        apart = np.abs(keys[:, None] - keys[None]).max(2) + np.where(np.eye(len(keys)), np.inf, 0)
        return bool(apart.min() >= LEAST_APART) if len(keys) > 1 else False

    def snap(self, values: Codes) -> tuple[Labels, NDArray[np.bool_]]:
        """Turn the values of a mask file into labels, unknown codes into those of the nearest code.

        Parameters
        ----------
        values
            H×W values, or H×W×3 colours; gray colours and values stand for each other.

        Returns
        -------
        labels
            H×W, of the class table's dtype.
        changed
            H×W; True where the code was unknown.
        """
        if values.ndim == 2 and self.colored:
            values = np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
        codes, places = np.unique(pixel_codes(values), return_inverse=True)
        parts = (
            np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1) if values.ndim == 3 else codes[:, None]
        )
        points = np.array([self._point(key) for key in self.labels], np.float64)
        distance = np.square(parts[:, None] - points[None]).sum(2)
        targets = np.array([*self.labels.values()])[distance.argmin(1)]
        changed = distance.min(1) > 0
        shape = values.shape[:2]
        return targets[places].reshape(shape).astype(self.classes.dtype), changed[places].reshape(shape)

    def _point(self, code: int) -> tuple[int, int, int]:
        return unpack_color(code) if self.colored else (code, code, code)

    def pixels(self, census: Census) -> Mapping[int, int]:
        """Return the number of pixels per code of a mask file, in the codes that ``decode`` would see."""
        if census.colored and not self.colored:
            return without_color(census).pixels
        return (
            {MISPLACED: sum(census.pixels.values())} if self.colored and not census.colored else census.pixels
        )

    def spelled(self, code: int) -> str:
        """Return a code as a person writes it: ``value 7`` or ``colour (1, 2, 3)``."""
        if code == MISPLACED:
            return "no colour" if self.colored else "a colour"
        return f"colour {unpack_color(code)}" if self.colored else f"value {code}"

    def written(self, code: int) -> str:
        """Return a code as ``classes.toml`` has it: ``7`` or ``[1, 2, 3]``."""
        return str(list(unpack_color(code)) if self.colored else code)

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        keys = sorted(self.labels)
        return np.array(keys, np.int64), np.array([self.labels[key] for key in keys], np.int64)


def pixel_codes(values: Codes) -> Codes:
    """Return one number for each pixel of a mask file, H×W: its value, or its colour packed."""
    return pack_colors(values) if values.ndim == 3 else values


def take_census(name: str, mask: Mask) -> Census:
    """Count the codes of one mask file."""
    values = mask.values
    if values.ndim == 2 and values.dtype in (np.uint8, np.uint16):
        counts = np.bincount(values.ravel())
        codes: NDArray[Any] = np.flatnonzero(counts)
        counts = counts[codes]
    else:
        codes, counts = np.unique(pixel_codes(values), return_counts=True)
    pixels = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    return Census(name, pixels, values.ndim == 3, mask.palette, mask.lossy)


def total_codes(censuses: list[Census]) -> Counter[int]:
    totals: Counter[int] = Counter()
    for census in censuses:
        totals.update(census.pixels)
    return totals


def without_color(census: Census) -> Census:
    if not census.colored:
        return census
    pixels: Counter[int] = Counter()
    for code, count in census.pixels.items():
        pixels[code & 255 if is_gray(code) else MISPLACED] += count
    return Census(census.name, pixels, False, census.palette)


def pack_colors(colors: Codes) -> NDArray[np.int64]:
    wide = colors.astype(np.int64)
    packed: NDArray[np.int64] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


def pack_color(color: Color) -> int:
    return (color[0] << 16) | (color[1] << 8) | color[2]


def unpack_color(code: Any) -> tuple[Any, Any, Any]:
    return code >> 16, code >> 8 & 255, code & 255


def is_gray(code: Any) -> Any:
    return code == (code & 255) * 0x10101


# In this order: what the user wrote first, then the narrowest reading. Each takes the census of every mask,
# the class file if there is one, and whether the codes are colours; it answers, passes (None), or refuses.
