"""Labels as the objects of a COCO file: one annotation per connected region, as run lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fullyconv.images import atomic_file
from fullyconv.labels import ClassTable, Labels
from fullyconv.outlines import encode_rles

Size = tuple[int, int]


def to_coco(labels: Labels, classes: ClassTable, file_name: str) -> dict[str, Any]:
    """Return a COCO dataset of one image (cocodataset.org, format of object detection).

    Parameters
    ----------
    labels
        H×W; class 0 is the background and has no objects, and neither has the ignore index.
    classes
        The categories; their numbers are those of the classes.
    file_name
        Of the image.

    Returns
    -------
    dict
        Of ``images``, ``categories`` and ``annotations``: regions of a class connected by sides, in order of
        class and first row, with compressed run lengths, box (x, y, width, height) and area in pixels.
    """
    from scipy import ndimage

    annotations: list[dict[str, Any]] = []
    for category in range(1, len(classes)):
        regions, _ = ndimage.label(labels == category)
        boxes = ndimage.find_objects(regions)
        areas = np.bincount(regions.ravel())
        masks = encode_rles(regions)
        for number, (rows, columns) in enumerate(boxes, 1):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1,
                    "category_id": category,
                    "segmentation": masks[number],
                    "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                    "area": int(areas[number]),
                    "iscrowd": 0,
                }
            )
    height, width = labels.shape
    return {
        "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes.names) if k],
        "annotations": annotations,
    }


def write_coco(path: Path, dataset: dict[str, Any], *, overwrite: bool = False) -> None:
    """Write a COCO dataset; the file appears whole or not at all."""
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(dataset, ensure_ascii=False), "utf-8")
