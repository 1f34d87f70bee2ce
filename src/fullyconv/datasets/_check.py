"""Check a folder of images and masks before anything is done with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fullyconv.datasets._checks import CheckReport, gather, run_checks
from fullyconv.datasets._finding import find_samples
from fullyconv.progress import Progress, Quiet


def check(
    data: Path | str | Sequence[Path | str],
    *,
    classes: Path | str | None = None,
    splits: Path | str | None = None,
    groups: Path | str | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Say what images and masks were understood to be, and everything that is wrong with them.

    Every file is decoded to its end; what was found is kept by content, so that nothing is decoded twice
    until it changes. Nothing is ever written to the data.

    Parameters
    ----------
    data, classes, splits, groups
        As for `open_dataset`.
    progress
        Told how many files are read.

    Raises
    ------
    DataError
        There is nothing to check: no folder, or none of a known layout.

    Examples
    --------
    >>> report = check("nuclei")  # doctest: +SKIP
    >>> report.exit_code, len(report.errors), len(report.warnings)  # doctest: +SKIP
    (0, 0, 2)
    """
    paths = [data] if isinstance(data, (str, Path)) else data
    root, layout = find_samples(
        [Path(each) for each in paths],
        classes=None if classes is None else Path(classes),
        splits=None if splits is None else Path(splits),
        groups=groups,
    )
    evidence = gather(root, layout, progress or Quiet())
    return CheckReport(evidence, run_checks(evidence))
