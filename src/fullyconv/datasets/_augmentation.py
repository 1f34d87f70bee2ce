"""Training crops: one resampling moves image and labels alike, one colour map changes the image's values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fullyconv.datasets._augment_config import AugmentConfig
from fullyconv.datasets._geometry import draw_motion, move
from fullyconv.datasets._photometry import change_values
from fullyconv.labels import Labels


def draw_crop(
    image: NDArray[Any],
    labels: Labels,
    *,
    config: AugmentConfig,
    rng: np.random.Generator,
    ignore_index: int,
    weights: NDArray[np.float32] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Draw one augmented training crop; a pure function of its arguments.

    Only the part of the arrays that the crop needs is read.

    Parameters
    ----------
    image
        H×W×C, any real dtype.
    labels
        H×W, integers.
    config
        How much is varied.
    rng
        Where every draw comes from.
    ignore_index
        The label of pixels beyond the image, with ``border="ignore"``.
    weights
        H×W: how much each pixel counts; moved like the labels.

    Returns
    -------
    image
        C×h×w, float32, in the units of the input, neither clipped nor rounded; h×w is ``config.image_size``.
    labels
        Of the size ``config.crop``, int64; only values of the input, or ``ignore_index``.
    weights
        Like the labels, float32; where they were given.
    """
    motion = draw_motion(labels.shape, config, rng)
    outside = ignore_index if config.border == "ignore" else None
    others = () if weights is None else (weights,)
    pixels, *truths = move(image, labels, motion, outside, *others)
    pixels = change_values(pixels, image.dtype, config, rng)
    scored = tuple(slice(config.margin, config.margin + length) for length in config.crop)
    types = (np.int64, np.float32)
    return pixels, *(
        torch.from_numpy(truth[scored].astype(kind)) for truth, kind in zip(truths, types, strict=False)
    )
