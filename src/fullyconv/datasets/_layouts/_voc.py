"""PASCAL VOC, and CVAT's "Segmentation mask 1.1": the same, with classes in ``labelmap.txt``."""

from __future__ import annotations

import difflib
from pathlib import Path

from fullyconv.datasets._classfile import ClassFile
from fullyconv.datasets._layouts._layers import ObjectFile
from fullyconv.datasets._layouts._layout import SPLIT_NAMES, Layout, find_lists, images_by_stem, name_classes
from fullyconv.datasets._samples import Sample, counted, problem
from fullyconv.errors import DataError
from fullyconv.labels import Color

_MASKS = ("SegmentationClass", "SegmentationClassPNG")
_OBJECTS = ("SegmentationObject", "SegmentationObjectPNG")
_IMAGES = ("JPEGImages", "images", "Images")

# The challenge of 2012, in the order of its palette.
VOC_2012 = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus",
    "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
_VOID: Color = (224, 224, 192)


def voc_color(index: int) -> Color:
    """Return colour ``index`` of VOC's palette: bits of the index, three by three, from the highest down."""
    parts = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            parts[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    red, green, blue = parts
    return red, green, blue


def find_voc(root: Path) -> Layout | None:
    """``SegmentationClass/`` beside ``JPEGImages/``, with lists in ``ImageSets/Segmentation/``."""
    masks_folder = next((root / name for name in _MASKS if (root / name).is_dir()), None)
    if masks_folder is None:
        return None
    masks, _ = images_by_stem(masks_folder)
    images_folder = next((root / name for name in _IMAGES if (root / name).is_dir()), None)
    images = images_by_stem(images_folder)[0] if images_folder else {}
    problems = []
    missing = sorted(masks.keys() - images.keys())
    if missing:
        where = masks_folder.relative_to(root) / masks[missing[0]][0].name
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        fix = "export it again with its images, or put them into JPEGImages/"
        problems.append(problem(where, f"it has no image in {_IMAGES[0]}/{more}", fix))
    both = sorted(masks.keys() & images.keys())
    objects_folder = next((root / name for name in _OBJECTS if (root / name).is_dir()), None)
    objects = images_by_stem(objects_folder)[0] if objects_folder else {}
    splits, wrong, listed = _splits(root, both)
    samples = tuple(
        Sample(
            stem,
            images[stem][0],
            masks[stem][0],
            splits.get(stem),
            ObjectFile(objects[stem][0], "PASCAL VOC") if stem in objects else None,
        )
        for stem in both
        if stem in splits or not splits
    )
    notes = []
    if len(images) > len(both):
        notes.append(f"{counted(len(images) - len(both), 'image')} without a mask, left out")
    if len(samples) < len(both):
        notes.append(
            f"{counted(len(both) - len(samples), 'pair')} in no list of ImageSets/Segmentation, left out"
        )
    own = root / "labelmap.txt"
    classes, said = _labelmap(own) if own.is_file() else _named(root)
    return Layout(
        f"{'CVAT masks' if own.is_file() else 'PASCAL VOC'} with {counted(len(samples), 'pair')}{listed}",
        samples,
        (*problems, *wrong),
        (*notes, said),
        classes,
    )


def _splits(root: Path, stems: list[str]) -> tuple[dict[str, str], list[str], str]:
    """Return the split of each listed stem, problems of the lists, and what was read; others have none."""
    lists = find_lists(root / "ImageSets" / "Segmentation")
    used = []
    known = set(stems)
    splits: dict[str, str] = {}
    problems = []
    for path in lists:
        where, split = path.relative_to(root), SPLIT_NAMES[path.stem.lower()]
        names = [line.strip() for line in path.read_text("utf-8-sig", errors="replace").splitlines()]
        if split == "test" and not known.intersection(names):
            continue  # the challenge keeps the truth of its test images
        used.append(path.name)
        for name in filter(None, names):
            if name not in known:
                nearest = difflib.get_close_matches(name, stems, n=1)
                fix = f"did you mean {nearest[0]}?" if nearest else "remove the line or add the files"
                problems.append(problem(where, f"it names {name!r}, no such pair", fix))
            elif splits.setdefault(name, split) != split:
                problems.append(problem(where, f"{name!r} is also in {splits[name]}", "keep one of them"))
    shown = f", lists {', '.join(used)}" if splits else ""
    return splits, problems, shown


def _named(root: Path) -> tuple[ClassFile, str]:
    """Return the classes of ``class_names.txt``, as Labelme's converter writes it, or those of VOC 2012."""
    listed = root / "class_names.txt"
    if listed.is_file():
        lines = [line.strip() for line in listed.read_text("utf-8-sig", errors="replace").splitlines()]
        names = [line.strip("_") for line in lines if line and line != "__ignore__"]
        said = "masks: names as in class_names.txt"
    else:
        names, said = VOC_2012, "masks: names as in VOC 2012; for others, write classes.toml"
    colors = [voc_color(k) for k in range(len(names))]
    return name_classes(str(root), names, colors=colors, ignored_colors=(_VOID,)), said


def _labelmap(path: Path) -> tuple[ClassFile, str]:
    """Read lines ``name:red,green,blue:parts:actions``; a line may lack all but the name."""
    names: list[str] = []
    colors: list[Color] = []
    for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = line.partition(":")
        color = rest.partition(":")[0]
        try:
            red, green, blue = (
                (int(part) for part in color.split(",")) if color.strip() else voc_color(len(names))
            )
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: {line.strip()!r}",
                "name:red,green,blue::",
                "correct the line, for example car:128,0,0::",
            ) from error
        names.append(name.strip())
        colors.append((red, green, blue))
    return name_classes(
        str(path), names, colors=colors, ignored_colors=() if _VOID in colors else (_VOID,)
    ), ("masks: names and colours as in labelmap.txt")
