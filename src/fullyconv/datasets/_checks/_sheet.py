"""A contact sheet: masks drawn over their images in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullyconv.datasets._checks._evidence import Evidence
from fullyconv.datasets._checks._facts import Facts, in_threads
from fullyconv.datasets._checks._problem import Problem
from fullyconv.datasets._checks._report import CheckReport
from fullyconv.datasets._checks._table import CHECKS
from fullyconv.datasets._samples import Sample, counted
from fullyconv.datasets._sources import load_image, load_mask, printable
from fullyconv.errors import FullyconvError
from fullyconv.images import atomic_file, overlay
from fullyconv.labels import ClassTable, Color

_SIDE = 320  # pixels of a picture's longer side
_UNKNOWN: Color = (255, 0, 170)
_TINT = 110  # of 255: how much of a class's colour covers the image
_MOST_OPEN = 6  # problems: more are folded, so that the pictures stay near
_FOLDER = Path(__file__).parent


def write_sheet(report: CheckReport, path: Path | str, *, most: int = 96, overwrite: bool = False) -> None:
    """Write the contact sheet: what was understood, the problems, and pictures, those with errors first.

    Parameters
    ----------
    report
        Of `check`.
    path
        An ``.html`` file.
    most
        Pictures at most; those without a problem are taken evenly from all.
    overwrite
        Replace a file that exists.

    Raises
    ------
    InputError
        The file exists, or its folder does not.
    """
    evidence = report.evidence
    flagged = _flags(evidence, report.problems)
    first = [pair for pair in evidence if pair[0].name in flagged]
    first = sorted(first, key=lambda pair: not _has_error(flagged[pair[0].name]))[:most]
    rest = [pair for pair in evidence if pair[0].name not in flagged]
    room = min(most - len(first), len(rest))
    chosen = [rest[k * len(rest) // room] for k in range(room)] if room > 0 else []
    cards = in_threads(lambda pair: _card(evidence, *pair, flagged.get(pair[0].name, ())), [*first, *chosen])
    text = (
        (_FOLDER / "sheet.html")
        .read_text("utf-8")
        .replace("{{title}}", escape(printable(evidence.root.name or str(evidence.root))))
        .replace("{{summary}}", "".join(_summary(report)))
        .replace("{{legend}}", "".join(_legend(report)))
        .replace("{{problems}}", "".join(_problems(report)))
        .replace("{{shown}}", f"{len(first) + len(chosen)} of {len(evidence.layout.samples)}")
        .replace("{{cards}}", "\n".join(cards))
    )
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _flags(evidence: Evidence, problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    by_file = defaultdict(list)
    for problem in problems:
        for name in dict.fromkeys((problem.where, *problem.others)):
            by_file[name].append(problem)
    flagged: dict[str, list[Problem]] = defaultdict(list)
    for sample in evidence.layout.samples:
        for name in dict.fromkeys((evidence.name(sample.image), evidence.mask_name(sample))):
            if by_file.get(name):
                flagged[sample.name] += [each for each in by_file[name] if each not in flagged[sample.name]]
    return dict(flagged)


def _has_error(problems: Sequence[Problem]) -> bool:
    return any(problem.severity == "error" for problem in problems)


def _summary(report: CheckReport) -> Iterable[str]:
    about = report.to_dict()
    rows = {
        "Layout": about["layout"],
        "Images": f"{about['samples']}"
        + (f" ({', '.join(f'{n} {name}' for name, n in report.splits.items())})" if report.splits else ""),
        "Sizes": ", ".join(f"{size} ({n})" for size, n in list(about["sizes"].items())[:3])
        + (f" and {len(about['sizes']) - 3} more" if len(about["sizes"]) > 3 else ""),
        "Pixels": f"{', '.join(about['channels'])} channels, {', '.join(about['dtypes'])}",
    }
    for name, value in rows.items():
        yield f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
    for note in about["notes"]:
        yield f"<dt>Note</dt><dd>{escape(note)}</dd>"


def _legend(report: CheckReport) -> Iterable[str]:
    for each in report.classes:
        share = f"{each.share:.1%}" if each.share >= 0.001 else f"{each.share:.1g}"
        unpainted = " (not painted)" if each.color == (0, 0, 0) else ""
        yield (
            f'<li><span class="chip" style="background:rgb{each.color}"></span>{escape(each.name)}'
            f"<small>{share} in {counted(each.images, 'image')}{unpainted}</small></li>"
        )
    if any("are ignored" in note for note in report.evidence.notes):
        yield '<li><span class="chip" style="background:#fff"></span>ignored</li>'
    if any(problem.kind in ("values", "compression") for problem in report.problems):
        yield f'<li><span class="chip" style="background:rgb{_UNKNOWN}"></span>no class</li>'


def _problems(report: CheckReport) -> Iterable[str]:
    if not report.problems:
        yield '<p class="good">No errors and no warnings.</p>'
    for severity, problems in (("error", report.errors), ("warning", report.warnings)):
        for kind, check in CHECKS.items():
            found = [problem for problem in problems if problem.kind == kind]
            if found:
                fixes = {each.fix for each in found}
                lines = "".join(
                    f"<li><code>{escape(each.where)}</code> {escape(each.given)}"
                    + (_fix(each.fix) if len(fixes) > 1 else "")
                    + "</li>"
                    for each in found
                )
                common = _fix(found[0].fix) if len(fixes) == 1 else ""
                is_open = " open" if len(report.problems) <= _MOST_OPEN else ""
                yield (
                    f'<details class="{severity}"{is_open}><summary>'
                    f"<b>{severity}</b> {escape(check.title)} ({len(found)})"
                    f"<small>expected: {escape(check.expected)}</small></summary>"
                    f"<ul>{lines}</ul>{common}</details>"
                )


def _fix(text: str) -> str:
    return f'<span class="fix">{escape(text)}</span>'


def _card(evidence: Evidence, sample: Sample, facts: Facts, problems: Sequence[Problem]) -> str:
    marks = "".join(
        f'<li class="{each.severity}"><b>{escape(CHECKS[each.kind].title)}</b> {escape(each.given)}</li>'
        for each in problems
    )
    size = f"{facts.image.size[0]}×{facts.image.size[1]}" if facts.image else ""
    flagged = " flagged" if problems else ""
    return (
        f'<figure class="card{flagged}"><div class="picture">{_pictures(evidence, sample)}</div>'
        f"<figcaption><code>{escape(printable(sample.name))}</code>"
        f"<small>{escape(' · '.join(filter(None, (sample.split, size))))}</small>"
        f"<ul>{marks}</ul></figcaption></figure>"
    )


def _pictures(evidence: Evidence, sample: Sample) -> str:
    """Return the image with the mask over it; beside it where their sizes differ."""
    table = evidence.encoding.classes if evidence.encoding else ClassTable(("background", "foreground"))
    try:
        image = load_image(sample.image)
    except FullyconvError:
        return '<p class="missing">the image cannot be read</p>'
    picture = Image.fromarray(overlay(image, np.zeros(image.shape[:2], np.uint8), table))
    size = _fitted(picture.width, picture.height)
    photograph = _encoded(picture.resize(size, Image.Resampling.BOX), "JPEG", quality=82)
    shown = _tag(photograph, printable(sample.name), "image")
    if sample.mask is None:
        return shown
    try:
        values = load_mask(sample.mask).values
    except FullyconvError:
        return shown + '<p class="missing">the mask cannot be read</p>'
    fits = values.shape[:2] == image.shape[:2]
    drawn = _encoded(_painted(evidence, values, size if fits else _fitted(*values.shape[1::-1])), "PNG")
    return shown + _tag(drawn, f"mask of {printable(sample.name)}", "mask" if fits else "beside")


def _painted(evidence: Evidence, values: NDArray[np.integer[Any]], size: tuple[int, int]) -> Image.Image:
    """Return colours H×W×4 of a mask at a picture's size: tinted areas, their borders in full colour."""
    rows = (np.arange(size[1]) * values.shape[0]) // size[1]
    columns = (np.arange(size[0]) * values.shape[1]) // size[0]
    small = values[rows][:, columns]
    if evidence.encoding is None:
        gray = small if small.ndim == 3 else np.repeat((small.astype(np.float64) % 256)[..., None], 3, 2)
        colors, visible = gray.astype(np.uint8), np.ones(size[::-1], bool)
        numbers = colors.astype(np.int64).sum(2)
    else:
        labels, known = evidence.encoding.decode(small)
        colors = evidence.encoding.classes.to_colors(labels)
        colors[~known] = _UNKNOWN
        visible = np.asarray(colors.any(2))
        numbers = np.where(known, labels.astype(np.int64), -1)
    border = np.zeros(numbers.shape, bool)
    border[:-1] |= numbers[:-1] != numbers[1:]
    border[:, :-1] |= numbers[:, :-1] != numbers[:, 1:]
    alpha = np.where(border, 255, _TINT) * visible
    return Image.fromarray(np.dstack([colors, alpha.astype(np.uint8)]))


def _fitted(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _SIDE / max(width, height))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _encoded(picture: Image.Image, form: str, **options: Any) -> str:
    buffer = BytesIO()
    picture.save(buffer, form, optimize=True, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _tag(source: str, text: str, kind: str) -> str:
    return f'<img class="{kind}" loading="lazy" alt="{escape(text, quote=True)}" src="{source}">'
