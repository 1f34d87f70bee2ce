"""Scenes of handwriting: numbers of various sizes on noisy paper, with a label for every pixel of ink."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fullyconv.demo.handwriting import CLASSES, Handwriting
from fullyconv.errors import ConfigError
from fullyconv.images import make_folder, write_image, write_labels

_INKS = ((32, 34, 40), (28, 44, 110), (20, 60, 140), (70, 66, 64), (120, 36, 40))  # black, blues, pencil, red
_VALIDATION_SHARE = 0.2
_TRIES = 20  # places for a number


@dataclass(frozen=True)
class Placement:
    """Where one digit stands: which (0 to 9), and its ink's centre (row, column) and height in pixels."""

    digit: int
    centre: tuple[float, float]
    height: int


@dataclass(frozen=True)
class Scene:
    """A picture with its truth.

    Attributes
    ----------
    image
        H×W×3, uint8.
    labels
        H×W, uint8: 0 on paper, 1 to 10 on the ink of digits 0 to 9.
    placements
        One per digit.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    placements: tuple[Placement, ...]


def draw_scene(
    handwriting: Handwriting,
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    heights: tuple[float, float] = (14.0, 40.0),
    crowding: float = 0.8,
) -> Scene:
    """Write numbers of one to five digits wherever there is room.

    Parameters
    ----------
    handwriting
        The digits to write.
    rng
        Where all chance comes from.
    size
        (height, width) in pixels.
    heights
        Smallest and largest digit in pixels; small ones are as frequent as large ones in area.
    crowding
        Area of the numbers that are tried, as a share of the page's; those that find no room are left out.

    Returns
    -------
    Scene
    """
    coverage = np.zeros(size, np.float32)
    labels = np.zeros(size, np.uint8)
    taken = np.zeros(size, np.bool_)
    placements: list[Placement] = []
    budget = crowding * size[0] * size[1]
    while budget > 0:
        # Uniform in the logarithm: a scene twice as large looks the same from twice as far.
        height = float(np.exp(rng.uniform(*np.log(heights))))
        number = _draw_number(handwriting, rng, height)
        budget -= number.coverage.size + height**2
        window = _free_place(taken, number.coverage.shape, 2 + int(height / 8), rng)
        if window is None:
            continue
        taken[window] = True
        coverage[window] = number.coverage * rng.uniform(0.55, 1.0)
        labels[window] = number.labels
        row, column = window[0].start, window[1].start
        placements += [
            Placement(place.digit, (place.centre[0] + row, place.centre[1] + column), place.height)
            for place in number.placements
        ]
    return Scene(_photograph(_write(_paper(size, rng), coverage, rng), rng), labels, tuple(placements))


def _free_place(
    taken: NDArray[np.bool_], size: tuple[int, ...], gap: int, rng: np.random.Generator
) -> tuple[slice, slice] | None:
    """Find a window of a size with nothing within a gap of it; None after some tries."""
    room = [long - short for long, short in zip(taken.shape, size, strict=True)]
    if min(room) < 0:
        return None
    for row, column in rng.integers(0, room, (_TRIES, 2), endpoint=True):
        bottom, right = row + size[0], column + size[1]
        if not taken[max(row - gap, 0) : bottom + gap, max(column - gap, 0) : right + gap].any():
            return slice(row, bottom), slice(column, right)
    return None


def large_scene(
    seed: int, size: tuple[int, int] = (4096, 4096), *, heights: tuple[float, float] = (14.0, 40.0)
) -> Scene:
    """Draw one big page of held-out handwriting.

    Parameters
    ----------
    seed
        Which page.
    size
        (height, width) in pixels.
    heights
        Smallest and largest digit in pixels.
    """
    return draw_scene(Handwriting(held_out=True), np.random.default_rng(seed), size, heights=heights)


def write_scenes(folder: Path, count: int = 300, seed: int = 0) -> Path:
    """Write a plain folder of images and masks: ``train/`` and ``val/``, and ``classes.toml``.

    One scene in five goes to ``val/``, drawn with digit images that ``train/`` never uses.

    Parameters
    ----------
    folder
        Where; must not exist, or be empty.
    count
        Scenes in all, two or more.
    seed
        The same seed writes the same pixels.

    Returns
    -------
    folder

    Raises
    ------
    ConfigError
        The folder holds something already, or fewer than two scenes are asked for.
    """
    if count < 2:
        raise ConfigError(f"{count} scenes", "two or more", "ask for one to train on and one to validate on")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", "a new folder", "remove it or name another")
    validation = max(1, round(count * _VALIDATION_SHARE))
    for split, held_out, scenes in (("train", False, count - validation), ("val", True, validation)):
        handwriting = Handwriting(held_out=held_out)
        for kind in ("images", "masks"):
            make_folder(folder / split / kind)
        for index in range(scenes):
            rng = np.random.default_rng([seed, int(held_out), index])
            height, width = (int(side) for side in rng.integers(160, 385, 2))
            scene = draw_scene(handwriting, rng, (height, width))
            name = f"scene-{index:04}.png"
            write_image(folder / split / "images" / name, scene.image)
            write_labels(folder / split / "masks" / name, scene.labels, CLASSES)
    (folder / "classes.toml").write_text(_classes_toml(), encoding="utf-8")
    return folder


def _classes_toml() -> str:
    classes = (
        f'[[class]]\nindex = {index}\nname = "{name}"\ncolor = {list(color)}\n'
        for index, (name, color) in enumerate(zip(CLASSES.names, CLASSES.colors, strict=True))
    )
    return f"ignore = {CLASSES.ignore_index}\n\n" + "\n".join(classes)


@dataclass(frozen=True)
class _Number:
    coverage: NDArray[np.float32]
    labels: NDArray[np.uint8]
    placements: tuple[Placement, ...]


def _draw_number(handwriting: Handwriting, rng: np.random.Generator, height: float) -> _Number:
    """Write one to five digits side by side in one hand: shared slant, pen and baseline."""
    slant, weight = rng.normal(0.08, 0.1), rng.uniform(-0.16, 0.04)
    strokes, digits = [], []
    for index in rng.integers(0, len(handwriting), rng.integers(1, 6)):
        stroke = handwriting.stroke(
            int(index),
            height * rng.uniform(0.9, 1.1),
            angle=rng.normal(0, 4),
            slant=slant + rng.normal(0, 0.03),
            weight=weight,
        )
        if stroke.size:
            strokes.append(stroke)
            digits.append(int(handwriting.digits[index]))
    wobble = rng.integers(0, max(1, int(height / 10)) + 1, len(strokes))
    gaps = rng.integers(1 + int(height / 16), 3 + int(height / 4), len(strokes))
    rows = max((stroke.shape[0] + up for stroke, up in zip(strokes, wobble, strict=True)), default=1)
    columns = sum(stroke.shape[1] for stroke in strokes) + int(gaps.sum())
    coverage = np.zeros((int(rows), max(columns, 1)), np.float32)
    labels = np.zeros(coverage.shape, np.uint8)
    placements = []
    left = 0
    for stroke, digit, up, gap in zip(strokes, digits, wobble, gaps, strict=True):
        high, wide = stroke.shape
        top = int(rows - up - high)
        window = np.s_[top : top + high, left : left + wide]
        coverage[window] = stroke
        labels[window] = np.where(stroke > 0.5, digit + 1, 0)
        placements.append(Placement(digit, (top + (high - 1) / 2, left + (wide - 1) / 2), high))
        left += wide + int(gap)
    return _Number(coverage, labels, tuple(placements))


def _paper(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Paper under a lamp: tint, fibres, blotches, shade, and sometimes ruled lines. H×W×3, 0 to 255."""
    tint = np.array([1.0, rng.uniform(0.96, 1.0), rng.uniform(0.86, 0.99)], np.float32)
    light = np.full(size, rng.uniform(195, 240), np.float32)
    light += _blotches(size, rng, cell=rng.uniform(60, 140)) * rng.uniform(1, 8)
    light += _blotches(size, rng, cell=rng.uniform(3, 8)) * rng.uniform(1, 5)
    rows, columns = np.ogrid[-0.5 : 0.5 : size[0] * 1j, -0.5 : 0.5 : size[1] * 1j]
    direction = rng.uniform(0, 2 * np.pi)
    light += rng.uniform(0, 50) * (np.sin(direction) * rows + np.cos(direction) * columns)
    light -= rng.uniform(0, 40) * (rows**2 + columns**2)
    page = light[..., None] * tint
    pattern = rng.choice(["plain", "lines", "squares"], p=[0.4, 0.35, 0.25])
    if pattern != "plain":
        line = np.array([rng.uniform(90, 190), rng.uniform(120, 190), rng.uniform(170, 220)], np.float32)
        spacing = rng.uniform(18, 48)
        strength = _rules(size[0], spacing, rng)[:, None]
        if pattern == "squares":
            strength = np.maximum(strength, _rules(size[1], spacing, rng)[None, :])
        page += (strength * rng.uniform(0.15, 0.5))[..., None] * (line - page)
    return page


