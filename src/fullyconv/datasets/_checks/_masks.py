"""Faults of masks: codes that are no classes, and pixels that teach nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.datasets._checks._evidence import Evidence
from fullyconv.datasets._checks._facts import MaskFacts
from fullyconv.datasets._checks._problem import Problem
from fullyconv.datasets._classfile import FILE_NAME, class_file_text
from fullyconv.datasets._encodings import MISPLACED, Encoding
from fullyconv.datasets._samples import Sample, counted
from fullyconv.datasets._sources import load_mask

# More lines about one file tell nothing new.
_MOST_VALUES_NAMED = 4

_MOST_SMOOTHED = 0.25  # of a mask's pixels

_NEARLY_EMPTY = 1 / 5000  # of a mask's pixels
_MOSTLY_IGNORED = 0.5  # of all pixels
_FAR_SMALLER = 1e-4  # of all pixels: a very rare class
_FEW_IMAGES = 3
_ENOUGH_IMAGES = 10  # in fewer, every class is in few images

# What people call pixels that are not to count.
_IGNORED_NAMES = {"void", "ignore", "ignored", "unlabelled", "unlabeled", "unknown", "dontcare", "don't care"}


def check_meaning(evidence: Evidence) -> Iterable[Problem]:
    """Masks that cannot be understood, and numbers that are probably shifted by one."""
    if evidence.refused is not None:
        yield Problem(evidence.refused.given, evidence.refused.fix)
    encoding = evidence.encoding
    if encoding is not None and counts_from_one(evidence):
        classes = encoding.classes
        text = class_file_text(classes.names[1:], classes.colors[1:], range(1, len(classes)))
        yield Problem(
            f"no pixel has the value 0, the classes seem to be counted from 1 to {len(classes) - 1}",
            f"save the masks with the values 0 to {len(classes) - 2}, or write {FILE_NAME} beside the masks' "
            f"folder:\n{text}",
            severity="warning",
        )


def counts_from_one(evidence: Evidence) -> bool:
    """Whether masks that nobody explained hold 1 to K, each of them, and no 0."""
    encoding = evidence.encoding
    if encoding is None or evidence.layout.classes is not None or len(encoding.classes) < 3:
        return False
    counts = _totals(evidence)
    return bool(not counts[0] and counts[1:].all())


def check_values(evidence: Evidence) -> Iterable[Problem]:
    """Codes in masks that belong to no class; masks compressed with loss are another check's."""
    encoding = evidence.encoding
    for sample, mask in _masks(evidence):
        if encoding is None or mask.lossy or sample.mask is None:
            continue
        unknown = encoding.pixels(mask.census("")).keys() - encoding.labels.keys()
        if not unknown:
            continue
        name, values = evidence.mask_name(sample), load_mask(sample.mask).values
        if _is_smoothed(encoding, mask, unknown):
            yield _between(evidence, name, values, encoding, len(unknown))
        else:
            yield from describe_unknown(name, values, encoding)


def check_compression(evidence: Evidence) -> Iterable[Problem]:
    """Masks compressed with loss, and what snapping them to the nearest class would change."""
    encoding = evidence.encoding
    for sample, mask in _masks(evidence):
        if not mask.lossy or sample.mask is None:
            continue
        given = "it is compressed with loss (JPEG), so its values are no labels any more"
        fix = "save the original mask as PNG"
        if encoding is not None and encoding.can_snap:
            _, changed = encoding.snap(load_mask(sample.mask).values)
            given += (
                f": {np.count_nonzero(changed)} of {counted(changed.size, 'pixel')} hold no class's value"
            )
            fix += f", or give each the nearest class: {snap_command(evidence)}"
        yield Problem(given, fix, evidence.mask_name(sample))


def check_ignored(evidence: Evidence) -> Iterable[Problem]:
    """Pixels that are ignored by mistake, and classes that are meant to be ignored."""
    encoding = evidence.encoding
    if encoding is None:
        return
    classes = encoding.classes
    codes = {label: code for code, label in encoding.labels.items()}
    for index, name in enumerate(classes.names):
        if name.lower() in _IGNORED_NAMES:
            spelled = encoding.spelled(codes[index])
            yield Problem(
                f"class {name!r} ({spelled}) is learnt and scored like any other",
                f"if it means no truth, take it out of the classes of {FILE_NAME} and write there: "
                f"ignore = {encoding.written(codes[index])}",
                severity="warning",
            )
    ignored = evidence.ignored
    share = sum(ignored.values()) / max(evidence.mask_pixels, 1)
    if share > _MOSTLY_IGNORED:
        code = max(ignored, key=ignored.__getitem__)
        yield Problem(
            f"{share:.1%} of all pixels are ignored ({encoding.spelled(code)}), neither learnt nor scored",
            f"if {encoding.spelled(code)} is a class, name it in {FILE_NAME} with its index or colour, and "
            "ignore another value",
            severity="warning",
        )


def check_empty(evidence: Evidence) -> Iterable[Problem]:
    """Masks in which nothing, or next to nothing, is painted."""
    encoding = evidence.encoding
    if encoding is None:
        return
    background = encoding.classes.names[0]
    for sample, mask in _masks(evidence):
        counts = evidence.pixels[sample.name]
        total, painted = sum(counts), sum(counts[1:])
        name = evidence.mask_name(sample)
        if not total:
            if not mask.lossy and encoding.pixels(mask.census("")).keys() <= encoding.labels.keys():
                yield Problem("every pixel is ignored", "paint it, or remove image and mask", name, "warning")
        elif not painted:
            yield Problem(
                f"it is empty: every pixel is {background!r}",
                "keep it if nothing is to be seen in the image, else paint it",
                name,
                "warning",
            )
        elif painted < _NEARLY_EMPTY * total:
            yield Problem(
                f"it is nearly empty: {painted} of {counted(total, 'pixel')} are not {background!r}",
                "look whether the rest was forgotten, or is a slip of the brush",
                name,
                "warning",
            )


