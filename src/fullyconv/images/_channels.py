"""Channels of an image: only changes that lose nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fullyconv.errors import ImageError


def conform(
    array: NDArray[Any], channels: int, dtype: DTypeLike | None = None, *, name: str = "the image"
) -> tuple[NDArray[Any], str]:
    """Give an image the number of channels a network takes, if nothing is lost by that.

    Gray becomes RGB by repetition, RGB of three equal channels becomes gray, and alpha (the last of 2 or 4
    channels) is dropped where it is opaque everywhere: the highest number of a whole dtype, 1 of a floating.

    Parameters
    ----------
    array
        H×W×C, or H×W for one channel.
    channels
        How many channels to return.
    dtype
        The dtype the values must have already; None allows any. Values are never rescaled.
    name
        What to call the image in errors, such as its path.

    Returns
    -------
    array
        H×W×channels.
    note
        What was done, such as ``"gray repeated to RGB"``; empty if nothing.

    Raises
    ------
    ImageError
        The change would lose or invent something, or the dtype differs.

    Examples
    --------
    >>> image, note = conform(np.zeros((4, 5, 1), np.uint8), 3)
    >>> image.shape, note
    ((4, 5, 3), 'gray repeated to RGB')
    """
    if array.ndim not in (2, 3):
        raise ImageError(f"{name} has shape {array.shape}", "height × width × channels", "pass one image")
    if array.ndim == 2:
        array = array[..., None]
    if dtype is not None and array.dtype != np.dtype(dtype):
        raise ImageError(
            f"{name} holds {array.dtype} values",
            f"{np.dtype(dtype)}, as in the images of the training",
            "convert it as those were converted; how values are scaled is yours to say",
        )
    notes = []
    if array.shape[2] != channels and (array.shape[2], channels) in {(2, 1), (2, 3), (4, 1), (4, 3)}:
        array = drop_opaque_alpha(array, name=name)
        notes.append("opaque alpha dropped")
    if (array.shape[2], channels) == (1, 3):
        array = np.repeat(array, 3, axis=2)
        notes.append("gray repeated to RGB")
    elif (array.shape[2], channels) == (3, 1) and _is_gray(array):
        array = array[..., :1]
        notes.append("equal RGB channels reduced to gray")
    if array.shape[2] != channels:
        raise ImageError(
            f"{name} has {array.shape[2]} channel(s)",
            f"{channels}, or what becomes that without loss",
            "convert it (drop, merge or add channels), or use a model for such images",
        )
    return np.ascontiguousarray(array), ", ".join(notes)


def drop_opaque_alpha(array: NDArray[Any], *, name: str = "the image") -> NDArray[Any]:
    """Return H×W×C without its last channel, which must be opaque everywhere.

    Raises
    ------
    ImageError
        A pixel is transparent.
    """
    opaque = 1.0 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    transparent = array[..., -1] != opaque
    if transparent.any():
        count = np.count_nonzero(transparent)
        row, column = np.argwhere(transparent)[0]
        raise ImageError(
            f"{name} has {count} transparent pixel(s), the first at row {row}, column {column}",
            "no transparency: what lies behind the image is unknown",
            "flatten it onto a background and save it without alpha",
        )
    return array[..., :-1]


def _is_gray(array: NDArray[Any]) -> bool:
    return np.array_equal(array[..., 0], array[..., 1]) and np.array_equal(array[..., 0], array[..., 2])
