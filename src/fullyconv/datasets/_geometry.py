"""Where each pixel of a crop comes from, and fetching it: the same place for image and labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from fullyconv.datasets._augment_config import AugmentConfig
from fullyconv.images import to_tensor
from fullyconv.labels import Labels

_QUARTER_TURN = np.array([[0, -1], [1, 0]])


@dataclass(frozen=True)
class Motion:
    """The map from a crop's pixels to places in its image.

    The pixel at ``offset`` from the crop's centre comes from ``center + matrix @ offset + displacement``.

    Parameters
    ----------
    crop
        (height, width), margins included.
    center
        (row, column) in the image; whole or half numbers where ``exact``.
    matrix
        2×2.
    displacement
        2×height×width, or None.
    exact
        Whether the map only turns by quarters and mirrors, so that pixels are copied, not interpolated.
    """

    crop: tuple[int, int]
    center: tuple[float, float]
    matrix: NDArray[np.float64]
    displacement: NDArray[np.float64] | None
    exact: bool


def draw_motion(size: tuple[int, ...], config: AugmentConfig, rng: np.random.Generator) -> Motion:
    """Draw where a crop comes from, in an image of ``size`` (height, width)."""
    turned = _draw_turn(config, rng)
    exact = rng.random() >= config.warp
    zoom, free = (1.0, np.eye(2)) if exact else _draw_warp(config, rng)
    displacement = None if exact or not config.elastic else _draw_elastic(config, rng)
    center = []
    for length, needed in zip(size, np.abs(turned) @ config.crop, strict=True):
        # A crop lies inside its image where it can; a larger one holds the whole image.
        room = length - needed / zoom
        low, high = min(0.0, room), max(0.0, room)
        start = rng.integers(round(low), round(high), endpoint=True) if exact else rng.uniform(low, high)
        center.append(float(start + (needed / zoom - 1) / 2))
    return Motion(config.image_size, (center[0], center[1]), turned @ free, displacement, exact)


def move(
    image: NDArray[Any], labels: Labels, motion: Motion, outside: int | None, *others: NDArray[Any]
) -> tuple[torch.Tensor, *tuple[NDArray[Any], ...]]:
    """Fetch a crop: the image C×h×w float32, bilinear between pixels; the labels h×w, of the nearest pixel.

    Beyond the border the image is mirrored; so are the labels, or they become ``outside``. The
    ``others``, H×W like the labels, are fetched like them and mirrored.
    """
    if motion.exact:
        return _copy((image, labels, *others), motion, outside)
    height, width = motion.crop
    rows = np.arange(height)[:, None] - (height - 1) / 2
    columns = np.arange(width)[None, :] - (width - 1) / 2
    places = motion.matrix[:, 0, None, None] * rows + motion.matrix[:, 1, None, None] * columns
    if motion.displacement is not None:
        places += motion.displacement
    places += np.array(motion.center)[:, None, None]
    first = np.floor(places.min((1, 2))).astype(int)
    last = np.ceil(places.max((1, 2))).astype(int) + 1
    window, *truths = _window((image, labels, *others), first, last, outside)
    places -= first[:, None, None]

    # Coordinates of -1 and 1 are the centres of the first and the last pixel of the window.
    spans = np.maximum(np.array(window.shape[:2]) - 1, 1)[:, None, None]
    grid = torch.from_numpy((2 * places / spans - 1)[::-1].astype(np.float32)).permute(1, 2, 0)
    pixels = F.grid_sample(
        to_tensor(window)[None], grid[None], mode="bilinear", padding_mode="border", align_corners=True
    )
    nearest = np.rint(places).astype(np.intp)
    return pixels[0], *(truth[nearest[0], nearest[1]] for truth in truths)


def reflect(indices: NDArray[np.integer[Any]], length: int) -> NDArray[np.integer[Any]]:
    """Mirror indices into 0 to ``length`` − 1 without repeating the border, however far outside they are."""
    period = max(2 * (length - 1), 1)
    inside = np.abs(indices) % period
    return np.minimum(inside, period - inside) if length > 1 else np.zeros_like(indices)


def _copy(
    maps: tuple[NDArray[Any], ...], motion: Motion, outside: int | None
) -> tuple[torch.Tensor, *tuple[NDArray[Any], ...]]:
    turned = np.rint(motion.matrix).astype(int)
    needed = np.abs(turned) @ motion.crop
    first = np.rint(np.array(motion.center) - (needed - 1) / 2).astype(int)
    rows, columns = turned.sum(1)
    windows = [each[::rows, ::columns] for each in _window(maps, first, first + needed, outside)]
    if turned[0, 0] == 0:
        windows = [each.swapaxes(0, 1) for each in windows]
    return to_tensor(windows[0]), *windows[1:]


def _window(
    maps: tuple[NDArray[Any], ...],
    first: NDArray[np.integer[Any]],
    last: NDArray[np.integer[Any]],
    outside: int | None,
) -> list[NDArray[Any]]:
    """Return rows and columns ``first`` to ``last`` (exclusive) of all maps, mirrored beyond the border."""
    height, width = maps[0].shape[:2]
    if (first >= 0).all() and (last <= (height, width)).all():
        return [each[first[0] : last[0], first[1] : last[1]] for each in maps]
    rows, columns = (np.arange(start, stop) for start, stop in zip(first, last, strict=True))
    places = np.ix_(reflect(rows, height), reflect(columns, width))
    window, truth, *others = (each[places] for each in maps)
    if outside is not None:
        truth = truth.astype(np.int64)
        truth[(rows < 0) | (rows >= height)] = outside
        truth[:, (columns < 0) | (columns >= width)] = outside
    return [window, truth, *others]


def _draw_turn(config: AugmentConfig, rng: np.random.Generator) -> NDArray[np.integer[Any]]:
    turns, upside_down, mirrored = rng.integers((4, 2, 2))
    signs = [
        -1 if upside_down and config.flips == "both" else 1,
        -1 if mirrored and config.flips != "none" else 1,
    ]
    turned: NDArray[np.integer[Any]] = np.diag(signs)
    if config.quarter_turns:
        turned = np.linalg.matrix_power(_QUARTER_TURN, int(turns)) @ turned
    return turned


def _draw_warp(config: AugmentConfig, rng: np.random.Generator) -> tuple[float, NDArray[np.float64]]:
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
    zoom = float(np.exp(rng.uniform(*np.log(config.scale))))
    sheared = np.array([[1.0, rng.uniform(-config.shear, config.shear)], [0.0, 1.0]])
    rotated = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return zoom, rotated @ sheared / zoom


def _draw_elastic(config: AugmentConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    grid = rng.normal(0.0, config.elastic, (2, 3, 3))
    height, width = config.image_size
    smooth: NDArray[np.float64] = _cubic_weights(height) @ grid @ _cubic_weights(width).T
    return smooth


@lru_cache(maxsize=16)
def _cubic_weights(length: int) -> NDArray[np.float64]:
    """Return length×3: what each of 3 evenly spread points gives to each pixel (Keys 1981, a = -1/2)."""
    distance = np.abs(np.linspace(0, 2, length)[:, None] - np.arange(-1, 4))
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    # The points beyond both ends repeat the end points.
    weights[:, 1] += weights[:, 0]
    weights[:, 3] += weights[:, 4]
    return weights[:, 1:4]