def _rules(length: int, spacing: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Strength, 0 to 1, of thin lines ``spacing`` pixels apart."""
    distance = (np.arange(length) + rng.uniform(0, spacing)) % spacing
    strength: NDArray[np.float32] = np.clip(1.3 - np.minimum(distance, spacing - distance), 0, 1)
    return strength.astype(np.float32)


def _blotches(size: tuple[int, int], rng: np.random.Generator, cell: float) -> NDArray[np.float32]:
    """Smooth noise of about unit strength that varies over ``cell`` pixels."""
    shape = tuple(int(side / cell) + 4 for side in size)
    coarse = rng.standard_normal(shape, dtype=np.float32)
    centres = [np.arange(side, dtype=np.float32) / cell + 1 for side in size]
    # Cubic B-splines along one axis, then the other: cheap at any size, and nothing to see of the grid.
    for axis in (0, 1):
        coarse = _spline_rows(np.moveaxis(coarse, axis, 0), centres[axis])
        coarse = np.moveaxis(coarse, 0, axis)
    return coarse * np.float32(2.0)


def _spline_rows(values: NDArray[np.float32], positions: NDArray[np.float32]) -> NDArray[np.float32]:
    whole = positions.astype(np.int64)
    t = (positions - whole)[:, None]
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    rows = (weight / 6 * values[whole - 1 + shift] for shift, weight in enumerate(weights))
    return np.asarray(sum(rows), np.float32)


def _write(
    page: NDArray[np.float32], coverage: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Lay ink on the paper; it soaks in unevenly."""
    ink = np.array(_INKS[rng.integers(len(_INKS))], np.float32)
    soaked = coverage * (1 - 0.12 * np.abs(_blotches(coverage.shape, rng, cell=4.0)))
    return page + soaked[..., None] * (ink - page)


def _photograph(page: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur a little, add the sensor's noise, round to uint8."""
    blur = rng.uniform(0.0, 0.7)
    if blur > 0.3:
        page = ndimage.gaussian_filter(page, (blur, blur, 0))
    grain = rng.standard_normal(page.shape[:2], dtype=np.float32) * np.float32(rng.uniform(1, 7))
    speckle = rng.standard_normal(page.shape, dtype=np.float32) * np.float32(rng.uniform(0, 3))
    levels: NDArray[np.float32] = np.clip(np.rint(page + grain[..., None] + speckle), 0, 255)
    return levels.astype(np.uint8)
