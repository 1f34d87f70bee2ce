"""Roboflow's export of semantic masks: ``a_mask.png`` beside ``a.jpg``, values in ``_classes.csv``."""

from __future__ import annotations

import csv
from pathlib import Path

from fullyconv.datasets._layouts._layout import SPLIT_NAMES, Layout, images_by_stem, name_classes
from fullyconv.datasets._samples import Sample, counted, problem
from fullyconv.errors import DataError

_CLASSES = "_classes.csv"
_ENDING = "_mask"


def find_roboflow(root: Path) -> Layout | None:
    """``train/``, ``valid/``, ``test/``, each with images, masks and ``_classes.csv``; or one of them."""
    folders = [folder for folder in (root, *sorted(root.iterdir())) if (folder / _CLASSES).is_file()]
    tables = {folder: _table(folder / _CLASSES) for folder in folders}
    if not folders or any(table is None for table in tables.values()):
        return None
    table = tables[folders[0]]
    assert table is not None
    for folder, other in tables.items():
        if other != table:
            raise DataError(
                f"{folder / _CLASSES} differs from {folders[0] / _CLASSES}",
                "the same classes in each split",
                "export all splits together",
            )
    samples, problems = [], []
    for folder in folders:
        files, _ = images_by_stem(folder)
        prefix = "" if folder == root else f"{folder.name}/"
        for stem, paths in sorted(files.items()):
            is_mask = stem.endswith(_ENDING) and stem.removesuffix(_ENDING) in files
            if is_mask:
                continue
            mask = files.get(f"{stem}{_ENDING}")
            if mask is None:
                where = paths[0].relative_to(root)
                fix = f"add {where.with_name(Path(stem).name + _ENDING + '.png')} or remove the image"
                problems.append(problem(where, "it has no mask", fix))
            else:
                split = None if folder == root else SPLIT_NAMES.get(folder.name.lower())
                samples.append(Sample(prefix + stem, paths[0], mask[0], split))
    return Layout(
        f"Roboflow masks with {counted(len(samples), 'pair')}",
        tuple(samples),
        tuple(problems),
        (f"masks: values as in {_CLASSES}",),
        name_classes(str(folders[0] / _CLASSES), table.values(), indices=table.keys()),
    )


def _table(path: Path) -> dict[int, str] | None:
    """Read lines ``value, name`` below ``Pixel Value, Class``; None where the file says other things."""
    rows = list(csv.reader(path.read_text("utf-8-sig", errors="replace").splitlines(), skipinitialspace=True))
    if not rows or [cell.strip().lower() for cell in rows[0]] != ["pixel value", "class"]:
        return None
    try:
        return {int(value): name.strip() for value, name in rows[1:]}
    except ValueError as error:
        raise DataError(
            f"{path} has a line that is not a number and a name", "lines such as 1, car", "export it again"
        ) from error
