"""Label Studio: an export of tasks in JSON (or JSON_MIN), with brush strokes and shapes for each image."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fullyconv.datasets._layouts._drawing import Shape, flat_ring, make_drawing, turned_box
from fullyconv.datasets._layouts._json import json_files, read_json, size_in
from fullyconv.datasets._layouts._layers import Layers
from fullyconv.datasets._layouts._layout import (
    ImageIndex,
    Layout,
    is_image,
    name_classes,
    split_of,
    visible_files,
)
from fullyconv.datasets._samples import Sample, counted, problem
from fullyconv.images import probe

# Uploads get eight digits of a random number before their names.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
# A layer of the export "Brush labels to PNG".
_LAYER = re.compile(r"task-(\d+)-annotation-(\d+)-by-[^-]*-[^-]*-(.+)-(\d+)\.png$")


def find_label_studio(root: Path) -> Layout | None:
    """An export in JSON beside its images; PNG layers of the same tasks stand in for strokes it lacks."""
    files = [path for path in json_files(root) if is_export(read_json(path))]
    if not files:
        return None
    layers = _layers(root)
    tasks = [(path, task, *_results(task)) for path in files for task in read_json(path)]
    used = {
        label for _, _, results, _ in tasks for each in results if _has_area(each) for label in _labels(each)
    }
    used |= {label for found in layers.values() for label, _ in found}
    names = ["background", *sorted(used - {"background"})]
    classes = name_classes(str(root), names)
    values = {name: k for k, name in enumerate(names)}
    index = ImageIndex(root)
    samples, problems = [], []
    left_out: Counter[str] = Counter()
    several = sum(count > 1 for *_, count in tasks)
    untouched = 0
    for path, task, results, count in tasks:
        where = path.relative_to(root).as_posix()
        image = _image(task, index, path.parent)
        if image is None:
            named = ", ".join(_image_names(task)) or "no image"
            what = f"task {task.get('id')}: {named} is not below {root.name}/"
            problems.append(problem(where, what, "download the images and put them beside the export"))
            continue
        if not count:
            untouched += 1
            continue
        shapes: list[Shape] = []
        for result in results:
            kind = str(result.get("type") or _value(result).get("format") or "unknown")
            label = next(iter(_labels(result)), None)
            try:
                drawn = _shape(result)
            except (KeyError, TypeError, ValueError):
                drawn = None
            if drawn is None or label is None:
                left_out[kind] += 1
            else:
                shapes.append((*drawn, values[label], len(shapes) + 1 if values[label] else 0))
        name = image.relative_to(root).with_suffix("").as_posix()
        split = next((found for part in Path(name).parts[:-1] if (found := split_of(part))), None)
        own = layers.get(task.get("id"), [])
        if own and not any(shape[0] == "brush" for shape in shapes):
            folder = own[0][1].parent
            mask = Layers(
                folder,
                tuple(Path(os.path.relpath(layer, folder)).as_posix() for _, layer in own),
                tuple(values[label] for label, _ in own),
            )
            objects = replace(mask, values=tuple(range(1, len(own) + 1)))
            samples.append(Sample(name, image, mask, split, objects))
            continue
        size = next(
            (s for each in results if (s := size_in(each, "original_height", "original_width"))), None
        )
        drawing = make_drawing(
            path,
            f"task {task.get('id')}",
            size or probe(image).size,
            shapes,
            largest_first=False,
            ignored=classes.classes.ignore_index,
        )
        samples.append(Sample(name, image, drawing, split, drawing.objects))
    notes = [
        f"{counted(number, 'result')} of the kind {kind} left out: no area or no label"
        for kind, number in sorted(left_out.items())
    ]
    if several:
        notes.append(
            f"{counted(several, 'task')} annotated more than once: the ground truth, else the last, is taken"
        )
    if untouched:
        notes.append(f"{counted(untouched, 'task')} not annotated, left out")
    return Layout(
        f"Label Studio annotations with {counted(len(samples), 'image')}",
        tuple(sorted(samples, key=lambda sample: sample.name)),
        tuple(problems),
        ("masks: later strokes cover earlier ones", *notes),
        classes,
    )


def is_export(content: Any) -> bool:
    """Whether JSON is a list of tasks: with annotations and data, or of the smaller form."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(task, dict) for task in content)
        and all(
            (isinstance(task.get("annotations"), list) and isinstance(task.get("data"), dict))
            or ("annotation_id" in task and "id" in task)
            for task in content
        )
    )