def check_classes(evidence: Evidence) -> Iterable[Problem]:
    """Classes that nobody painted, or too rarely to be learnt."""
    encoding = evidence.encoding
    if encoding is None:
        return
    samples = [sample for sample, _ in _masks(evidence)]
    counts = np.array([evidence.pixels[sample.name] for sample in samples], np.int64)
    totals, images = counts.sum(0), (counts > 0).sum(0)
    names = encoding.classes.names
    if np.count_nonzero(totals) == 1:
        only = names[int(totals.argmax())]
        yield Problem(
            f"every mask holds only {only!r}, so there is nothing to tell apart",
            f"check that the masks are the right files, and the values in {FILE_NAME}",
        )
        return
    training = np.array([sample.split in (None, "train") for sample in samples])
    trained = counts[training].sum(0) if training.any() else totals
    for index, name in enumerate(names):
        if not totals[index]:
            if evidence.layout.classes is not None:
                yield Problem(
                    f"no pixel of class {name!r}",
                    f"add masks that have some, or take it out of {FILE_NAME} (give the others an index)",
                    severity="warning",
                )
            elif index:
                yield Problem(
                    f"no pixel of class {name!r}",
                    f"add masks that have some, or name the values that are used in {FILE_NAME}",
                    severity="warning",
                )
        elif not trained[index]:
            yield Problem(
                f"no pixel of class {name!r} in the split train, so it cannot be learnt",
                "move an image that has some to train",
                severity="warning",
            )
        elif totals[index] < _FAR_SMALLER * totals.sum():
            yield Problem(
                f"class {name!r} is very rare: {counted(int(totals[index]), 'pixel')} "
                f"({totals[index] / totals.sum():.2g} of all) in {counted(int(images[index]), 'image')}",
                "add images with it, merge it with another class, or train with --class-weights median",
                severity="warning",
            )
        elif images[index] < _FEW_IMAGES and len(samples) >= _ENOUGH_IMAGES:
            yield Problem(
                f"class {name!r} is in only {counted(int(images[index]), 'image')} of {len(samples)}",
                "add images with it, so that training and validation both have some",
                severity="warning",
            )


def describe_unknown(name: str, values: NDArray[np.integer[Any]], encoding: Encoding) -> list[Problem]:
    """Return a problem for each code in ``values`` that has no label; empty where all have one."""
    _, known = encoding.decode(values)
    places = np.flatnonzero(~known)
    codes, first, counts = np.unique(
        encoding.codes(values).ravel()[places], return_index=True, return_counts=True
    )
    found = zip(counts.tolist(), codes.tolist(), places[first].tolist(), strict=True)
    problems = []
    for count, code, first_place in sorted(found, reverse=True):
        row, column = divmod(first_place, values.shape[1])
        place = f"first at row {row}, column {column}"
        given = f"{counted(count, 'pixel')} of {encoding.spelled(code)}, {place}, which is no class"
        problems.append(Problem(given, encoding.fix, name))
    if len(problems) > _MOST_VALUES_NAMED:
        rest = len(problems) - _MOST_VALUES_NAMED
        problems[_MOST_VALUES_NAMED:] = [Problem(f"{rest} more values are no class", encoding.fix, name)]
    return problems


def snap_command(evidence: Evidence) -> str:
    """Return the command that gives each pixel without a class the nearest one."""
    return f"{evidence.fix_command} --snap"


def _is_smoothed(encoding: Encoding, mask: MaskFacts, unknown: Set[int]) -> bool:
    """Whether codes that are no class are many but their pixels few, as at smoothed borders."""
    pixels = encoding.pixels(mask.census(""))
    share = sum(pixels[code] for code in unknown) / sum(pixels.values())
    return (
        len(unknown) > _MOST_VALUES_NAMED
        and share <= _MOST_SMOOTHED
        and encoding.can_snap
        and MISPLACED not in unknown
    )


def _between(
    evidence: Evidence, name: str, values: NDArray[np.integer[Any]], encoding: Encoding, different: int
) -> Problem:
    _, known = encoding.decode(values)
    row, column = divmod(int(np.argmin(known)), values.shape[1])
    first = int(encoding.codes(values)[row, column])
    return Problem(
        f"{np.count_nonzero(~known)} of {counted(known.size, 'pixel')} hold {different} values that are no "
        f"class, first {encoding.spelled(first)} at row {row}, column {column}: smoothed borders",
        "save the mask with nearest-neighbour resizing and without anti-aliasing, or give each the nearest "
        f"class: {snap_command(evidence)}",
        name,
    )


def _masks(evidence: Evidence) -> Sequence[tuple[Sample, MaskFacts]]:
    return [(sample, facts.mask) for sample, facts in evidence if facts.mask is not None]


def _totals(evidence: Evidence) -> NDArray[np.int64]:
    counts = np.array([evidence.pixels[sample.name] for sample, _ in _masks(evidence)], np.int64)
    return np.asarray(counts.sum(0), np.int64)
