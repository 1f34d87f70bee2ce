"""Faults of images: what they are made of, and whether they show something."""

from __future__ import annotations

from collections.abc import Iterable

from fullyconv.datasets._checks._evidence import Evidence
from fullyconv.datasets._checks._problem import Problem
from fullyconv.datasets._samples import counted


def check_channels(evidence: Evidence) -> Iterable[Problem]:
    """Images that cannot be given the channels of the others without loss."""
    if {image.colors for _, image in evidence.images} <= {1, 3}:
        return
    for sample, image in evidence.images:
        if image.channels != evidence.channels:
            yield Problem(
                f"it has {counted(image.channels, 'channel')}, most images have {evidence.channels}",
                f"convert it to {counted(evidence.channels, 'channel')} or remove it",
                evidence.name(sample.image),
            )


def check_dtypes(evidence: Evidence) -> Iterable[Problem]:
    """Images of another dtype than most: ranges are never guessed."""
    for sample, image in evidence.images:
        if image.dtype != evidence.dtype:
            yield Problem(
                f"its pixels are {image.dtype}, those of most images {evidence.dtype}",
                f"convert it to {evidence.dtype} in the range the others use, or remove it",
                evidence.name(sample.image),
            )


def check_content(evidence: Evidence) -> Iterable[Problem]:
    """Images with pixels that are no numbers, and images that show nothing."""
    for sample, image in evidence.images:
        name = evidence.name(sample.image)
        if image.not_finite and image.first_not_finite is not None:
            row, column = image.first_not_finite
            values = counted(image.not_finite, "value")
            verb = "is" if image.not_finite == 1 else "are"
            yield Problem(
                f"{values} {verb} NaN or infinite, first at row {row}, column {column}",
                "replace them with a number, or remove the image",
                name,
            )
        elif image.constant:
            yield Problem(
                "every pixel has the same value, so it shows nothing",
                "export it again, or remove image and mask",
                name,
                "warning",
            )
