"""Faults of place: masks of another size than their image, beside it, or in its stead."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from fullyconv.datasets._checks._evidence import Evidence
from fullyconv.datasets._checks._facts import Facts
from fullyconv.datasets._checks._problem import Problem
from fullyconv.datasets._checks._registration import Offset
from fullyconv.datasets._samples import Sample, counted

# Measured on nuclei, membranes and street scenes: right masks peak within 2 pixels of their place, but for
# a few that stand out by less than 5 deviations, or fit at their place by more than 0.6 of the best.
_FEWEST_PIXELS = 3
_LEAST_STRENGTH = 6.0
_MOST_AT_ZERO = 0.5

# A shift that most masks share is seen more surely than that of one.
_LEAST_SHARE = 0.5
_FEWEST_MASKS = 5
_CLOSE = 1  # pixels

# What tells a mask from a photograph: the number of different values.
_MOST_TONES_OF_MASK = 8
_FEWEST_TONES_OF_IMAGE = 32

_MOST_PIXELS_FOR_HEADER = 80_000_000  # Pillow warns above


def check_sizes(evidence: Evidence) -> Iterable[Problem]:
    """Masks of another size than their images; rotation by EXIF is named where it explains that."""
    for sample, facts in evidence:
        if facts.image is None or facts.mask is None or facts.image.size == facts.mask.size:
            continue
        (height, width), (rows, columns) = facts.image.size, facts.mask.size
        given = f"it is {rows}×{columns}, its image {evidence.name(sample.image)} is {height}×{width}"
        fix = "save the mask at the size of its image"
        turned = stored_orientation(sample, facts)
        if turned:
            given += (
                f" when turned upright; the camera stored it as {rows}×{columns} with EXIF orientation "
                f"{turned}, and the mask was painted on that"
            )
            fix = f"turn the mask as the image is: {evidence.fix_command}"
        yield Problem(given, fix, evidence.mask_name(sample))


def stored_orientation(sample: Sample, facts: Facts) -> int:
    """Return the EXIF orientation of an image whose mask has the size it is stored in; else 0."""
    if facts.image is None or facts.mask is None or not isinstance(sample.image, Path):
        return 0
    height, width = facts.image.size
    if facts.mask.size != (width, height) or height == width or height * width > _MOST_PIXELS_FOR_HEADER:
        return 0
    try:
        with Image.open(sample.image) as image:
            orientation = int(image.getexif().get(0x0112, 1))
    except (OSError, ValueError, TypeError, SyntaxError):
        return 0
    return orientation if orientation in (5, 6, 7, 8) else 0


def check_swapped(evidence: Evidence) -> Iterable[Problem]:
    """Images among the masks, and masks among the images."""
    swapped = [sample for sample, facts in evidence if _is_swapped(facts)]
    if len(swapped) > 1 and len(swapped) == sum(facts.mask is not None for facts in evidence.facts):
        first = swapped[0]
        yield Problem(
            f"all {len(swapped)} images look like masks and all masks like images, as "
            f"{evidence.name(first.image)} and {evidence.mask_name(first)}",
            "swap the two folders",
            others=tuple(evidence.name(sample.image) for sample in swapped),
        )
        return
    for sample in swapped:
        yield Problem(
            f"it looks like a mask, and {evidence.mask_name(sample)} like its image",
            "swap the two files",
            evidence.name(sample.image),
            others=(evidence.mask_name(sample),),
        )


def _is_swapped(facts: Facts) -> bool:
    if facts.image is None or facts.mask is None or facts.image.constant:
        return False
    return facts.image.tones <= _MOST_TONES_OF_MASK and len(facts.mask.pixels) >= _FEWEST_TONES_OF_IMAGE


def check_alignment(evidence: Evidence) -> Iterable[Problem]:
    """Masks that fit their image much better when moved."""
    offsets = [(sample, facts.offset) for sample, facts in evidence if facts.offset is not None]
    common = _common_offset([offset for _, offset in offsets])
    if common is not None:
        rows, columns, number = common
        yield Problem(
            f"{number} of {counted(len(offsets), 'mask')} fit their images best when moved "
            f"{_spelled(rows, columns)}: the masks are probably shifted against the images",
            "look at the sheet (--sheet FILE.html); if they are, export the masks with the same crop and "
            "origin as the images",
            severity="warning",
        )
    for sample, offset in offsets:
        near_common = common is not None and _distance(offset, common[0], common[1]) <= _CLOSE
        if not near_common and _stands_out(offset):
            yield Problem(
                f"it fits its image best when moved {_spelled(offset.rows, offset.columns)}: probably it is "
                "shifted",
                "look at the sheet (--sheet FILE.html); if it is, export the mask again",
                evidence.mask_name(sample),
                "warning",
            )


def _stands_out(offset: Offset) -> bool:
    return (
        _distance(offset, 0, 0) >= _FEWEST_PIXELS
        and offset.strength >= _LEAST_STRENGTH
        and offset.at_zero <= _MOST_AT_ZERO
    )


def _common_offset(offsets: list[Offset]) -> tuple[int, int, int] | None:
    """Return the displacement (rows, columns) that most masks share, and how many; None where it is none."""
    if len(offsets) < _FEWEST_MASKS:
        return None
    rows = round(float(np.median([offset.rows for offset in offsets])))
    columns = round(float(np.median([offset.columns for offset in offsets])))
    number = sum(_distance(offset, rows, columns) <= _CLOSE for offset in offsets)
    if max(abs(rows), abs(columns)) < _FEWEST_PIXELS - 1 or number <= _LEAST_SHARE * len(offsets):
        return None
    return rows, columns, number


def _distance(offset: Offset, rows: int, columns: int) -> int:
    return max(abs(offset.rows - rows), abs(offset.columns - columns))


def _spelled(rows: int, columns: int) -> str:
    vertical = f"{abs(rows)} {'down' if rows > 0 else 'up'}" if rows else ""
    horizontal = f"{abs(columns)} to the {'right' if columns > 0 else 'left'}" if columns else ""
    return " and ".join(filter(None, (vertical, horizontal))) + " (pixels)"
