"""What is wrong with a dataset, as an object: people read the line, programs the fields."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset, or that somebody should look at.

    Parameters
    ----------
    given
        What was found, with pixel and value.
    fix
        What to do about it; a command or text to paste where there is one.
    where
        The file, as a path below the dataset's folder; empty where it is the dataset as a whole.
    severity
        ``"error"`` where training or its scores would be wrong, else ``"warning"``.
    kind
        The check that found it: a key of ``CHECKS``.
    others
        Further files that belong to it, such as the twin of a doubled image.
    """

    given: str
    fix: str
    where: str = ""
    severity: Severity = "error"
    kind: str = ""
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.given}; fix: {self.fix}"

    def to_dict(self) -> dict[str, object]:
        """Return the fields, JSON-ready."""
        return asdict(self) | {"others": list(self.others)}


def parse_problem(line: str) -> Problem:
    """Return the problem in a line as `fullyconv.datasets._samples.problem` writes it."""
    given, _, fix = line.partition("; fix: ")
    where, colon, rest = given.partition(": ")
    return Problem(rest, fix, where) if colon else Problem(given, fix)
