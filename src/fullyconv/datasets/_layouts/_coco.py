"""COCO: one JSON file for a split, with images, categories, and an outline or run lengths for each object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fullyconv.datasets._layouts._drawing import Shape, flat_ring, make_drawing
from fullyconv.datasets._layouts._json import json_files, read_json, size_in
from fullyconv.datasets._layouts._layout import ImageIndex, Layout, name_classes, sample_names, split_of
from fullyconv.datasets._samples import Sample, counted, problem
from fullyconv.errors import DataError
from fullyconv.images import probe

_BACKGROUND = "background"


def find_coco(root: Path) -> Layout | None:
    """Files such as ``annotations/instances_train2017.json`` or ``train/_annotations.coco.json``."""
    files = [path for path in json_files(root) if is_coco(read_json(path))]
    # The same images have files of captions and key points beside them.
    files = [path for path in files if path.name.startswith("instances")] or files
    if not files:
        return None
    contents = {path: read_json(path) for path in files}
    positions, names = _classes(root, contents)
    classes = name_classes(str(root), names)
    index = ImageIndex(root)
    samples: list[Sample] = []
    problems: list[str] = []
    for path, content in contents.items():
        split = split_of(path.stem) or split_of(path.parent.name)
        drawn, wrong = _read_one(root, path, content, positions, classes.classes.ignore_index, index, split)
        samples += drawn
        problems += wrong
    named = sample_names(root, [sample.image for sample in samples if isinstance(sample.image, Path)])
    samples = [
        replace(sample, name=named[sample.image] if isinstance(sample.image, Path) else sample.name)
        for sample in samples
    ]
    doubled = len(samples) - len({sample.name for sample in samples})
    if doubled:
        problems.append(
            problem(", ".join(path.name for path in files), f"{doubled} images are in two files", "keep one")
        )
    shown = ", ".join(path.relative_to(root).as_posix() for path in files)
    return Layout(
        f"COCO annotations with {counted(len(samples), 'image')} in {shown}",
        tuple(sorted(samples, key=lambda sample: sample.name)),
        tuple(problems),
        ("masks: smaller objects cover larger ones; crowds are ignored",),
        classes,
    )


def is_coco(content: Any) -> bool:
    """Whether JSON holds images, annotations and categories."""
    return (
        isinstance(content, dict)
        and all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories"))
        and all(isinstance(entry, dict) for key in ("images", "categories") for entry in content[key])
    )


def _classes(root: Path, contents: Mapping[Path, Any]) -> tuple[dict[int, int], list[str]]:
    """Return the position of each category, and the names of the classes; the background is the first.

    A category that is only the parent of others and that nothing belongs to, as Roboflow writes, is none.
    """
    named: dict[int, str] = {}
    parents, used = set(), set()
    for path, content in contents.items():
        used |= {entry.get("category_id") for entry in content["annotations"] if isinstance(entry, dict)}
        for entry in content["categories"]:
            key, name = entry.get("id"), str(entry.get("name"))
            parents.add(entry.get("supercategory"))
            if named.setdefault(key, name) != name:
                raise DataError(
                    f"{path.relative_to(root)}: category {key} is {name!r}, elsewhere {named[key]!r}",
                    "the same categories in all files",
                    "export all splits with one list of categories",
                )
    kept = {
        key: name
        for key, name in sorted(named.items())
        if key in used or name not in parents or named.keys() == {key}
    }
    names = [_BACKGROUND, *(name for name in kept.values() if name.lower() != _BACKGROUND)]
    return {key: 0 if name.lower() == _BACKGROUND else names.index(name) for key, name in kept.items()}, names


def _read_one(
    root: Path,
    path: Path,
    content: Any,
    positions: Mapping[int, int],
    ignored: int,
    index: ImageIndex,
    split: str | None,
) -> tuple[list[Sample], list[str]]:
    """Return the samples of one file, and what is wrong with it."""
    where = path.relative_to(root).as_posix()
    shapes: dict[Any, list[Shape]] = {}
    without: list[Any] = []
    for annotation in content["annotations"]:
        try:
            shape = _shape(annotation, positions, ignored, len(shapes.get(annotation["image_id"], ())) + 1)
        except (KeyError, TypeError, ValueError):
            shape = None
        if shape is None:
            without.append(annotation.get("id") if isinstance(annotation, dict) else annotation)
        else:
            shapes.setdefault(annotation["image_id"], []).append(shape)
    problems = []
    if without:
        shown = ", ".join(map(str, without[:5])) + (", ..." if len(without) > 5 else "")
        problems.append(
            problem(
                where,
                f"{counted(len(without), 'annotation')} without an outline of 3 corners or more, "
                f"run lengths, or a known category: {shown}",
                "outline these objects, or remove the annotations (a box is no mask)",
            )
        )
    samples = []
    for entry in content["images"]:
        name, key = str(entry.get("file_name")), entry.get("id")
        image = index.find(name, near=path.parent, split=split)
        if image is None:
            what = f"image {name!r} is not below {root.name}/, or there more than once"
            problems.append(problem(where, what, "add the file, or remove it from the annotations"))
            continue
        size = size_in(entry, "height", "width") or probe(image).size
        drawing = make_drawing(
            path, f"image {name}", size, shapes.pop(key, []), largest_first=True, ignored=ignored
        )
        samples.append(Sample(name, image, drawing, split, drawing.objects))
    missing = shapes.keys() - {entry.get("id") for entry in content["images"]}
    if missing:
        shown = ", ".join(sorted(map(str, missing))[:5])
        what = f"annotations of {counted(len(missing), 'image')} that it does not list: {shown}"
        problems.append(problem(where, what, "export it again"))
    return samples, problems


def _shape(
    annotation: dict[str, Any], positions: Mapping[int, int], ignored: int, number: int
) -> Shape | None:
    """Return how to paint an annotation; None where it has no area."""
    outline = annotation["segmentation"]
    value = positions[annotation["category_id"]]
    if annotation.get("iscrowd"):
        value, number = ignored, 0
    if isinstance(outline, dict):
        return ("run lengths", {"size": outline["size"], "counts": outline["counts"]}, value, number)
    rings = [flat_ring(ring) for ring in outline]
    return ("polygons", rings, value, number) if rings and None not in rings else None
