"""A corrected copy of a dataset: what can be put right without guessing, in a folder of its own."""

from __future__ import annotations

import re
import secrets
import shutil
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullyconv.datasets._checks._evidence import Evidence
from fullyconv.datasets._checks._facts import Facts, in_threads
from fullyconv.datasets._checks._masks import counts_from_one
from fullyconv.datasets._checks._places import stored_orientation
from fullyconv.datasets._checks._problem import Problem
from fullyconv.datasets._checks._report import CheckReport
from fullyconv.datasets._classfile import FILE_NAME, class_file_text
from fullyconv.datasets._samples import Sample, counted
from fullyconv.datasets._sources import ImageSource, load_image, load_mask
from fullyconv.errors import ConfigError, DataError
from fullyconv.images import make_folder, write_image, write_labels
from fullyconv.labels import ClassTable, Labels
from fullyconv.progress import Progress, Quiet

# What no copy can put right: such a sample is left out.
_LEFT_OUT = ("files", "swapped", "channels", "dtypes", "content", "leakage")

# How labels that were painted on the stored pixels come upright, by EXIF orientation.
_TURNS: Mapping[int, Callable[[Labels], Labels]] = {
    5: lambda labels: labels.T,
    6: lambda labels: np.rot90(labels, -1),
    7: lambda labels: np.rot90(labels, 2).T,
    8: lambda labels: np.rot90(labels),
}


@dataclass(frozen=True)
class Correction:
    """What `write_corrected` did.

    Parameters
    ----------
    out
        The folder written.
    samples
        Number of pairs in it.
    changes, left_out
        One line for each sample that was changed, or could not be.
    """

    out: Path
    samples: int
    changes: tuple[str, ...]
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return {
            "out": str(self.out),
            "samples": self.samples,
            "changes": list(self.changes),
            "left_out": list(self.left_out),
        }

    def __str__(self) -> str:
        lines = [f"{self.out}: {counted(self.samples, 'pair')} written"]
        for title, found in (("changed", self.changes), ("left out", self.left_out)):
            lines += [f"  {title} ({len(found)})"] * bool(found)
            lines += [f"    {line}" for line in found[:8]]
            lines += [f"    ... and {len(found) - 8} more"] * (len(found) > 8)
        return "\n".join(lines)


def write_corrected(
    report: CheckReport,
    out: Path | str,
    *,
    snap: bool = False,
    progress: Progress | None = None,
) -> Correction:
    """Write images/, masks/, classes.toml and splits/ anew, with what can be put right put right.

    Masks become index PNGs; masks painted on the stored pixels of turned photographs are turned; images come
    upright; classes are counted from 0; names become plain ASCII. What cannot be put right is left out and
    named. The folder appears whole or not at all.

    Parameters
    ----------
    report
        Of `check`.
    out
        A new or empty folder, not within the data.
    snap
        Give each pixel without a class that of the nearest value or colour.
    progress
        Told how many samples are written.

    Raises
    ------
    ConfigError
        ``out`` holds something, or is within the data.
    DataError
        The masks are not understood, or no two samples are left.
    """
    evidence = report.evidence
    root, encoding, progress, out = evidence.root, evidence.encoding, progress or Quiet(), Path(out)
    _refuse_place(out, root)
    if encoding is None:
        refused = evidence.refused
        raise DataError(
            f"{root}: {refused.given if refused else 'no mask can be read'}",
            "masks whose values are understood",
            refused.fix if refused else "add masks",
        )
    if snap and not encoding.can_snap:
        raise ConfigError(
            "--snap with classes whose values are nearly equal",
            "values or colours at least 32 apart, so that a changed one still tells its class",
            "save the masks anew without smoothing and compression",
        )
    reasons = _reasons(evidence, report.errors)
    shift = int(counts_from_one(evidence))
    table = encoding.classes
    if shift:
        table = ClassTable(table.names[1:], table.colors[1:], ignore_index=table.ignore_index)
    names = _plain_names([sample.name for sample in evidence.layout.samples])
    partial = make_folder(out.with_name(f".{out.name}.{secrets.token_hex(8)}.part"))
    try:
        for folder in ("images", "masks"):
            (partial / folder).mkdir()
        writer = _Writer(evidence, partial, table, shift, snap, names, reasons)
        changes, left_out = [], []
        splits: dict[str, list[str]] = defaultdict(list)
        pairs = list(evidence)
        for done, (sample, (change, reason)) in enumerate(
            zip(evidence.layout.samples, in_threads(writer.write, pairs), strict=True), 1
        ):
            if reason:
                left_out.append(f"{evidence.name(sample.image)}: {reason}")
            else:
                changes += [f"{evidence.name(sample.image)}: {change}"] if change else []
                splits[sample.split or ""].append(names[sample.name])
            progress.advance("writing images and masks", done, len(pairs))
        written = sum(map(len, splits.values()))
        if written < 2:
            raise DataError(
                f"{counted(written, 'pair')} of {root} can be put right",
                "two or more",
                "correct the files that are listed",
                tuple(left_out),
            )
        _write_texts(partial, table, splits)
        if out.is_dir():
            out.rmdir()
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Correction(out, written, tuple(changes), tuple(left_out))


