"""Faults of files: their pairs, their names, and whether they can be decoded to the end."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fullyconv.datasets._checks._evidence import Evidence
from fullyconv.datasets._checks._problem import Problem, parse_problem
from fullyconv.datasets._samples import counted


def check_pairs(evidence: Evidence) -> Iterable[Problem]:
    """What the layout could not pair; names that differ only in case or accents' spelling are named."""
    problems = [parse_problem(line) for line in evidence.layout.problems]
    twins = defaultdict(list)
    for problem in problems:
        twins[_folded(PurePosixPath(problem.where).stem)].append(problem.where)
    for problem in problems:
        others = [each for each in twins[_folded(PurePosixPath(problem.where).stem)] if each != problem.where]
        if len(others) == 1 and PurePosixPath(others[0]).parent != PurePosixPath(problem.where).parent:
            name = PurePosixPath(others[0]).stem + PurePosixPath(problem.where).suffix
            target = PurePosixPath(problem.where).with_name(name)
            fix = f"the names differ only in case or accents: mv '{problem.where}' '{target}'"
            yield replace(problem, fix=fix, others=(others[0],))
        else:
            yield problem


def check_amount(evidence: Evidence) -> Iterable[Problem]:
    """Training and validation need a sample each, with a mask."""
    samples = evidence.layout.samples
    if samples and all(sample.mask is None for sample in samples):
        yield Problem("no image has a mask", "add masks/ beside images/")
    if len(samples) < 2:
        found = f"{len(samples)} usable pair{'s' if len(samples) != 1 else ''} of image and mask"
        yield Problem(f"{found}, training and validation need one each", "add more pairs")


def check_files(evidence: Evidence) -> Iterable[Problem]:
    """Files that cannot be decoded to the end."""
    for sample, facts in evidence:
        for fault in facts.faults:
            source = sample.image if fault.of == "image" else sample.mask
            yield Problem(fault.given, fault.fix, evidence.name(source or sample.image))


def check_names(evidence: Evidence) -> Iterable[Problem]:
    """Names that other systems or tools do not take."""
    images = [sample.image for sample in evidence.layout.samples if isinstance(sample.image, Path)]
    masks = [sample.mask for sample in evidence.layout.samples if isinstance(sample.mask, Path)]
    paths = {evidence.name(path) for path in (*images, *masks)}
    twins = defaultdict(list)
    for name in sorted(paths):
        twins[_folded(name)].append(name)
    for names in twins.values():
        if len(names) > 1:
            yield Problem(
                f"{' and '.join(names[1:])} differs only in case or accents, which other systems do not tell "
                "apart",
                "rename one of the pairs",
                names[0],
                "warning",
                others=tuple(names[1:]),
            )
    reasons = {
        "spaces in the name": sorted(name for name in paths if " " in name),
        "letters outside of ASCII in the name": sorted(name for name in paths if not name.isascii()),
        "line breaks or other controls in the name": sorted(
            evidence.name(path) for path in (*images, *masks) if not path.name.isprintable()
        ),
    }
    for reason, names in reasons.items():
        if names:
            rest = f" (as in {counted(len(names) - 1, 'other file')})" if len(names) > 1 else ""
            yield Problem(
                f"{reason}{rest}; it is read rightly here, but scripts and archives may not",
                "rename image and mask alike, with letters, digits, - and _",
                names[0],
                "warning",
                others=tuple(names[1:]),
            )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
