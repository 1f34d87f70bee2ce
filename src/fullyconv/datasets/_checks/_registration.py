"""Where a mask's borders fit the image's edges best: at their place, or somewhere beside it.

The edges' strength under the borders is measured for every displacement at once, by cross-correlation in the
frequency domain (Anuta, *Spatial registration of multispectral and multitemporal digital imagery using fast
Fourier transform techniques*, 1970).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

_LONGEST_SIDE = 512  # larger images are measured at a fraction of their size
_REACH = 32  # pixels of that size: the farthest displacement tried
_FEWEST_BORDERS = 64  # pixels: with fewer, chance decides


@dataclass(frozen=True)
class Offset:
    """The displacement at which a mask fits best.

    Parameters
    ----------
    rows, columns
        In pixels of the image; the mask should move by so much, downwards and to the right.
    strength
        How far the fit there stands out of all displacements, in their standard deviations (robust).
    at_zero
        The fit where the mask is now, as a share of the best one's height above the rest.
    """

    rows: int
    columns: int
    strength: float
    at_zero: float


def find_offset(image: NDArray[Any], codes: NDArray[np.integer[Any]]) -> Offset | None:
    """Measure where a mask fits its image best; None where either has too few edges to tell.

    Parameters
    ----------
    image
        H×W×C.
    codes
        H×W; only where they change matters.
    """
    step = -(-max(codes.shape) // _LONGEST_SIDE)
    reach = min(_REACH, min(codes.shape) // step // 4)
    if reach < 4:
        return None
    borders = _borders(codes[::step, ::step])
    count = int(borders.sum())
    edges = _edges(image[::step, ::step] if step == 1 else _reduced(image, step))
    if count < _FEWEST_BORDERS or edges is None:
        return None
    size = [fft.next_fast_len(length + 2 * reach, real=True) for length in borders.shape]
    spectrum = np.conj(fft.rfft2(borders, size)) * fft.rfft2(edges, size)
    fit = np.roll(fft.irfft2(spectrum, size), (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    middle = float(np.median(fit))
    spread = 1.4826 * float(np.median(np.abs(fit - middle)))
    row, column = divmod(int(fit.argmax()), fit.shape[1])
    height = float(fit.max()) - middle
    here = float(fit[reach - 1 : reach + 2, reach - 1 : reach + 2].max()) - middle
    if height <= 0 or spread <= 0 or {row, column} & {0, 2 * reach}:
        return None
    return Offset((row - reach) * step, (column - reach) * step, height / spread, here / height)


def _borders(codes: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    borders = np.zeros(codes.shape, np.float32)
    borders[:-1] = codes[:-1] != codes[1:]
    borders[:, :-1] = np.maximum(borders[:, :-1], codes[:, :-1] != codes[:, 1:])
    return borders


def _edges(image: NDArray[Any]) -> NDArray[np.float32] | None:
    gray = image[..., :3].mean(2, dtype=np.float32)
    if not np.isfinite(gray).all():
        return None
    rows, columns = np.gradient(ndimage.gaussian_filter(gray, 1.0))
    strength = np.hypot(rows, columns)
    # One bright thing shall not outweigh all others.
    strength = np.minimum(strength, np.quantile(strength[::2, ::2], 0.95))
    deviation = float(strength.std())
    if deviation == 0:
        return None
    return np.asarray((strength - strength.mean()) / deviation, np.float32)


def _reduced(image: NDArray[Any], step: int) -> NDArray[np.float32]:
    """Return means of ``step``×``step`` pixels; the border repeats where the size is no multiple."""
    gray = image[..., :3].mean(2, dtype=np.float32)
    height, width = (-(-length // step) * step for length in gray.shape)
    gray = np.pad(gray, ((0, height - gray.shape[0]), (0, width - gray.shape[1])), mode="edge")
    return np.asarray(gray.reshape(height // step, step, width // step, step).mean((1, 3)))[..., None]
