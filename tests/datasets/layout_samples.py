"""Small datasets in the formats of other tools, written as these tools write them.

Each function writes into a folder: two or more images of 12×16 with a square of one class and a second one
in it. ``TRUTH`` is what the mask of image "a" must become.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 12, 16

# Rows 2 to 7, columns 3 to 10 of class 1; within it rows 4 to 5, columns 5 to 6 of class 2.
TRUTH = np.zeros((HEIGHT, WIDTH), np.uint8)
TRUTH[2:8, 3:11] = 1
TRUTH[4:6, 5:7] = 2
OUTER = [[3, 2], [11, 2], [11, 8], [3, 8]]  # (x, y), pixel edges
# Smaller than the outlined object, and partly in it.
CROWD = np.zeros(TRUTH.shape, bool)
CROWD[9:12, :4] = CROWD[2:4, :5] = True
INNER = [[5, 4], [7, 4], [7, 6], [5, 6]]


_seeds = count()


def picture(channels: int = 3) -> np.ndarray:
    """Return noise, each time another."""
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return np.random.default_rng(next(_seeds)).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, palette: list[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette(palette)
    image.save(path)
    return path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def flat(ring: list[list[float]]) -> list[float]:
    return [number for point in ring for number in point]


def folders(root: Path) -> None:
    for stem in "ab":
        save(root / f"images/{stem}.png", picture())
        save(root / f"masks/{stem}.png", TRUTH)


def coco(root: Path) -> None:
    """As the files of cocodataset.org: polygons, crowds with run lengths, ids with gaps."""
    for split, year in (("train", 2017), ("val", 2017)):
        images, annotations = [], []
        for number, stem in enumerate("ab"):
            name = f"{split}_{stem}.jpg"
            save(root / f"{split}{year}/{name}", picture())
            images.append({"id": number + 40, "file_name": name, "height": HEIGHT, "width": WIDTH})
            # The small one is listed first, and must lie above all the same.
            for category, ring in ((90, INNER), (7, OUTER)):
                annotations.append(
                    {"id": len(annotations), "image_id": number + 40, "category_id": category, "iscrowd": 0,
                     "segmentation": [flat(ring)], "area": 1.0, "bbox": [0, 0, 1, 1]}
                )  # fmt: skip
        runs = [(inside, len(list(pixels))) for inside, pixels in groupby(CROWD.T.ravel())]
        counts = [0] * int(runs[0][0]) + [length for _, length in runs]
        annotations.append(
            {"id": 99, "image_id": 41, "category_id": 7, "iscrowd": 1, "area": 5.0, "bbox": [0, 0, 1, 1],
             "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}
        )  # fmt: skip
        content = {
            "info": {}, "licenses": [], "images": images, "annotations": annotations,
            "categories": [{"id": 90, "name": "wheel", "supercategory": "part"},
                           {"id": 7, "name": "car", "supercategory": "thing"}],
        }  # fmt: skip
        write(root / f"annotations/instances_{split}{year}.json", content)
        write(root / f"annotations/captions_{split}{year}.json", {"images": images, "annotations": []})


def labelme(root: Path) -> None:
    """As Labelme 5: one file with a path to its image, one with the image inside."""
    for stem in "ab":
        shapes = [
            {"label": "car", "points": OUTER, "group_id": None, "shape_type": "polygon", "flags": {}},
            {"label": "wheel", "points": [INNER[0], INNER[2]], "group_id": None, "shape_type": "rectangle",
             "flags": {}, "mask": None},
            {"label": "car", "points": [[1, 1], [2, 2]], "shape_type": "line", "flags": {}},
        ]  # fmt: skip
        inside = stem == "b"
        content = {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\pictures\\{stem}.png",
            "imageData": base64.b64encode(encoded(picture())).decode() if inside else None,
            "imageHeight": HEIGHT, "imageWidth": WIDTH,
        }  # fmt: skip
        write(root / f"drawn/{stem}.json", content)
        if not inside:
            save(root / f"pictures/{stem}.png", picture())


def pack_brush(pixels: np.ndarray, lengths: tuple[int, int, int, int] = (3, 4, 8, 16)) -> list[int]:
    """Pack bytes as Label Studio does (rle-pack): repeats of two or more as one run, others word by word."""
    bits: list[str] = [f"{len(pixels):032b}", f"{7:05b}", *(f"{length - 1:04b}" for length in lengths)]

    def head(repeated: bool, count: int) -> str:
        choice = next(k for k, length in enumerate(lengths) if count <= 2**length)
        return f"{int(repeated)}{choice:02b}{count - 1:0{lengths[choice]}b}"

    most = 2 ** max(lengths)
    place = 0
    while place < len(pixels):
        end = place + 1
        while end < len(pixels) and pixels[end] == pixels[place] and end - place < most:
            end += 1
        if end - place > 1:
            bits += [head(True, end - place), f"{pixels[place]:08b}"]
        else:
            while (
                end < len(pixels)
                and end - place < most
                and (end + 1 == len(pixels) or pixels[end] != pixels[end + 1])
            ):
                end += 1
            bits += [head(False, end - place), *(f"{pixel:08b}" for pixel in pixels[place:end])]
        place = end
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]


def brush(covered: np.ndarray) -> list[int]:
    """Pack a stroke: RGBA with the same in all channels of colour, alpha 255 where it covers."""
    rgba = np.zeros((*covered.shape, 4), np.uint8)
    rgba[covered] = (12, 200, 7, 255)
    return pack_brush(rgba.ravel())


def label_studio(root: Path) -> None:
    """An export in JSON, with a brush and polygons, of uploaded images."""
    tasks = []
    for number, stem in enumerate("ab"):
        save(root / f"images/{stem}.png", picture())
        value = {"format": "rle", "rle": brush(TRUTH > 0), "brushlabels": ["car"]}
        points = [[x * 100 / WIDTH, y * 100 / HEIGHT] for x, y in INNER]
        common = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
        result = [
            {**common, "id": "x", "from_name": "tag", "type": "brushlabels", "value": value},
            {**common, "id": "y", "from_name": "poly", "type": "polygonlabels",
             "value": {"points": points, "closed": True, "polygonlabels": ["wheel"]}},
        ]  # fmt: skip
        tasks.append(
            {"id": number + 5, "data": {"image": f"/data/upload/3/0a1b2c3d-{stem}.png"},
             "file_upload": f"0a1b2c3d-{stem}.png", "predictions": [], "project": 3,
             "annotations": [{"id": 1, "result": [], "was_cancelled": False},
                             {"id": 2, "result": result, "was_cancelled": False, "ground_truth": False},
                             {"id": 3, "result": [], "was_cancelled": True}]}
        )  # fmt: skip
    write(root / "project-3-at-2026-01-01.json", tasks)


def label_studio_layers(root: Path) -> None:
    """The small form of the export, with strokes as PNG files beside it."""
    tasks = []
    for number, stem in enumerate("ab"):
        save(root / f"images/{stem}.png", picture())
        tasks.append(
            {"id": number + 5, "annotation_id": 8, "annotator": 1, "image": f"/x/0a1b2c3d-{stem}.png"}
        )
        for k, label in enumerate(("car", "wheel")):
            layer = np.where(k + 1 == TRUTH, 255, 0).astype(np.uint8)
            save(root / f"png/task-{number + 5}-annotation-8-by-ann@x.org-tag-{label}-0.png", layer)
    write(root / "export-min.json", tasks)


def voc_palette() -> list[int]:
    colors = []
    for index in range(256):
        color, rest = [0, 0, 0], index
        for bit in range(7, -1, -1):
            for channel in range(3):
                color[channel] |= (rest >> channel & 1) << bit
            rest >>= 3
        colors += color
    return colors


def voc(root: Path) -> None:
    """As VOC 2012 within its tar: palette masks with void borders, images without masks, lists."""
    base = root / "VOCdevkit/VOC2012"
    for stem in ("2007_a", "2007_b", "2007_c"):
        save(base / f"JPEGImages/{stem}.jpg", picture())
        if stem != "2007_c":
            labels = TRUTH * 7  # bicycles are 2, cars 7, sheep 14... here 7 and 14
            labels[2, 3:11] = 255
            save(base / f"SegmentationClass/{stem}.png", labels, voc_palette())
            save(base / f"SegmentationObject/{stem}.png", np.where(labels == 255, 255, TRUTH), voc_palette())
    write(base / "ImageSets/Segmentation/train.txt", "2007_a\n")
    write(base / "ImageSets/Segmentation/val.txt", "2007_b\n")
    write(base / "ImageSets/Segmentation/trainval.txt", "2007_a\n2007_b\n")
    write(base / "ImageSets/Segmentation/test.txt", "2008_x\n")


def cvat(root: Path) -> None:
    """CVAT's "Segmentation mask 1.1", with images: RGB masks, colours of its own."""
    colors = np.array([[0, 0, 0], [10, 10, 128], [250, 50, 83]], np.uint8)
    for stem in "ab":
        save(root / f"JPEGImages/{stem}.jpg", picture())
        save(root / f"SegmentationClass/{stem}.png", colors[TRUTH])
        save(root / f"SegmentationObject/{stem}.png", np.array(voc_palette(), np.uint8).reshape(-1, 3)[TRUTH])
    write(
        root / "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:10,10,128::\nwheel:250,50,83::\n",
    )
    write(root / "ImageSets/Segmentation/default.txt", "a\nb\n")


