"""Run lengths of COCO: pixels counted column by column, zeros first (cocoapi, common/maskApi.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ImageError

Indices = NDArray[np.int64]

_FIRST_LETTER = 48  # five bits per letter, a sixth for "more follow", from "0" on
_MOST_LETTERS = 12  # of a number below 2**59
_MOST_PIXELS = 2**40


class Rle(TypedDict):
    """A mask in COCO's form, ready for JSON: ``size`` is [height, width]."""

    size: list[int]
    counts: str | list[int]


def encode_rle(mask: NDArray[Any], *, compress: bool = True) -> Rle:
    """Write a mask as COCO run lengths.

    Parameters
    ----------
    mask
        H×W; whatever is not zero is inside.
    compress
        Give ``counts`` as the text that pycocotools makes, otherwise as a list of numbers.

    Raises
    ------
    ImageError
        The mask is not H×W.

    Examples
    --------
    >>> encode_rle(np.array([[0, 1], [1, 1]]), compress=False)
    {'size': [2, 2], 'counts': [1, 3]}
    """
    if mask.ndim != 2:
        raise ImageError(f"a mask of shape {mask.shape}", "height × width", "pass one mask")
    pixels = (mask != 0).ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    bounds = np.concatenate([[0], [0] if pixels[:1].any() else [], changes, [pixels.size]]).astype(np.int64)
    return _rle(mask.shape, np.diff(bounds), compress=compress)


def encode_rles(labels: NDArray[Any], *, compress: bool = True) -> dict[int, Rle]:
    """Write the mask of every label as COCO run lengths, in one pass.

    Parameters
    ----------
    labels
        H×W whole numbers.
    compress
        As in `encode_rle`.

    Returns
    -------
    dict
        Label to run lengths, in rising order of the labels there are; leave out the background's if it means
        nothing.

    Raises
    ------
    ImageError
        The labels are not H×W whole numbers.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "bui":
        raise ImageError(
            f"labels of shape {labels.shape} and type {labels.dtype}",
            "height × width whole numbers",
            "pass labels",
        )
    if not labels.size:
        return {}
    pixels = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
    ends = np.append(starts[1:], pixels.size)
    by_label = np.argsort(pixels[starts], kind="stable")
    found, firsts = np.unique(pixels[starts][by_label], return_index=True)
    encoded = {}
    for label, runs in zip(found.tolist(), np.split(by_label, firsts[1:]), strict=True):
        bounds = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        if bounds[-1] < pixels.size:
            bounds = np.append(bounds, pixels.size)
        encoded[int(label)] = _rle(labels.shape, np.diff(bounds, prepend=0), compress=compress)
    return encoded


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Read COCO run lengths, whose ``counts`` are numbers, a text, or the bytes of one.

    Returns
    -------
    ndarray
        H×W booleans.

    Raises
    ------
    ImageError
        Something is missing, no number or negative, the text ends within a number or has other letters, or
        the runs do not add up to the size.

    Examples
    --------
    >>> decode_rle({"size": [2, 2], "counts": "13"}).tolist()
    [[False, True], [True, True]]
    """
    height, width = _size(rle)
    given = rle.get("counts")
    counts = _decompress(given) if isinstance(given, (str, bytes)) else _numbers(given)
    if (counts < 0).any() or (counts > height * width).any() or counts.sum() != height * width:
        raise ImageError(
            f"run lengths that sum to {counts.sum()}, the least {counts.min(initial=0)}",
            f"numbers of 0 or more that sum to {height} × {width} = {height * width}",
            "check that counts and size belong together, as [height, width]",
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def _rle(size: tuple[int, ...], counts: Indices, *, compress: bool) -> Rle:
    return {"size": list(size), "counts": _compress(counts) if compress else counts.tolist()}


def _compress(counts: Indices) -> str:
    """Write each number, less the one two before it from the fourth on, in groups of 5 bits, lowest first."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    letters = []
    places = []
    place = np.arange(len(values))
    while len(values):
        group, values = values & 31, values >> 5
        more = values != np.where(group & 16, -1, 0)
        letters.append(group + 32 * more + _FIRST_LETTER)
        places.append(place)
        values, place = values[more], place[more]
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(letters)[order].astype(np.uint8).tobytes().decode("ascii")


def _decompress(text: str | bytes) -> Indices:
    if isinstance(text, str):
        text = text.encode("utf-8")
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - _FIRST_LETTER
    if ((groups < 0) | (groups > 63)).any():
        place = int(np.flatnonzero((groups < 0) | (groups > 63))[0])
        raise _damaged(f"the byte {text[place]} at position {place}")
    is_last = groups < 32
    if len(groups) and not is_last[-1]:
        raise _damaged("an end within a number")
    starts = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])[: len(groups)]
    lengths = np.flatnonzero(is_last) - starts + 1
    if (lengths > _MOST_LETTERS).any():
        raise _damaged(f"a number of {lengths.max()} letters")
    if not len(groups):
        return np.zeros(0, np.int64)
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    values = np.add.reduceat((groups & 31) << (5 * place), starts)
    negative = groups[starts + lengths - 1] & 16 != 0
    values -= np.where(negative, 1, 0) << (5 * lengths)
    if (np.abs(values) > _MOST_PIXELS).any():
        raise _damaged(f"a run of {np.abs(values).max()} pixels")
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _size(rle: Mapping[str, Any]) -> tuple[int, int]:
    size = rle.get("size")
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(isinstance(side, int) and side >= 0 for side in size)
        or size[0] * size[1] > _MOST_PIXELS
    ):
        raise ImageError(
            f"run lengths of size {size!r}", "[height, width]", "pass size and counts, as COCO has them"
        )
    return int(size[0]), int(size[1])


def _numbers(counts: Any) -> Indices:
    if not isinstance(counts, (Sequence, np.ndarray)) or not all(
        isinstance(count, (int, np.integer)) and abs(int(count)) <= _MOST_PIXELS for count in counts
    ):
        raise ImageError(
            f"run lengths given as {type(counts).__name__}",
            "a list of whole numbers, or a text",
            "pass counts as COCO has them",
        )
    return np.array(counts, np.int64)


def _damaged(what: str) -> ImageError:
    return ImageError(
        f"{what} in compressed run lengths", "a text as pycocotools writes it", "export the mask again"
    )
