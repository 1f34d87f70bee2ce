"""From a run to a page that people read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fullyconv.progress import Lines, Progress

if TYPE_CHECKING:
    from fullyconv.reports import Report


def report(
    run: Path,
    *,
    data: Path | None = None,
    out: Path | None = None,
    compare: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    classes: Path | None = None,
    pictures: int = 6,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write one HTML file about a run: scores with intervals, curves, worst images, geometry, speed.

    The run's validation images are scored anew. The file needs no network and no scripts.

    Parameters
    ----------
    run
        The folder of a run.
    data
        What it was trained on (default: the folder that the run has recorded).
    out
        The file (default: report.html in the run's folder).
    compare
        Further runs, scored on the same images, with paired differences.
    classes
        A classes.toml where the data has none (default: the one that the run has recorded).
    pictures
        How many of the worst images to show.
    seed
        Of the resamplings behind the intervals.
    overwrite
        Replace a file that exists.

    Examples
    --------
    fullyconv report runs/first
    """
    from fullyconv.reports import write_report

    return write_report(
        run,
        data,
        out=out,
        compare=compare,
        classes=classes,
        pictures=pictures,
        seed=seed,
        overwrite=overwrite,
        progress=progress or Lines(),
    )
