"""From a folder of images and masks to what is wrong with it, and to a corrected copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fullyconv.errors import ConfigError
from fullyconv.progress import Lines, Progress

if TYPE_CHECKING:
    from fullyconv.datasets import CheckReport, Correction


@dataclass(frozen=True)
class Checked:
    """What `check` found and wrote.

    Parameters
    ----------
    report
        Of the data.
    sheet
        The contact sheet, if one was asked for.
    correction, corrected
        What was written to the corrected copy, and the report of that, if one was asked for.
    """

    report: CheckReport
    sheet: Path | None = None
    correction: Correction | None = None
    corrected: CheckReport | None = None

    @property
    def exit_code(self) -> int:
        """2 where training on the data, or on the corrected copy if there is one, would be wrong."""
        return (self.corrected or self.report).exit_code

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        found = self.report.to_dict() | {"sheet": str(self.sheet) if self.sheet else None}
        if self.correction is None or self.corrected is None:
            return found | {"correction": None}
        return found | {"correction": self.correction.to_dict() | {"report": self.corrected.to_dict()}}

    def __str__(self) -> str:
        lines = [str(self.report)]
        lines += [f"\nsheet: {self.sheet}"] if self.sheet else []
        if self.correction is not None:
            lines += [f"\n{self.correction}", f"\nthe corrected copy:\n{self.corrected}"]
        return "\n".join(lines)


def check(
    data: Path,
    *more: Path,
    classes: Path | None = None,
    splits: Path | None = None,
    groups: str | None = None,
    fix: Annotated[Path | None, Parameter(name="--fix")] = None,
    snap: bool = False,
    sheet: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Checked:
    """Say what images and masks were understood to be, and everything that is wrong with them.

    Exits with 2 where training would be wrong; warnings do not count. The data is never changed.

    Parameters
    ----------
    data
        A folder or .zip of images and masks, in any known layout.
    more
        Further ones.
    classes
        A classes.toml with names, colours and ignored values, where the data has none.
    splits
        A folder with train.txt, val.txt and test.txt.
    groups
        What must not be divided among splits: a .csv of names and groups, or a regular expression.
    fix
        Write a corrected copy to this new folder: index masks, upright images, classes.toml, splits.
    snap
        With --fix, give pixels that have no class the nearest one (JPEG, smoothed borders).
    sheet
        Write a contact sheet, masks drawn over images, to this .html file.
    overwrite
        Replace a sheet that exists.

    Examples
    --------
    fullyconv check data/ --sheet sheet.html
    """
    from fullyconv import datasets

    if snap and fix is None:
        raise ConfigError("--snap alone", "a folder to write to", f"add --fix {data}-fixed")
    progress = progress or Lines()
    report = datasets.check([data, *more], classes=classes, splits=splits, groups=groups, progress=progress)
    if sheet is not None:
        datasets.write_sheet(report, sheet, overwrite=overwrite)
    if fix is None:
        return Checked(report, sheet)
    correction = datasets.write_corrected(report, fix, snap=snap, progress=progress)
    return Checked(report, sheet, correction, datasets.check(fix, progress=progress))
