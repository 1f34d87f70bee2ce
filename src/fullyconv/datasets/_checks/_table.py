"""The checks: one table, each entry a kind of fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from fullyconv.datasets._checks._evidence import Evidence
from fullyconv.datasets._checks._images import check_channels, check_content, check_dtypes
from fullyconv.datasets._checks._masks import (
    check_classes,
    check_compression,
    check_empty,
    check_ignored,
    check_meaning,
    check_values,
)
from fullyconv.datasets._checks._pairs import check_amount, check_files, check_names, check_pairs
from fullyconv.datasets._checks._places import check_alignment, check_sizes, check_swapped
from fullyconv.datasets._checks._problem import Problem
from fullyconv.datasets._checks._splits import check_leakage


@dataclass(frozen=True)
class Check:
    """A kind of fault.

    Parameters
    ----------
    title
        What people call it.
    expected
        What would be right.
    find
        Yields the problems of that kind.
    """

    title: str
    expected: str
    find: Callable[[Evidence], Iterable[Problem]]


def run_checks(evidence: Evidence) -> tuple[Problem, ...]:
    """Return every problem, in the order of the table."""
    return tuple(
        replace(problem, kind=kind) for kind, check in CHECKS.items() for problem in check.find(evidence)
    )


CHECKS: dict[str, Check] = {
    "pairs": Check("Pairs", "each image has one mask, each mask one image", check_pairs),
    "files": Check("Damaged files", "files that can be decoded to the end", check_files),
    "amount": Check("Too little", "at least two pairs", check_amount),
    "swapped": Check("Images and masks swapped", "photographs as images, labels as masks", check_swapped),
    "sizes": Check("Sizes", "masks of the size of their images", check_sizes),
    "channels": Check("Channels", "the same channels in all images", check_channels),
    "dtypes": Check("Types of pixels", "one dtype in all images", check_dtypes),
    "content": Check("Images that show nothing", "finite numbers that differ", check_content),
    "meaning": Check("What mask values mean", "one meaning for each value or colour", check_meaning),
    "compression": Check("Masks compressed with loss", "masks as PNG or TIFF", check_compression),
    "values": Check("Values outside of the classes", "only values or colours of classes", check_values),
    "ignored": Check("Ignored pixels", "few ignored pixels, and those on purpose", check_ignored),
    "empty": Check("Empty masks", "something painted in most masks", check_empty),
    "classes": Check("Absent and rare classes", "every class in several images", check_classes),
    "leakage": Check("The same image in two splits", "each scene in one split only", check_leakage),
    "alignment": Check("Shifted masks", "borders of masks on edges of images", check_alignment),
    "names": Check("Names", "names every system can tell apart", check_names),
}