@dataclass(frozen=True)
class _Writer:
    """Writes one sample; returns what was changed, or why it was left out."""

    evidence: Evidence
    folder: Path
    table: ClassTable
    shift: int
    snap: bool
    names: Mapping[str, str]
    reasons: Mapping[str, str]

    def write(self, pair: tuple[Sample, Facts]) -> tuple[str, str]:
        sample, facts = pair
        if sample.mask is None:
            return "", "it has no mask"
        if sample.name in self.reasons:
            return "", self.reasons[sample.name]
        labels, changes, reason = self._labels(sample, facts)
        if reason:
            return "", reason
        name = self.names[sample.name]
        write_labels(self.folder / "masks" / f"{name}.png", labels, self.table)
        changes += _write_upright(sample.image, self.folder / "images", name)
        if sample.instances is not None:
            (self.folder / "instances").mkdir(exist_ok=True)
            numbers = load_mask(sample.instances).values
            orientation = stored_orientation(sample, facts)
            turned = _TURNS[orientation](numbers) if orientation else numbers
            fits = int(turned.max()) <= np.iinfo(np.uint16).max
            file = self.folder / "instances" / f"{name}{'.png' if fits else '.tif'}"
            write_image(file, turned.astype(np.uint16 if fits else np.int64))
        if name != sample.name:
            changes.append(f"named {name}")
        return ", ".join(changes), ""

    def _labels(self, sample: Sample, facts: Facts) -> tuple[Labels, list[str], str]:
        encoding = self.evidence.encoding
        assert encoding is not None  # refused before
        assert sample.mask is not None  # left out before
        mask = load_mask(sample.mask)
        labels, known = encoding.decode(mask.values)
        changes = []
        if self.snap and not known.all():
            labels, changed = encoding.snap(mask.values)
            changes.append(f"{counted(int(np.count_nonzero(changed)), 'pixel')} snapped to the nearest class")
        elif mask.lossy or not known.all():
            count = int(np.count_nonzero(~known))
            advice = " (--snap gives each the nearest class)" if encoding.can_snap else ""
            return labels, [], f"{counted(count, 'pixel')} of its mask have no class{advice}"
        orientation = stored_orientation(sample, facts)
        if orientation:
            labels = np.ascontiguousarray(_TURNS[orientation](labels))
            changes.append(f"mask turned by EXIF orientation {orientation}")
        elif facts.image is not None and labels.shape != facts.image.size:
            return labels, [], "its mask has another size"
        if self.shift:
            ignored = labels == encoding.classes.ignore_index
            labels = np.where(ignored, labels, labels - self.shift).astype(labels.dtype)
            changes.append("classes counted from 0")
        return labels, changes, ""


def _refuse_place(out: Path, root: Path) -> None:
    if out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"{out}, within {root}", "a folder outside of the data", f"choose another, such as {root}-fixed"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}, which exists", "a new or an empty folder", "choose another --fix")


def _reasons(evidence: Evidence, errors: tuple[Problem, ...]) -> dict[str, str]:
    """Return why a sample is left out, by name: what is wrong with one of its files."""
    wrong = {problem.where: problem for problem in errors if problem.kind in _LEFT_OUT and problem.where}
    twins = {name for problem in wrong.values() if problem.kind == "leakage" for name in problem.others}
    reasons = {}
    for sample in evidence.layout.samples:
        image = evidence.name(sample.image)
        for name in (image, evidence.mask_name(sample)):
            if name in wrong and wrong[name].kind != "leakage":
                reasons[sample.name] = wrong[name].given
        # Of twins in two splits, the one that is trained on goes.
        if (image in wrong or image in twins) and sample.split == "train":
            reasons.setdefault(sample.name, "it is in another split as well")
    return reasons


def _plain_names(names: list[str]) -> dict[str, str]:
    """Return a file name for each sample: ASCII, no folders, none equal to another whatever the case."""
    taken: set[str] = set()
    plain = {}
    for name in names:
        ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", ascii_name).strip("._") or "image"
        candidate, number = stem, 2
        while candidate.casefold() in taken:
            candidate, number = f"{stem}-{number}", number + 1
        taken.add(candidate.casefold())
        plain[name] = candidate
    return plain


def _write_upright(source: ImageSource, folder: Path, name: str) -> list[str]:
    """Copy a file that is upright as it is stored; write every other image as pixels."""
    if isinstance(source, Path) and not _is_turned(source):
        shutil.copyfile(source, folder / f"{name}{source.suffix.lower()}")
        return []
    image = load_image(source)
    suffix = ".png" if image.dtype in (np.uint8, np.uint16) and image.shape[2] <= 4 else ".tif"
    write_image(folder / f"{name}{suffix}", image)
    return ["image written upright" if isinstance(source, Path) else "image written as a file"]


def _is_turned(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.getexif().get(0x0112, 1) not in (0, 1)
    except (OSError, ValueError, SyntaxError):
        return False


def _write_texts(folder: Path, table: ClassTable, splits: Mapping[str, list[str]]) -> None:
    text = class_file_text(table.names, table.colors, range(len(table)))
    (folder / FILE_NAME).write_text(f"ignore = {table.ignore_index}\n\n{text}", encoding="utf-8")
    if set(splits) - {""}:
        (folder / "splits").mkdir()
        for split, names in splits.items():
            if split:
                (folder / "splits" / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
