"""Heatmaps as panels over their image, and as files."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from fullyconv import images
from fullyconv.errors import InputError, MachineError
from fullyconv.explanation.classmaps import Heatmaps
from fullyconv.labels import ClassTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
_PANEL = 3.0  # inches, the longer side
_LETTER = 0.095  # inches, of a title
_COLORS = "inferno"  # dark to bright in even steps, so that it reads in gray and with any colour blindness
_OPACITY = 0.65
_LEGEND = 5  # classes that have a colour of their own in the map of the best


def save_heatmaps(result: Heatmaps, folder: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write heatmaps.png, and scores.npy, maps.npy and labels.npy as the result holds them.

    Parameters
    ----------
    result
        From `fullyconv.heatmaps`.
    folder
        Made where it does not exist.
    overwrite
        Replace files that exist.

    Returns
    -------
    tuple of Path
        The four files.

    Raises
    ------
    InputError
        A file exists and ``overwrite`` is off.
    MachineError
        The disk is full, or matplotlib is not installed.
    """
    arrays = {"scores": result.scores, "maps": result.maps, "labels": result.labels}
    picture, *others = (Path(folder) / name for name in ("heatmaps.png", *(f"{key}.npy" for key in arrays)))
    existing = [str(path) for path in (picture, *others) if path.exists()]
    if existing and not overwrite:
        raise InputError(f"{existing[0]} exists", "a new file", "pass --overwrite, or another --out")
    figure = heatmap_figure(result)
    images.make_folder(picture.parent)
    with images.atomic_file(picture, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    for path, values in zip(others, arrays.values(), strict=True):
        with images.atomic_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
            np.save(file, values)
    return picture, *others


def heatmap_figure(result: Heatmaps) -> Figure:
    """Draw the image, a map for each chosen class, and the best class of each pixel.

    All maps share one scale, so that their brightness compares.

    Parameters
    ----------
    result
        From `fullyconv.heatmaps`.

    Returns
    -------
    matplotlib.figure.Figure
        To be saved with ``figure.savefig("heatmaps.png", dpi=120)``; it belongs to no window.

    Raises
    ------
    MachineError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MachineError(
            "matplotlib is not installed", "it, to draw figures", "pip install 'fullyconv[plot]'"
        ) from error
    panels = len(result.chosen) + 3  # the image, the best of all, and its legend
    columns = min(panels, _COLUMNS)
    rows = -(-panels // columns)
    height, width = result.labels.shape
    panel = np.array([width, height]) * _PANEL / max(height, width)
    figure = Figure(
        figsize=(columns * (panel[0] + 0.15) + 0.9, rows * (panel[1] + 0.6)),
        layout="constrained",
    )
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid[panels - 1 :]:
        axes.set_axis_off()
    gray = images.overlay(result.image, np.zeros((height, width), np.uint8), ClassTable.of(2)).mean(axis=2)
    _draw_image(grid[0], result)
    most = max(float(result.maps.max()), 1e-6)
    for axes, k, values in zip(grid[1:], result.chosen, result.maps, strict=False):
        title = fill(result.class_names[k], max(8, int(panel[0] / _LETTER)))
        _titled(axes, title, f"whole image {result.shares[k]:.1%}")
        axes.imshow(gray, cmap="gray", vmin=0, vmax=255)
        drawn = axes.imshow(values, cmap=_COLORS, vmin=0, vmax=most, alpha=_OPACITY)
    figure.colorbar(drawn, ax=list(grid), label="probability in the window")
    _draw_labels(grid[panels - 2], grid[panels - 1], result)
    return figure


def _titled(axes: Axes, title: str, caption: str) -> None:
    axes.set_title(title, fontsize=10, fontweight="bold", loc="left", pad=4)
    axes.set_xlabel(caption, fontsize=8.5, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_image(axes: Axes, result: Heatmaps) -> None:
    """Draw the image, and a frame as large as what the classifier sees at once."""
    from matplotlib.patches import Rectangle

    height, width = result.labels.shape
    _titled(axes, "image", "framed: one window")
    axes.imshow(images.overlay(result.image, np.zeros((height, width), np.uint8), ClassTable.of(2)))
    down, right = (
        min(window * length / seen, length)
        for window, length, seen in zip(result.window, (height, width), result.seen_size, strict=True)
    )
    for color, line in (("black", 3.0), ("white", 1.5)):
        axes.add_patch(Rectangle((-0.5, -0.5), right, down, fill=False, color=color, linewidth=line))


def _draw_labels(axes: Axes, legend: Axes, result: Heatmaps) -> None:
    """Draw the best class of each pixel; the most frequent classes have colours of their own."""
    from matplotlib.patches import Patch

    found, counts = np.unique(result.labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_LEGEND]
    shown, parts = found[order], counts[order] / result.labels.size
    names = ["other", *(f"{place} {result.class_names[k]}" for place, k in enumerate(shown, 1))]
    table = ClassTable(tuple(names))
    ranked = np.zeros(result.labels.shape, np.uint8)
    for place, k in enumerate(shown, 1):
        ranked[result.labels == k] = place
    _titled(axes, f"best of all {len(result.class_names)}", "")
    axes.imshow(images.overlay(result.image, ranked, table, opacity=0.6))
    colors = [[part / 255 for part in color] for color in table.colors[1:]]
    entries = [
        Patch(color=color, label=f"{result.class_names[k]} {part:.0%}")
        for color, k, part in zip(colors, shown, parts, strict=True)
    ]
    if len(found) > len(shown):
        label = f"{len(found) - len(shown)} others {1 - float(parts.sum()):.1%}"
        entries.append(Patch(facecolor="white", edgecolor="0.6", label=label))
    legend.legend(handles=entries, loc="upper left", fontsize=8.5, frameon=False, borderaxespad=0)
