"""From stored samples to the values of an image: palettes become colours, few bits become 0 to 255."""

from __future__ import annotations

from typing import Any

import numpy as np

from fullyconv.errors import ImageError
from fullyconv.images._stored import Samples, Stored


def show(samples: Samples, stored: Stored) -> Samples:
    """Turn stored samples, which may be changed, into those of the image.

    Raises
    ------
    ImageError
        A pixel has a number for which the palette holds no colour.
    """
    if stored.palette is not None:
        return _paint(samples[..., 0], stored.palette)
    if stored.bits < 8:
        samples[..., 0] *= stored.white
    return samples


def shown_as(stored: Stored) -> tuple[int, np.dtype[Any]]:
    """Return channels and type of what `show` gives."""
    if stored.palette is not None:
        return stored.palette.shape[1], stored.palette.dtype
    return stored.channels, stored.dtype


def _paint(indices: Samples, palette: Samples) -> Samples:
    highest = int(indices.max(initial=0))
    if highest >= len(palette):
        raise ImageError(
            f"a pixel of colour number {highest} and a palette of {len(palette)} colours",
            "a colour for each number",
            "export the file again; if it is a mask, read it with read_mask",
        )
    return palette[indices]