def cityscapes(root: Path) -> None:
    ids = np.array([3, 26, 24], np.uint8)  # out of roi, car, person
    for split, city in (("train", "aachen"), ("val", "ulm"), ("test", "bonn")):
        for number in range(2):
            stem = f"{split}/{city}/{city}_{number:06}_000019"
            save(root / f"leftImg8bit/{stem}_leftImg8bit.png", picture())
            save(root / f"gtFine/{stem}_gtFine_labelIds.png", ids[TRUTH] if split != "test" else TRUTH * 0)
            save(root / f"gtFine/{stem}_gtFine_color.png", picture(3))
            objects = np.array([3, 26001, 24], np.int32)[TRUTH]
            save(root / f"gtFine/{stem}_gtFine_instanceIds.png", objects.astype(np.uint16))


def roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        for stem in ("a_jpg.rf.0123", "b_jpg.rf.4567"):
            save(root / split / f"{stem}.jpg", picture())
            save(root / split / f"{stem}_mask.png", TRUTH)
        write(root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, car\n2, wheel\n")
    write(root / "README.roboflow.txt", "exported")


def bowl(root: Path) -> None:
    """As the Data Science Bowl 2018: a folder for each image, a file for each object."""
    for part in ("stage1_train", "stage1_test"):
        for stem in ("00ae65", "0a7d30"):
            key = f"{part[7:]}{stem}"
            save(
                root / part / key / f"images/{key}.png",
                np.dstack([picture(), np.full(TRUTH.shape, 255, np.uint8)]),
            )
            for k in (1, 2) if part == "stage1_train" else ():
                layer = np.where(k == TRUTH, 255, 0).astype(np.uint8)
                save(root / part / key / f"masks/{k:03}{key}.png", layer)


def parquet(root: Path) -> None:
    """As ``datasets`` pushes to the hub: encoded images, the schema in the metadata, several row groups."""
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "Image"}}}}
    for split in ("train", "validation"):
        rows = [{"bytes": encoded(picture(), "JPEG"), "path": f"{k}.jpg"} for k in range(3)]
        masks = [{"bytes": encoded(TRUTH), "path": None}] * 3
        schema = pyarrow.schema(
            [("image", file), ("label", file), ("id", pyarrow.int64())],
            metadata={"huggingface": json.dumps(features)},
        )
        table = pyarrow.table({"image": rows, "label": masks, "id": [0, 1, 2]}, schema=schema)
        path = root / f"data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, path, row_group_size=2)
    write(root / "id2label.json", {"0": "background", "1": "car", "2": "wheel"})
    write(root / "README.md", "---\ndataset_info: {}\n---\n")


