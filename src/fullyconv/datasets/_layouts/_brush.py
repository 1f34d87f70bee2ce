"""The run lengths of Label Studio's brush: bits packed as by the library rle-pack (thi.ng/umbrella).

A header of 32 bits for the number of words, 5 for the bits of a word less one, and four times 4 for the bits
of run lengths less one. Then runs: one bit (1: a repeated word, 0: words one by one), two bits that choose
among the four widths, the length less one in that width, and the word or words. Words are the bytes of H×W
RGBA pixels; a stroke is what their alpha says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullyconv.errors import ImageError


def decode_brush(packed: ArrayLike, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Unpack the alpha of a brush stroke.

    Parameters
    ----------
    packed
        Bytes, as the list of numbers 0 to 255 that ``value.rle`` of an export is.
    size
        (height, width).

    Returns
    -------
    ndarray
        H×W uint8; 0 where the brush was not.

    Raises
    ------
    ImageError
        The bits end too early, or are of an image of another size.
    """
    numbers = np.asarray(packed)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or ((numbers < 0) | (numbers > 255)).any():
        raise _damaged("it is no list of bytes")
    bits = np.unpackbits(numbers.astype(np.uint8))
    words, width, lengths, position = _header(bits)
    height, wide = size
    if words != height * wide * 4 or width != 8:
        raise _damaged(f"it holds {words} words of {width} bits, not {height}×{wide}×4 bytes")
    pixels = np.empty(words, np.uint8)
    done = 0
    while done < words:
        if position + 3 > len(bits):
            raise _damaged(f"it ends after {done} of {words} bytes")
        repeated, choice = bits[position], 2 * bits[position + 1] + bits[position + 2]
        position += 3
        count = _number(bits, position, lengths[choice]) + 1
        position += lengths[choice]
        stored = 1 if repeated else count
        run = bits[position : position + 8 * stored]
        if len(run) < 8 * stored or done + count > words:
            raise _damaged(f"a run of {count} bytes after {done} of {words} does not fit")
        position += 8 * stored
        pixels[done : done + count] = np.packbits(run)
        done += count
    return pixels.reshape(height, wide, 4)[..., 3]


def _header(bits: NDArray[np.uint8]) -> tuple[int, int, list[int], int]:
    """Return the number of words, the bits of a word, the four widths of lengths, and where runs begin."""
    lengths = [_number(bits, 37 + 4 * k, 4) + 1 for k in range(4)]
    return _number(bits, 0, 32), _number(bits, 32, 5) + 1, lengths, 53


def _number(bits: NDArray[np.uint8], position: int, count: int) -> int:
    found = bits[position : position + count]
    if len(found) < count:
        raise _damaged(f"it ends within a number, after {len(bits)} bits")
    return int(found @ (1 << np.arange(count - 1, -1, -1)))


def _damaged(what: str) -> ImageError:
    return ImageError(
        f"a damaged brush stroke: {what}",
        "the run lengths of Label Studio",
        "export the annotations again as JSON",
    )
