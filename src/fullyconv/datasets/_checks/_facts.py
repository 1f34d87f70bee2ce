"""What one sample's files hold: everything the checks need, from decoding each file once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fullyconv.datasets._checks._registration import Offset, find_offset
from fullyconv.datasets._checks._thumbnails import take_thumbnail
from fullyconv.datasets._encodings import Census, pixel_codes, take_census
from fullyconv.datasets._samples import Sample
from fullyconv.datasets._sources import Source, load_image, load_mask, name_below
from fullyconv.errors import ImageError
from fullyconv.images import Mask, conform
from fullyconv.labels import Color

_T = TypeVar("_T")
_R = TypeVar("_R")
_S = TypeVar("_S", bound=Source)


_IN_JSON = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


@dataclass(frozen=True, config=_IN_JSON)
class ImageFacts:
    """What an image file holds.

    Parameters
    ----------
    size
        (height, width), upright.
    channels, colors
        Channels as stored, and without an alpha that is opaque everywhere.
    dtype
        Name of the NumPy type.
    constant
        Whether every pixel is equal.
    tones
        Number of different values in the channel that has most, up to 65536; 0 for floating numbers.
    not_finite
        Number of NaN and infinite values.
    first_not_finite
        Row and column of the first of them.
    digest
        Of the pixels, whatever the file's format.
    thumbnail
        Of `take_thumbnail`.
    """

    size: tuple[int, int]
    channels: int
    colors: int
    dtype: str
    constant: bool
    tones: int
    not_finite: int
    first_not_finite: tuple[int, int] | None
    digest: str
    thumbnail: bytes


@dataclass(frozen=True)
class MaskFacts:
    """What a mask file holds.

    Parameters
    ----------
    size
        (height, width), upright.
    pixels
        Code to number of pixels.
    colored, palette, lossy
        As in `Census`.
    """

    size: tuple[int, int]
    pixels: Mapping[int, int]
    colored: bool
    palette: tuple[Color, ...] | None
    lossy: bool

    def census(self, name: str, read: Callable[[], Mask] | None = None) -> Census:
        """Return the codes under the file's name."""
        return Census(name, self.pixels, self.colored, self.palette, self.lossy, read)


@dataclass(frozen=True)
class Fault:
    """Why a file could not be read: what was found, and what to do."""

    of: Literal["image", "mask"]
    given: str
    fix: str


@dataclass(frozen=True)
class Facts:
    """What a sample's files hold; ``image``, ``mask`` are None where there is none that can be read."""

    image: ImageFacts | None
    mask: MaskFacts | None
    faults: tuple[Fault, ...]
    offset: Offset | None


def in_threads(function: Callable[[_T], _R], items: Sequence[_T]) -> Iterable[_R]:
    """Apply a function to each item, in order; decoders and hashes let other threads run."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)


def take_facts(sample: Sample) -> Facts:
    """Decode a sample's files to the end and measure them."""
    faults: list[Fault] = []
    image = _attempt(load_image, sample.image, "image", faults)
    mask = _attempt(load_mask, sample.mask, "mask", faults) if sample.mask is not None else None
    offset = None
    if image is not None and mask is not None and image.shape[:2] == mask.values.shape[:2]:
        offset = find_offset(image, pixel_codes(mask.values))
    return Facts(
        None if image is None else _of_image(image),
        None if mask is None else _of_mask(mask),
        tuple(faults),
        offset,
    )


def _attempt(
    read: Callable[[_S], _R], source: _S, of: Literal["image", "mask"], faults: list[Fault]
) -> _R | None:
    try:
        return read(source)
    except ImageError as error:
        given = error.given.removeprefix(name_below(Path(), source)).lstrip(": ")
        faults.append(Fault(of, given, error.fix))
        return None


def _of_image(image: NDArray[Any]) -> ImageFacts:
    height, width, channels = image.shape
    finite = np.isfinite(image) if image.dtype.kind == "f" else None
    missing = 0 if finite is None else int(finite.size - np.count_nonzero(finite))
    first = divmod(int(np.argmin(finite.all(2))), width) if finite is not None and missing else None
    return ImageFacts(
        size=(height, width),
        channels=channels,
        colors=_without_opaque_alpha(image),
        dtype=str(image.dtype),
        constant=bool((image == image[:1, :1]).all()),
        tones=max(_tones(image[..., k]) for k in range(min(channels, 3))),
        not_finite=missing,
        first_not_finite=first,
        digest=_digest(image),
        thumbnail=take_thumbnail(image),
    )


def _digest(image: NDArray[Any]) -> str:
    found = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
    found.update(np.ascontiguousarray(image).data)  # no copy: images may be large
    return found.hexdigest()


def _of_mask(mask: Mask) -> MaskFacts:
    census = take_census("", mask)
    height, width = mask.values.shape[:2]
    return MaskFacts((height, width), census.pixels, census.colored, census.palette, census.lossy)


def _tones(channel: NDArray[Any]) -> int:
    if channel.dtype in (np.uint8, np.uint16):
        return int(np.count_nonzero(np.bincount(channel.ravel())))
    return 0 if channel.dtype.kind == "f" else min(len(np.unique(channel)), 65536)


def _without_opaque_alpha(image: NDArray[Any]) -> int:
    channels: int = image.shape[2]
    if channels in (2, 4):
        try:
            conform(image, channels - 1)
        except ImageError:
            return channels
        return channels - 1
    return channels
