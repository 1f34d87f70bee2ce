"""A mask file for each object, as in the Data Science Bowl 2018: ``ID/images/ID.png``, ``ID/masks/*.png``."""

from __future__ import annotations

from pathlib import Path

from fullyconv.datasets._layouts._layers import Layers
from fullyconv.datasets._layouts._layout import SPLIT_NAMES, Layout, is_image, name_classes, split_of
from fullyconv.datasets._samples import Sample, counted, problem


def find_objects(root: Path) -> Layout | None:
    """``stage1_train/ID`` and ``stage1_test/ID``, or the folders ``ID`` alone."""
    folders = [
        (split_of(folder.parent.name) if folder.parent != root else None, folder)
        for folder in sorted([*root.glob("*/images"), *root.glob("*/*/images")])
        if folder.is_dir() and not any(part.startswith(".") for part in folder.relative_to(root).parts)
    ]
    cases = [(split, folder.parent, _images(folder)) for split, folder in folders]
    if not any(_is_case(case, images) for _, case, images in cases):
        return None
    samples, problems = [], []
    for split, case, images in cases:
        name = case.relative_to(root).as_posix()
        masks = _images(case / "masks")
        if len(images) != 1:
            what = f"it holds {counted(len(images), 'image')}"
            problems.append(problem(f"{name}/images", what, "keep the one that the masks belong to"))
        elif masks:
            files = tuple(path.name for path in masks)
            samples.append(
                Sample(
                    name,
                    images[0],
                    Layers(case / "masks", files, (1,) * len(files)),
                    split,
                    Layers(case / "masks", files, tuple(range(1, len(files) + 1))),
                )
            )
        elif split == "test" or not (case / "masks").is_dir():
            samples.append(Sample(name, images[0], None, split or "test"))
        else:
            problems.append(problem(f"{name}/masks", "it holds no mask", "add one, or remove the image"))
    return Layout(
        f"one mask for each object, {counted(len(samples), 'image')}",
        tuple(samples),
        tuple(problems),
        ("masks: all objects are of one class; the format names none",),
        name_classes(str(root), ("background", "object")),
    )


def _is_case(case: Path, images: list[Path]) -> bool:
    """Whether a folder is of one image; ``train/`` of many, and ``a.png`` with ``a.png``, are pairs."""
    masks = _images(case / "masks")
    return (
        len(images) == 1
        and case.name.lower() not in SPLIT_NAMES
        and bool(masks)
        and [path.stem for path in masks] != [images[0].stem]
    )


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if is_image(path) and not path.name.startswith("."))
