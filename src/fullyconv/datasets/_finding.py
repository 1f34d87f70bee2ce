"""From one folder, several, or archives to samples with splits, groups and classes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fullyconv.datasets._archives import is_archive, unpack
from fullyconv.datasets._classfile import FILE_NAME, ClassFile, read_class_file
from fullyconv.datasets._layouts import Layout, find_layout, find_lists
from fullyconv.datasets._sources import printable
from fullyconv.datasets._splits import group_samples, split_by_lists
from fullyconv.errors import ConfigError, DataError


def find_samples(
    paths: Sequence[Path], *, classes: Path | None, splits: Path | None, groups: Path | str | None
) -> tuple[Path, Layout]:
    """Understand folders without decoding an image.

    Returns
    -------
    root
        What all files are below; messages name them from there.
    layout
        The samples of all folders; ``layout.classes`` is the ``classes.toml``, else what the format says.

    Raises
    ------
    DataError
        A folder has no known layout, or two folders name their classes differently.
    ConfigError
        No folder, or one twice.
    """
    if not paths or len(set(paths)) < len(paths):
        raise ConfigError(
            f"{len(paths)} folders, {len(set(paths))} different", "one or more, each once", "name each once"
        )
    found = [_find_one(path) for path in paths]
    if classes is not None:
        chosen = read_class_file(classes)
        found = [(root, replace(layout, classes=chosen)) for root, layout in found]
    root, layout = found[0] if len(found) == 1 else _joined(found)
    if splits is not None:
        layout = split_by_lists(layout, root, splits)
    if groups is not None:
        grouped, problems = group_samples(layout.samples, groups)
        count = len({sample.group for sample in grouped})
        layout = replace(
            layout,
            samples=grouped,
            problems=(*layout.problems, *problems),
            notes=(*layout.notes, f"groups: {count}, by {groups}; none is divided among splits"),
        )
    return root, layout


def _find_one(path: Path) -> tuple[Path, Layout]:
    archive = path if is_archive(path) else None
    try:
        root, layout = find_layout(unpack(path) if archive else path, archive=archive)
    except PermissionError as error:
        place = printable(str(error.filename or path))
        raise DataError(
            f"{place}: permission denied", "folders that may be read", f"chmod -R u+rX {shlex.quote(place)}"
        ) from error
    own = next((folder / FILE_NAME for folder in (path, root) if (folder / FILE_NAME).is_file()), None)
    if own is not None:
        layout = replace(layout, classes=read_class_file(own))
    if is_archive(path):
        layout = replace(layout, notes=(*layout.notes, f"{path.name} was unpacked into {root}"))
    if find_lists(root / "splits") and all(sample.split is None for sample in layout.samples):
        layout = split_by_lists(layout, root, root / "splits")
    return root, layout


def _joined(found: Sequence[tuple[Path, Layout]]) -> tuple[Path, Layout]:
    root = Path(os.path.commonpath([folder.absolute() for folder, _ in found]))
    named: dict[Path, ClassFile] = {
        folder: layout.classes for folder, layout in found if layout.classes is not None
    }
    first = next(iter(named), root)
    for folder, classes in named.items():
        if classes != named[first]:
            raise DataError(
                f"{first} and {folder} have different classes: {', '.join(named[first].classes.names)}; "
                f"{', '.join(classes.classes.names)}",
                "the same classes in all folders",
                f"write a {FILE_NAME} that holds for all and give it with classes= (--classes)",
            )
    prefixes = [folder.absolute().relative_to(root).as_posix() for folder, _ in found]
    return root, Layout(
        "; ".join(
            f"{prefix}: {layout.description}" for prefix, (_, layout) in zip(prefixes, found, strict=True)
        ),
        tuple(
            replace(sample, name=f"{prefix}/{sample.name}")
            for prefix, (_, layout) in zip(prefixes, found, strict=True)
            for sample in layout.samples
        ),
        tuple(
            f"{prefix}/{line}"
            for prefix, (_, layout) in zip(prefixes, found, strict=True)
            for line in layout.problems
        ),
        tuple(
            f"{prefix}: {line}"
            for prefix, (_, layout) in zip(prefixes, found, strict=True)
            for line in layout.notes
        ),
        named.get(first),
    )
