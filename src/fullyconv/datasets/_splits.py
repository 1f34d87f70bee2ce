"""Which sample is trained on, and which is held back: by lists of names, and by what belongs together."""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fullyconv.datasets._layouts import SPLIT_NAMES, Layout, find_lists
from fullyconv.datasets._samples import Sample, counted, problem
from fullyconv.errors import ConfigError, DataError


def split_by_lists(layout: Layout, root: Path, folder: Path) -> Layout:
    """Take the splits from lists of names, one a line, with or without suffix; the rest is left out.

    Parameters
    ----------
    layout
        Whose samples are placed.
    root
        Messages name lists below it.
    folder
        Where the lists are.

    Raises
    ------
    ConfigError
        There are no lists.
    """
    lists = find_lists(folder)
    if not lists:
        raise ConfigError(
            f"no train.txt, val.txt or test.txt in {folder}",
            "a file for each split, with a name a line",
            "write them, or leave the option out",
        )
    samples = {sample.name: sample for sample in layout.samples}
    problems, notes = list(layout.problems), list(layout.notes)
    placed: dict[str, Path] = {}
    counts = []
    for file in lists:
        shown = _below(root, file)
        lines = [line.strip() for line in _text(file).splitlines() if line.strip()]
        counts.append(f"{shown} {len(lines)}")
        for number, line in enumerate(lines, 1):
            name = line if line in samples else line.rpartition(".")[0]
            if name not in samples:
                nearest = difflib.get_close_matches(line, samples, n=1)
                fix = f"did you mean {nearest[0]}?" if nearest else "remove the line or add the files"
                problems.append(problem(shown, f"entry {number} names {line!r}, no such pair", fix))
            elif name in placed:
                other = _below(root, placed[name])
                problems.append(
                    problem(shown, f"entry {number}, {name!r}, is also in {other}", "keep one of them")
                )
            else:
                placed[name] = file
    notes += [
        f"{_below(root, file)} is not used: its name is none of train.txt, val.txt, test.txt"
        for file in sorted(folder.glob("*.txt"))
        if file not in lists
    ]
    if len(placed) < len(samples):
        left = counted(len(samples) - len(placed), "pair")
        notes.append(f"{left} in no list of {folder.name}/, left out")
    return replace(
        layout,
        description=f"{layout.description}; {', '.join(counts)}",
        samples=tuple(
            replace(samples[name], split=SPLIT_NAMES[placed[name].stem.lower()]) for name in sorted(placed)
        ),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def group_samples(samples: Sequence[Sample], groups: Path | str) -> tuple[tuple[Sample, ...], list[str]]:
    """Say which samples belong together, so that no patient or slide is in two splits.

    Parameters
    ----------
    samples
        To be grouped.
    groups
        A ``.csv`` file of two columns with a header, the sample's name and its group; or a regular expression
        whose first bracket (or whole match) is the group in the sample's name.

    Returns
    -------
    samples
        With their groups.
    problems
        Samples without a group, and groups that are in two splits already.

    Raises
    ------
    ConfigError
        The expression is none.
    DataError
        The file cannot be read.
    """
    find = _from_table(Path(groups)) if str(groups).lower().endswith(".csv") else _from_pattern(str(groups))
    grouped = tuple(replace(sample, group=find(sample.name)) for sample in samples)
    problems = [
        problem(sample.name, f"it has no group in {groups}", "add it, or correct the expression")
        for sample in grouped
        if sample.group is None
    ]
    first: dict[str, Sample] = {}
    for sample in grouped:
        if sample.group is not None and sample.split is not None:
            other = first.setdefault(sample.group, sample)
            if other.split != sample.split:
                problems.append(
                    problem(
                        sample.name,
                        f"it is in {sample.split}, {other.name} of the same group {sample.group!r} "
                        f"in {other.split}",
                        "move one of them",
                    )
                )
    return grouped, problems


def _from_table(path: Path) -> Callable[[str], str | None]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(_text(path).splitlines()) if row]
    if len(rows) < 2 or any(len(row) < 2 for row in rows):
        raise DataError(
            f"{path} has no two columns with a header",
            "a line name,group and then one for each image",
            f"write it like this:\nname,group\n{rows[0][0] if rows else 'cell_1'},patient_1",
        )
    doubled = [name for name, count in Counter(row[0] for row in rows[1:]).items() if count > 1]
    if doubled:
        raise DataError(f"{path} names {doubled[0]!r} twice", "each image once", "keep one of the lines")
    table = {row[0]: row[1] for row in rows[1:]}
    stems = {name.rpartition(".")[0]: group for name, group in table.items()}
    return lambda name: table.get(name) or stems.get(name)


def _from_pattern(pattern: str) -> Callable[[str], str | None]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"groups {pattern!r}: {error}",
            "a .csv file or a regular expression",
            r"for example groups='^(patient\d+)_'",
        ) from error

    def find(name: str) -> str | None:
        found = expression.search(name)
        return found[1 if expression.groups else 0] if found else None

    return find


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "a file that can be read", "check the name") from error


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