def _results(task: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Return the results of the annotation that counts, and how many annotations there are."""
    if "annotations" not in task:
        lists = [value for value in task.values() if isinstance(value, list)]
        return [each for found in lists for each in found if isinstance(each, dict)], 1
    given = [each for each in task["annotations"] if isinstance(each, dict) and not each.get("was_cancelled")]
    best = max(given, key=lambda each: (bool(each.get("ground_truth")), each.get("id") or 0), default={})
    return [each for each in best.get("result", []) if isinstance(each, dict)], len(given)


def _labels(result: Mapping[str, Any]) -> list[str]:
    """Return the labels of a result, in either form of export."""
    for key, labels in _value(result).items():
        if key.endswith("labels") and isinstance(labels, list):
            return [str(label) for label in labels]
    return []


def _has_area(result: Mapping[str, Any]) -> bool:
    value = _value(result)
    return any(value.keys() >= marks for marks in ({"rle"}, {"points"}, {"radiusX"}, {"width", "height"}))


def _value(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a result says; in the small form of an export it is the result itself."""
    value = result.get("value")
    return value if isinstance(value, dict) else result


def _shape(result: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return how to paint a result; None where it has no area. Places are in percent of the image."""
    value = _value(result)
    height, width = result["original_height"], result["original_width"]
    x_step, y_step = width / 100, height / 100
    if "rle" in value:
        return ("brush", [[height, width], value["rle"]])
    if "points" in value:
        ring = flat_ring([[x * x_step, y * y_step] for x, y in value["points"]])
        return ("polygons", [ring]) if ring else None
    if "radiusX" in value:
        radii = [value["radiusX"] * x_step, value["radiusY"] * y_step]
        return ("ellipse", [value["x"] * x_step, value["y"] * y_step, *radii, value.get("rotation", 0)])
    if "width" in value and "height" in value:
        box = turned_box(
            value["x"] * x_step,
            value["y"] * y_step,
            value["width"] * x_step,
            value["height"] * y_step,
            value.get("rotation", 0),
        )
        return ("polygons", [box])
    return None


def _image(task: Mapping[str, Any], index: ImageIndex, near: Path) -> Path | None:
    for name in _image_names(task):
        short = _UPLOADED.sub("", Path(name).name)
        found = index.find(name, near=near) or index.find(short, near=near)
        if found is not None:
            return found
    return None


def _image_names(task: Mapping[str, Any]) -> Iterable[str]:
    """Yield what a task calls its image: paths, addresses, or a local file's path after ``?d=``."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    for value in (*data.values(), task.get("file_upload")):
        if isinstance(value, str) and value:
            parts = urlsplit(value)
            name = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
            if is_image(Path(name)):
                yield name


def _layers(root: Path) -> dict[int, list[tuple[str, Path]]]:
    """Return label and file of each PNG layer, by task; of several annotations the last."""
    found: dict[int, dict[int, list[tuple[int, str, Path]]]] = {}
    for path in visible_files(root):
        match = _LAYER.search(path.name)
        if match:
            task, annotation, label, number = match.groups()
            layer = (int(number), label, path)
            found.setdefault(int(task), {}).setdefault(int(annotation), []).append(layer)
    return {
        task: [(label, path) for _, label, path in sorted(annotations[max(annotations)])]
        for task, annotations in found.items()
    }
