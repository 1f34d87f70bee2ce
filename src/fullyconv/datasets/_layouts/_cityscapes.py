"""Cityscapes: ``leftImg8bit/train/CITY/*_leftImg8bit.png``, ``gtFine/train/CITY/*_gtFine_labelIds.png``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fullyconv.datasets._layouts._layers import ObjectFile
from fullyconv.datasets._layouts._layout import SPLIT_NAMES, Layout, is_image, name_classes, visible_files
from fullyconv.datasets._samples import Sample, counted, problem
from fullyconv.labels import Color

_IMAGES = "leftImg8bit"
_TRUTHS = ("gtFine", "gtCoarse")

# The 19 classes that are trained on and scored, in the order of their train ids: label id, name, colour.
CITYSCAPES: tuple[tuple[int, str, Color], ...] = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
_IGNORED_IDS = tuple(sorted({*range(34), 255} - {number for number, _, _ in CITYSCAPES}))


def find_cityscapes(root: Path) -> Layout | None:
    """19 classes; masks of train ids where every image has one, else of label ids."""
    truth = next((name for name in _TRUTHS if (root / name).is_dir()), None)
    if truth is None or not (root / _IMAGES).is_dir():
        return None
    images = {
        path.relative_to(root / _IMAGES).as_posix().removesuffix(f"_{_IMAGES}{path.suffix}"): path
        for path in visible_files(root / _IMAGES)
        if is_image(path) and path.stem.endswith(f"_{_IMAGES}")
    }

    def beside(kind: str) -> Callable[[str], Path]:
        return lambda name: root / truth / f"{name}_{truth}_{kind}.png"

    split = {name: SPLIT_NAMES.get(name.partition("/")[0].lower()) for name in images}
    needed = [name for name in images if split[name] != "test"]
    by_train_id = bool(needed) and all(beside("labelTrainIds")(name).is_file() for name in needed)
    mask_of, objects_of = beside("labelTrainIds" if by_train_id else "labelIds"), beside("instanceIds")
    problems = [
        problem(
            images[name].relative_to(root),
            f"it has no mask {mask_of(name).relative_to(root)}",
            "unpack the truth beside the images, or remove the image",
        )
        for name in needed
        if not mask_of(name).is_file()
    ]
    samples = []
    for name in sorted(images):
        objects = ObjectFile(objects_of(name), "Cityscapes") if objects_of(name).is_file() else None
        if split[name] == "test":
            samples.append(Sample(name, images[name], None, "test"))
        elif mask_of(name).is_file():
            samples.append(Sample(name, images[name], mask_of(name), split[name], objects))
    notes = ["test images are read without truth: the masks published for them are empty"]
    kind = "train" if by_train_id else "label"
    return Layout(
        f"Cityscapes with {counted(len(samples), 'image')}, masks of {kind} ids",
        tuple(samples),
        tuple(problems),
        tuple(notes if any(sample.mask is None for sample in samples) else ()),
        name_classes(
            str(root),
            [name for _, name, _ in CITYSCAPES],
            colors=[color for _, _, color in CITYSCAPES],
            indices=range(len(CITYSCAPES)) if by_train_id else [number for number, _, _ in CITYSCAPES],
            ignored=(255,) if by_train_id else _IGNORED_IDS,
        ),
    )
