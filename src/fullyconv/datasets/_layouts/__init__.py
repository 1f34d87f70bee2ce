"""Layouts people have on disk: each a function from a folder to its samples, or to None."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from fullyconv.datasets._layouts._cityscapes import find_cityscapes
from fullyconv.datasets._layouts._coco import find_coco
from fullyconv.datasets._layouts._folders import find_folders
from fullyconv.datasets._layouts._label_studio import find_label_studio
from fullyconv.datasets._layouts._labelme import find_labelme
from fullyconv.datasets._layouts._layout import SPLIT_NAMES, Layout, find_lists, is_image, visible_files
from fullyconv.datasets._layouts._objects import find_objects
from fullyconv.datasets._layouts._parquet import find_parquet
from fullyconv.datasets._layouts._roboflow import find_roboflow
from fullyconv.datasets._layouts._stacks import expand_stacks
from fullyconv.datasets._layouts._voc import find_voc
from fullyconv.datasets._samples import Sample
from fullyconv.datasets._sources import printable
from fullyconv.errors import DataError

__all__ = ["LAYOUTS", "SPLIT_NAMES", "Layout", "Sample", "find_layout", "find_lists"]

_LINES_OF_TREE = 12
_DEEPEST_WRAPPING = 3
_MOST_LOOKED_AT = 1000


def find_layout(root: Path, *, archive: Path | None = None) -> tuple[Path, Layout]:
    """Understand a folder; the first function of ``LAYOUTS`` that recognises it answers.

    A folder that holds nothing but another one, as unpacked archives do, is looked into.

    Parameters
    ----------
    root
        The folder.
    archive
        What it was unpacked from, for messages.

    Returns
    -------
    root
        The folder that was understood: the one given, or the one in it.
    layout
        What it is.

    Raises
    ------
    DataError
        The folder is missing or has no known layout.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is {'a file' if root.exists() else 'not there'}",
            "a folder with images/ and masks/, or a .zip of one",
            f"check the path{_nearest_sibling(root)}",
        )
    inner = root
    for _ in range(_DEEPEST_WRAPPING):
        child = _only_folder(inner)
        for find in LAYOUTS.values():
            # What is found at any depth is better named from the folder within.
            layout = None if child and find in _AT_ANY_DEPTH else find(inner)
            if layout is not None:
                return inner, expand_stacks(layout, inner)
        if child is None:
            break
        inner = child
    raise _unknown(root, archive)


def _only_folder(root: Path) -> Path | None:
    """Return the folder that is all there is in another one."""
    children = [child for child in root.iterdir() if not child.name.startswith((".", "__"))]
    return children[0] if len(children) == 1 and children[0].is_dir() else None


def _unknown(root: Path, archive: Path | None) -> DataError:
    tree = _tree(root)
    return DataError(
        "\n    ".join([f"{archive or root} holds {'no layout that is known' if tree else 'nothing'}", *tree]),
        "\n    ".join(["one of these, by the files that tell them:", *(f"{k}" for k in LAYOUTS)]),
        "pack a folder of one of these" if archive else _nearest_layout(root),
    )


def _nearest_layout(root: Path) -> str:
    """Say what would make the folder the layout it is nearest to."""
    files = list(islice(visible_files(root), _MOST_LOOKED_AT))
    images = [path for path in files if is_image(path)]
    folders = {path.parent for path in images}
    make = f"mkdir {root}/images {root}/masks"
    if not images:
        return f"{make}, and move each image and its mask there under the same name"
    if len(folders) >= 2:
        one, other = sorted(folders)[:2]
        return (
            f"nearest is images and masks in folders: if {one.relative_to(root)}/ holds images and "
            f"{other.relative_to(root)}/ their masks, mv {one} {root}/images && mv {other} {root}/masks"
        )
    return (
        f"nearest is images and masks in folders: {make}, and move the {len(images)} images and "
        "their masks there under the same names; annotation files (.json) go beside the images"
    )


def _tree(root: Path) -> list[str]:
    """Draw the first lines of what is in a folder, with the number of files in each folder below it."""
    lines = []
    children = [child for child in sorted(root.iterdir()) if not child.name.startswith(".")]
    for child in children[:_LINES_OF_TREE]:
        if child.is_dir():
            files = list(islice(visible_files(child), _MOST_LOOKED_AT))
            kinds = Counter(path.suffix.lower() or "no suffix" for path in files)
            shown = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(3))
            lines.append(f"{printable(child.name)}/ ({shown or 'empty'})")
        else:
            lines.append(printable(child.name))
    if len(children) > _LINES_OF_TREE:
        lines.append(f"... {len(children) - _LINES_OF_TREE} more")
    return lines


def _nearest_sibling(root: Path) -> str:
    if root.exists() or not root.parent.is_dir():
        return ""
    names = [child.name for child in root.parent.iterdir() if child.is_dir()]
    nearest = difflib.get_close_matches(root.name, names, n=1)
    return f"; did you mean {root.parent / nearest[0]}?" if nearest else ""


# In this order: the layouts that say most come first. The keys are what messages call them.
LAYOUTS: dict[str, Callable[[Path], Layout | None]] = {
    "COCO": find_coco,
    "Labelme": find_labelme,
    "Label Studio": find_label_studio,
    "Hugging Face parquet": find_parquet,
    "PASCAL VOC or CVAT masks": find_voc,
    "Cityscapes": find_cityscapes,
    "Roboflow masks": find_roboflow,
    "one mask for each object": find_objects,
    "images and masks in folders": find_folders,
}

_AT_ANY_DEPTH = (find_coco, find_labelme, find_label_studio, find_parquet)