def isbi(root: Path) -> None:
    """As the challenge ISBI 2012: one stack of images, one of labels."""
    tifffile.imwrite(
        ensure(root / "train-volume.tif"), np.stack([picture(1) for k in range(3)]), photometric="minisblack"
    )
    tifffile.imwrite(root / "train-labels.tif", np.stack([TRUTH] * 3), photometric="minisblack")


def ensure(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# Key of LAYOUTS, writer, names of the classes (empty where the format has none), number of images.
SAMPLES: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...], int]] = {
    "folders": ("images and masks in folders", folders, (), 2),
    "coco": ("COCO", coco, ("background", "car", "wheel"), 4),
    "labelme": ("Labelme", labelme, ("background", "car", "wheel"), 2),
    "label-studio": ("Label Studio", label_studio, ("background", "car", "wheel"), 2),
    "label-studio-png": ("Label Studio", label_studio_layers, ("background", "car", "wheel"), 2),
    "voc": ("PASCAL VOC or CVAT masks", voc, (), 2),
    "cvat": ("PASCAL VOC or CVAT masks", cvat, ("background", "car", "wheel"), 2),
    "cityscapes": ("Cityscapes", cityscapes, (), 6),
    "roboflow": ("Roboflow masks", roboflow, ("background", "car", "wheel"), 4),
    "bowl": ("one mask for each object", bowl, ("background", "object"), 4),
    "parquet": ("Hugging Face parquet", parquet, ("background", "car", "wheel"), 6),
    "isbi": ("images and masks in folders", isbi, (), 3),
}
