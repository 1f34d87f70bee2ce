"""Labels drawn over their image, for people to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ConfigError, ImageError
from fullyconv.labels import ClassTable, Labels

_PIXELS_PER_LINE = 1024  # an outline is one pixel wide per so many of the image's longer side
_ROWS = 256  # tinted at once: what is in between takes eight times the memory of the picture


def overlay(
    image: NDArray[Any], labels: Labels, table: ClassTable, *, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """Draw labels over an image: regions tinted, their outlines in full colour.

    Class 0 is the background and stays unpainted; ignored pixels stay unpainted inside a white outline.

    Parameters
    ----------
    image
        H×W×C (or H×W), any real dtype. Of 1 or 2 channels the first is shown as gray, else the first three
        as RGB. uint8 is shown as it is; other dtypes are stretched from the 0.5th to the 99.5th percentile.
    labels
        H×W whole numbers (or booleans): classes or the ignore index.
    table
        Gives the colours.
    opacity
        How much of the tint covers the image, 0 to 1.

    Returns
    -------
    ndarray
        H×W×3, uint8.

    Raises
    ------
    ImageError
        Image and labels differ in height or width.
    ConfigError
        ``opacity`` is out of range, or a label is not in the table.
    """
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity {opacity}", "a number from 0 to 1", "use 0.5")
    if image.shape[:2] != labels.shape:
        raise ImageError(
            f"an image of {image.shape[:2]} and labels of {labels.shape}",
            "equal height and width",
            "pair them anew",
        )
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    picture = _displayable(image)
    outline = _outline(labels, width=1 + max(labels.shape) // _PIXELS_PER_LINE) & (labels != 0)
    for top in range(0, len(labels), _ROWS):
        rows = slice(top, top + _ROWS)
        colors = table.to_colors(labels[rows])
        painted = (labels[rows] != 0) & (labels[rows] != table.ignore_index)
        tint = (1 - opacity) * picture[rows][painted] + opacity * colors[painted]
        picture[rows][painted] = np.rint(tint).astype(np.uint8)
        picture[rows][outline[rows]] = colors[outline[rows]]
    return picture


def _displayable(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a new H×W×3 uint8 picture of an image of any dtype and number of channels."""
    if image.ndim == 2:
        image = image[..., None]
    shown = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return shown.copy()
    values = shown.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (0.5, 99.5), method="nearest") if finite.size else (0.0, 1.0)
    values = np.nan_to_num(values, nan=low).clip(low, high)
    # Halved, because the difference of two float64 may exceed float64.
    scaled = (values / 2 - low / 2) / max(high / 2 - low / 2, np.finfo(np.float64).tiny)
    picture: NDArray[np.uint8] = np.rint(255 * scaled).astype(np.uint8)
    return picture


def _outline(labels: Labels, *, width: int) -> NDArray[np.bool_]:
    """Mark the pixels that have another label within ``width`` steps along a row or column."""
    outline = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        for axis in (0, 1):
            before, after = (
                np.moveaxis(array, axis, 0)[part]
                for array, part in ((labels, slice(None, -step)), (labels, slice(step, None)))
            )
            differs = before != after
            edge = np.moveaxis(outline, axis, 0)
            edge[:-step] |= differs
            edge[step:] |= differs
    return outline
