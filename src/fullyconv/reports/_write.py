"""From a run's folder to its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullyconv.datasets import Dataset, open_dataset
from fullyconv.errors import ConfigError
from fullyconv.images import atomic_file
from fullyconv.progress import Progress, Quiet
from fullyconv.reports._findings import Findings, gather
from fullyconv.reports._page import render
from fullyconv.reports._runs import Run, read_run

NAME = "report.html"


@dataclass(frozen=True, eq=False)
class Report:
    """The file that was written, and what it says.

    Parameters
    ----------
    path
        The HTML file.
    findings
        What was measured.
    """

    path: Path
    findings: Findings

    def to_dict(self) -> dict[str, Any]:
        """Return the path and all scores, JSON-ready."""
        compared = [
            {
                "run": str(other.run.folder),
                "mean_iu": other.evaluation.scores.mean_iu,
                "gain": list(self.findings.gain(other)),
                "megapixels_per_second": other.speed.megapixels,
                "scored_images_trained_on": other.seen,
            }
            for other in self.findings.others
        ]
        return {
            "report": str(self.path),
            "megapixels_per_second": self.findings.first.speed.megapixels,
            **self.findings.first.evaluation.to_dict(),
            "compared": compared,
        }

    def __str__(self) -> str:
        return f"{self.findings.first.evaluation}\n\nreport: {self.path}"


def write_report(
    run: str | Path,
    data: str | Path | Dataset | None = None,
    *,
    out: str | Path | None = None,
    compare: Sequence[str | Path] = (),
    classes: str | Path | None = None,
    pictures: int = 6,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Score a run on its validation images and write what was found as one HTML file.

    Parameters
    ----------
    run
        The folder of a run.
    data
        What it was trained on; ``None`` takes the folder that the run has recorded.
    out
        The file; ``report.html`` in the run's folder when ``None``.
    compare
        Further runs to score on the same images.
    classes
        A ``classes.toml`` where the data has none; ``None`` takes the one that the run has recorded.
    pictures
        How many of the worst images are drawn.
    seed
        Of the resamplings behind the intervals.
    overwrite
        Replace a file that exists.
    progress
        Told what is being done.

    Raises
    ------
    ConfigError
        A folder is no run, or its data is unknown or other data.
    InputError
        The file exists.
    """
    progress = progress or Quiet()
    first, *others = (read_run(folder) for folder in (run, *compare))
    path = Path(out) if out is not None else first.folder / NAME
    with atomic_file(path, overwrite=overwrite) as temporary:
        if not isinstance(data, Dataset):
            data = open_dataset(
                _recorded(first) if data is None else data,
                classes=Path(classes) if classes else first.recipe.classes,
                progress=progress,
            )
        findings = gather(
            first,
            data,
            others=tuple(others),
            pictures=pictures,
            seed=seed,
            progress=progress,
        )
        temporary.write_text(render(findings), encoding="utf-8")
    return Report(path, findings)


def _recorded(run: Run) -> Path:
    data = run.recipe.data
    if data is None or not data.exists():
        raise ConfigError(
            f"{run.folder}, whose data is " + (f"no longer at {data}" if data else "not recorded"),
            "the folder of images and masks that it was trained on",
            "name it with --data",
        )
    return data
