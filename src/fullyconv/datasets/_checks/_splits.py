"""Faults of splits: what is trained on must not be scored on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from fullyconv.datasets._checks._evidence import Evidence
from fullyconv.datasets._checks._facts import ImageFacts
from fullyconv.datasets._checks._problem import Problem
from fullyconv.datasets._checks._thumbnails import find_alike
from fullyconv.datasets._samples import Sample

_SHORTEST_SIDE = 32  # smaller images are alike by chance


def check_leakage(evidence: Evidence) -> Iterable[Problem]:
    """Images that are in two splits; where there is none, images that a random one would divide."""
    images = [(sample, image) for sample, image in evidence.images if not image.constant]
    drawn = not any(sample.split for sample, _ in images)
    told: set[tuple[str, str]] = set()
    by_content = defaultdict(list)
    for sample, image in images:
        by_content[image.digest].append(sample)
    for samples in by_content.values():
        one, *others = samples
        others = [other for other in others if drawn or other.split != one.split]
        if others:
            told.update((one.name, other.name) for other in others)
            yield _problem(evidence, one, others, "identical to", "warning" if drawn else "error", drawn)
    large = [(sample, image) for sample, image in images if min(image.size) >= _SHORTEST_SIDE]
    for sample, others in _alike(large, drawn).items():
        others = [other for other in others if (sample.name, other.name) not in told]
        if others:
            yield _problem(evidence, sample, others, "nearly identical to", "warning", drawn)


def _alike(images: list[tuple[Sample, ImageFacts]], drawn: bool) -> dict[Sample, list[Sample]]:
    groups: list[object] = [(sample.group or sample.name) if drawn else sample.split for sample, _ in images]
    alike = defaultdict(list)
    for one, other, _ in find_alike([image.thumbnail for _, image in images], groups):
        alike[images[one][0]].append(images[other][0])
    return alike


def _problem(
    evidence: Evidence, one: Sample, others: list[Sample], how: str, severity: str, drawn: bool
) -> Problem:
    names = [evidence.name(other.image) for other in others]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if drawn:
        given = f"it is {how} {shown}; a random split may train on one and score on the other"
        fix = "keep one of them, or give them one group (--groups)"
    else:
        given = f"it is in {one.split}, and {how} {shown} in {others[0].split}"
        fix = "keep it in one split, or the scores tell more than is true"
    return Problem(
        given,
        fix,
        evidence.name(one.image),
        "error" if severity == "error" else "warning",
        others=tuple(names),
    )
