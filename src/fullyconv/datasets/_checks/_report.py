"""What `check` answers: what was understood, and every problem at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fullyconv.datasets._checks._evidence import Evidence
from fullyconv.datasets._checks._problem import Problem, Severity
from fullyconv.datasets._checks._table import CHECKS
from fullyconv.datasets._samples import counted
from fullyconv.labels import Color

_MOST_LINES = 8  # of a kind; the rest is counted
_MOST_SIZES = 3


@dataclass(frozen=True)
class ClassShare:
    """How much there is of a class.

    Parameters
    ----------
    name, color
        As in the class table.
    pixels
        Number of pixels, ignored ones not counted.
    share
        Of all counted pixels, 0 to 1.
    images
        Number of images with at least one.
    """

    name: str
    color: Color
    pixels: int
    share: float
    images: int


@dataclass(frozen=True)
class CheckReport:
    """What was understood of a dataset, and what is wrong with it.

    Parameters
    ----------
    evidence
        What the checks saw.
    problems
        Errors and warnings, by kind.
    """

    evidence: Evidence
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What makes training or its scores wrong."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What somebody should look at."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    @property
    def exit_code(self) -> int:
        """2 where training would be wrong, else 0."""
        return 2 if self.errors else 0

    @property
    def classes(self) -> tuple[ClassShare, ...]:
        """How much there is of each class; empty where the masks are not understood."""
        evidence = self.evidence
        if evidence.encoding is None:
            return ()
        table = evidence.encoding.classes
        counts = np.array(list(evidence.pixels.values()), np.int64).reshape(-1, len(table))
        totals, images = counts.sum(0).tolist(), (counts > 0).sum(0).tolist()
        whole = max(sum(totals), 1)
        return tuple(
            ClassShare(name, color, pixels, pixels / whole, number)
            for name, color, pixels, number in zip(table.names, table.colors, totals, images, strict=True)
        )

    @property
    def splits(self) -> dict[str, int]:
        """Number of samples of each split; empty where the dataset says none."""
        found = Counter(sample.split for sample in self.evidence.layout.samples if sample.split)
        return {name: found[name] for name in ("train", "val", "test") if found[name]}

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        evidence = self.evidence
        return {
            "root": str(evidence.root),
            "layout": evidence.layout.description,
            "notes": list(evidence.notes),
            "samples": len(evidence.layout.samples),
            "splits": self.splits,
            "sizes": {f"{h}×{w}": number for (h, w), number in self._sizes().most_common()},
            "channels": dict(Counter(str(image.channels) for _, image in evidence.images)),
            "dtypes": dict(Counter(image.dtype for _, image in evidence.images)),
            "classes": [
                {
                    "name": c.name,
                    "color": list(c.color),
                    "pixels": c.pixels,
                    "share": c.share,
                    "images": c.images,
                }
                for c in self.classes
            ],
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "problems": [
                problem.to_dict() | {"expected": CHECKS[problem.kind].expected} for problem in self.problems
            ],
        }

    def __str__(self) -> str:
        return "\n".join([*self._understood(), *self._judged()])

    def _sizes(self) -> Counter[tuple[int, int]]:
        return Counter(image.size for _, image in self.evidence.images)

    def _understood(self) -> Iterable[str]:
        evidence = self.evidence
        yield f"{evidence.root}: {evidence.layout.description}"
        splits = ", ".join(f"{number} {name}" for name, number in self.splits.items())
        sizes = self._sizes()
        yield f"  images   {len(evidence.layout.samples)}{': ' + splits if splits else ', no split'}"
        if sizes:
            common = ", ".join(f"{h}×{w} ({number})" for (h, w), number in sizes.most_common(_MOST_SIZES))
            rest = len(sizes) - _MOST_SIZES
            yield f"  sizes    {common}{f', {rest} more sizes' if rest > 0 else ''}"
            types = Counter(
                f"{counted(image.channels, 'channel')} {image.dtype}" for _, image in evidence.images
            )
            yield "  pixels   " + ", ".join(
                kind if len(types) == 1 else f"{kind} ({number})" for kind, number in types.most_common()
            )
        if self.classes:
            width = max(len(each.name) for each in self.classes)
            for line, each in enumerate(self.classes):
                head = "  classes  " if not line else " " * 11
                yield f"{head}{each.name:{width}}  {each.share:7.2%}  in {counted(each.images, 'image')}"
        for note in evidence.notes:
            yield f"  note     {note}"

    def _judged(self) -> Iterable[str]:
        severities: tuple[tuple[Severity, Sequence[Problem]], ...] = (
            ("error", self.errors),
            ("warning", self.warnings),
        )
        for severity, problems in severities:
            yield ""
            if not problems:
                yield f"no {severity}s"
                continue
            yield f"{counted(len(problems), severity)}"
            for kind, check in CHECKS.items():
                found = [problem for problem in problems if problem.kind == kind]
                if found:
                    yield f"  {check.title} ({len(found)}); expected: {check.expected}"
                    yield from _lines(found)


def summarize(root: Path, problems: Sequence[Problem]) -> Iterable[str]:
    """Yield a line for each kind, for those who did not ask for the whole report."""
    for kind, check in CHECKS.items():
        found = [problem for problem in problems if problem.kind == kind]
        if found:
            rest = f" (and {len(found) - 1} more: fullyconv check {root})" if len(found) > 1 else ""
            yield f"{check.title.lower()}: {found[0]}{rest}"


def _lines(problems: Sequence[Problem]) -> Iterable[str]:
    """Yield the problems, with a fix that many share only once."""
    shown = problems[:_MOST_LINES]
    fixes = {problem.fix for problem in problems}
    for problem in shown:
        yield f"    {problem.where + ': ' if problem.where else ''}{problem.given}"
        if len(fixes) > 1:
            yield "      fix: " + problem.fix.replace("\n", "\n        ")
    if len(problems) > _MOST_LINES:
        yield f"    ... and {len(problems) - _MOST_LINES} more (--json lists all)"
    if len(fixes) == 1:
        yield "    fix: " + problems[0].fix.replace("\n", "\n      ")
