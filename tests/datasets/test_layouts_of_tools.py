"""Each format other tools write is understood: pairs, splits, classes, masks and objects."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import layout_samples as samples
import numpy as np
import pytest
import tifffile
from layout_samples import HEIGHT, SAMPLES, TRUTH, WIDTH

from fullyconv.datasets import LAYOUTS, find_instances, open_dataset
from fullyconv.datasets._layouts import find_layout
from fullyconv.datasets._layouts._cityscapes import CITYSCAPES
from fullyconv.datasets._layouts._voc import VOC_2012, voc_color
from fullyconv.datasets._sources import digest_of, load_mask
from fullyconv.errors import DataError, ImageError

# Where a sample has the marks of two layouts, the one that says more goes first.
PRECEDENCE = {
    "label-studio": ["Label Studio", "images and masks in folders"],
    "label-studio-png": ["Label Studio", "images and masks in folders"],
    "voc": ["PASCAL VOC or CVAT masks", "images and masks in folders"],
    "cvat": ["PASCAL VOC or CVAT masks", "images and masks in folders"],
    "roboflow": ["Roboflow masks", "images and masks in folders"],
}


@pytest.fixture
def made(tmp_path: Path):
    """Write a sample by its name and return its folder."""

    def make(name: str) -> Path:
        root = tmp_path / name
        root.mkdir()
        SAMPLES[name][1](root)
        return root

    return make


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_is_understood_by_one_layout_or_by_stated_precedence(name, made):
    root, _ = find_layout(made(name))
    key = SAMPLES[name][0]
    found = [layout for layout, find in LAYOUTS.items() if find(root) is not None]
    assert found == PRECEDENCE.get(name, [key])
    assert found[0] == key


def test_every_layout_has_a_sample():
    assert {key for key, *_ in SAMPLES.values()} == LAYOUTS.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_opens_with_its_classes_and_loads(name, made):
    root = made(name)
    dataset = open_dataset(root)
    _, _, names, count = SAMPLES[name]
    assert len(dataset.samples) == count
    assert len({sample.name for sample in dataset.samples}) == count
    assert not names or dataset.classes.names == names
    for sample in dataset.samples:
        image, labels = dataset.load(sample)
        assert image.shape[:2] == labels.shape == (HEIGHT, WIDTH)
    again = open_dataset(root)
    assert again.fingerprint() == dataset.fingerprint()
    assert pickle.loads(pickle.dumps(dataset)) == again


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in ("coco", "voc", "cityscapes", "bowl")])
def test_masks_are_the_truth(name, made):
    dataset = open_dataset(made(name))
    for sample in dataset.samples:
        assert (dataset.load(sample)[1] == TRUTH).all()


@pytest.mark.parametrize(
    "name", ["coco", "labelme", "label-studio", "label-studio-png", "voc", "cvat", "cityscapes", "bowl"]
)
def test_objects_are_told_apart(name, made):
    dataset = open_dataset(made(name))
    sample = next(sample for sample in dataset.samples if sample.mask is not None)
    labels = dataset.load(sample)[1]
    numbers = find_instances(sample, labels, ignore_index=dataset.classes.ignore_index)
    assert numbers.shape == labels.shape
    objects = [np.unique(numbers[k == TRUTH]) for k in (1, 2)]
    if name == "voc":  # a void border runs along the upper edge
        objects = [np.unique(numbers[(k == TRUTH) & (labels != 255)]) for k in (1, 2)]
    if name == "cityscapes":  # persons of this image are not numbered
        objects[1] = np.array([1])
        assert (numbers[TRUTH == 2] == 0).all()
    assert [len(each) for each in objects] == [1, 1]
    assert objects[0] != objects[1] or name == "cityscapes"
    assert (numbers[TRUTH == 0] == 0).all()


def test_coco_paints_small_objects_on_top_and_ignores_crowds(made):
    dataset = open_dataset(made("coco"))
    (a, b) = dataset.split("train")
    assert [sample.name for sample in (a, b)] == ["train2017/train_a", "train2017/train_b"]
    assert (dataset.load(a)[1] == TRUTH).all()
    expected = np.where(
        samples.CROWD & (TRUTH == 0), 255, TRUTH
    )  # what is in a crowd and outlined is no crowd
    assert (dataset.load(b)[1] == expected).all()
    assert len(dataset.split("val")) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_coco_does_not_depend_on_the_order_of_annotations_nor_on_their_area(made, order):
    root = made("coco")
    for path in (root / "annotations").glob("instances*"):
        content = json.loads(path.read_text())
        content["annotations"] = content["annotations"][::order]
        for annotation in content["annotations"]:
            annotation["area"] = 7.0 * order
        path.write_text(json.dumps(content))
    dataset = open_dataset(root)
    assert (dataset.load(dataset.samples[0])[1] == TRUTH).all()


def test_compressed_run_lengths_equal_the_polygon(made):
    from fullyconv.outlines import encode_rle

    root = made("coco")
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        if annotation["category_id"] == 90:
            annotation["segmentation"] = encode_rle(TRUTH == 2)
    path.write_text(json.dumps(content))
    dataset = open_dataset(root)
    assert (dataset.load(dataset.split("train")[0])[1] == TRUTH).all()


def test_roboflows_coco_has_no_class_for_the_name_of_the_project(tmp_path: Path):
    name = "a_jpg.rf.01.jpg"
    for split in ("train", "valid"):
        samples.save(tmp_path / split / name, samples.picture())
        content = {
            "images": [{"id": 0, "file_name": name, "height": HEIGHT, "width": WIDTH}],
            "categories": [
                {"id": 0, "name": "cells", "supercategory": "none"},
                {"id": 1, "name": "nucleus", "supercategory": "cells"},
            ],
            "annotations": [
                {"id": 0, "image_id": 0, "category_id": 1, "segmentation": [samples.flat(samples.OUTER)]}
            ],
        }
        samples.write(tmp_path / split / "_annotations.coco.json", content)
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == ("background", "nucleus")
    assert [sample.name for sample in dataset.split("val")] == ["valid/a_jpg.rf.01"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["annotations"][0].pop("segmentation"), "1 annotation without an outline .*: 0; fix"),
        (
            lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
            "1 annotation without an outline",
        ),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "1 annotation"),
        (lambda c: c["annotations"][0].update(category_id=5), "or a known category: 0"),
        (lambda c: c["annotations"][0].update(image_id=5), "annotations of 1 image that it does not list: 5"),
        (
            lambda c: c["images"][0].update(file_name="../../etc/x.jpg"),
            r"image '../../etc/x.jpg' is not below",
        ),
        (
            lambda c: c["annotations"][-1]["segmentation"].update(size=[3, 4]),
            r"size \[3, 4\] on an image of 12×16",
        ),
    ],
    ids=["box only", "two corners", "nan", "category", "no image", "outside", "other size"],
)
def test_faults_of_coco_files_are_named(made, change, said):
    root = made("coco")
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=said) as error:
        open_dataset(root)
    assert "annotations/instances_train2017.json" in str(error.value)


def test_labelme_shapes_are_areas_by_the_centres_of_pixels(tmp_path: Path):
    samples.save(tmp_path / "a.png", samples.picture())
    samples.save(tmp_path / "b.png", samples.picture())
    bitmap = np.zeros((3, 4), np.uint8)
    bitmap[1:, 1:] = 255
    import base64

    shapes = [
        {"label": "disc", "points": [[8, 6], [8, 9]], "shape_type": "circle", "group_id": 4},
        {"label": "blot", "points": [[10, 7], [13, 9]], "shape_type": "mask", "group_id": None,
         "mask": base64.b64encode(samples.encoded(bitmap)).decode()},
        {"label": "disc", "points": [[0, 0], [2, 1]], "shape_type": "rectangle", "group_id": 4},
        {"label": "__ignore__", "points": [[0, 11], [16, 11], [16, 12], [0, 12]], "shape_type": "polygon"},
    ]  # fmt: skip
    for stem in "ab":
        content = {"shapes": shapes, "imagePath": f"{stem}.png", "imageData": None}
        samples.write(tmp_path / f"{stem}.json", content)
    samples.write(tmp_path / "labels.txt", "__ignore__\n_background_\ndisc\nblot\n")
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == ("background", "disc", "blot")
    labels = dataset.load(dataset.samples[0])[1]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected = ((columns - 8) ** 2 + (rows - 6) ** 2 <= 9).astype(np.uint8)
    expected[8:10, 11:14] = 2
    expected[0, :2] = 1
    expected[11] = 255
    assert (labels == expected).all()
    numbers = find_instances(dataset.samples[0], labels, ignore_index=255)
    assert numbers[0, 0] == numbers[6, 6] != numbers[8, 11] != 0  # one group is one object
    assert (numbers[11] == 0).all()


def test_label_studio_takes_percents_turns_and_the_last_annotation(tmp_path: Path):
    common = {"original_width": WIDTH, "original_height": HEIGHT}
    box = {"x": 25, "y": 25, "width": 25, "height": 50, "rotation": 0, "rectanglelabels": ["box"]}
    round_ = {"x": 75, "y": 50, "radiusX": 12.5, "radiusY": 25, "rotation": 90, "ellipselabels": ["egg"]}
    dot = {"x": 1, "y": 1, "width": 0.3, "keypointlabels": ["dot"]}
    tasks = []
    for k, name in enumerate(("a", "b c")):
        samples.save(tmp_path / f"{name}.png", samples.picture())
        result = [{**common, "type": "rectanglelabels", "value": box},
                  {**common, "type": "ellipselabels", "value": round_},
                  {**common, "type": "keypointlabels", "value": dot}]  # fmt: skip
        address = "/data/local-files/?d=scans%2Fb%20c.png" if k else "s3://bucket/a.png"
        tasks.append({"id": k, "data": {"photo": address}, "annotations": [{"id": 1, "result": result}]})
    samples.write(tmp_path / "export.json", tasks)
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == ("background", "box", "egg")
    assert "2 results of the kind keypointlabels left out: no area or no label" in dataset.notes
    labels = dataset.load(dataset.samples[1])[1]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    egg = ((columns - 12) / 3) ** 2 + ((rows - 6) / 2) ** 2 <= 1
    expected = np.where(egg, 2, 0)
    expected[3:9, 4:8] = 1
    assert (labels == expected).all()


def test_voc_has_its_names_colours_and_void(made):
    dataset = open_dataset(made("voc"))
    assert dataset.classes.names == tuple(VOC_2012)
    assert dataset.classes.colors[1:3] == ((128, 0, 0), (0, 128, 0))
    assert [color for k in range(256) for color in voc_color(k)] == samples.voc_palette()
    (sample,) = dataset.split("train")
    assert sample.name == "2007_a"
    expected = TRUTH * 7
    expected[2, 3:11] = 255
    assert (dataset.load(sample)[1] == expected).all()


def test_cvat_masks_may_lack_their_images_and_say_how_to_get_them(made):
    root = made("cvat")
    for path in (root / "JPEGImages").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no image in JPEGImages/ \(and 1 more\); fix: export it again with"):
        open_dataset(root)


def test_cityscapes_ids_become_nineteen_classes(made):
    root = made("cityscapes")
    dataset = open_dataset(root)
    labels = dataset.load(dataset.split("train")[0])[1]
    names = [name for _, name, _ in CITYSCAPES]
    expected = np.array([255, names.index("car"), names.index("person")])[TRUTH]
    assert (labels == expected).all()
    assert all(sample.mask is None for sample in dataset.split("test"))
    for path in root.glob("gtFine/*/*/*_labelIds.png"):
        if "test" not in path.parts:
            samples.save(
                path.with_name(path.name.replace("labelIds", "labelTrainIds")), expected.astype(np.uint8)
            )
    again = open_dataset(root)
    assert "train ids" in again.layout
    assert (again.load(again.split("train")[0])[1] == expected).all()


def test_the_bowls_objects_make_one_mask_and_its_test_images_have_none(made):
    dataset = open_dataset(made("bowl"))
    (sample, _) = dataset.split("train")
    assert (dataset.load(sample)[1] == (TRUTH > 0)).all()
    assert [sample.mask for sample in dataset.split("test")] == [None, None]


def test_parquet_rows_are_of_their_split_and_group(made):
    dataset = open_dataset(made("parquet"))
    assert [len(dataset.split(name)) for name in ("train", "val")] == [3, 3]
    images = [dataset.load(sample)[0] for sample in dataset.samples]
    assert len({image.tobytes() for image in images}) == 6


def test_pages_of_a_stack_are_images_named_by_their_number(made):
    dataset = open_dataset(made("isbi"))
    assert [sample.name for sample in dataset.samples] == [f"train-volume:{k}" for k in (1, 2, 3)]
    pages = tifffile.imread(dataset.root / "train-volume.tif")
    for sample, page in zip(dataset.samples, pages, strict=True):
        assert (dataset.load(sample)[0][..., 0] == page).all()


def test_stacks_of_folders_pair_page_by_page_and_unequal_ones_are_refused(tmp_path: Path):
    images = np.stack([samples.picture() for _ in range(2)])
    tifffile.imwrite(samples.ensure(tmp_path / "images/s.tif"), images, photometric="rgb")
    tifffile.imwrite(
        samples.ensure(tmp_path / "masks/s.tif"), np.stack([TRUTH] * 2), photometric="minisblack"
    )
    dataset = open_dataset(tmp_path)
    assert dataset.channels == 3
    assert (dataset.load(dataset.samples[1])[0] == images[1]).all()
    tifffile.imwrite(tmp_path / "masks/s.tif", np.stack([TRUTH] * 3), photometric="minisblack")
    with pytest.raises(DataError, match=r"images/s\.tif: it has 2 pages, its mask 3"):
        open_dataset(tmp_path)


def test_a_damaged_stack_is_named(made):
    root = made("isbi")
    path = root / "train-volume.tif"
    layout = find_layout(root)[1]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ImageError, match=r"train-volume\.tif, page 3: damaged or cut off"):
        layout.samples[2].image.read_image()


def test_images_of_many_channels_keep_them(tmp_path: Path):
    for k, stem in enumerate("ab"):
        bands = np.random.default_rng(k).integers(0, 4000, (HEIGHT, WIDTH, 6)).astype(np.uint16)
        tifffile.imwrite(samples.ensure(tmp_path / f"images/{stem}.tif"), bands, photometric="minisblack",
                         planarconfig="contig")  # fmt: skip
        samples.save(tmp_path / f"masks/{stem}.png", TRUTH)
    dataset = open_dataset(tmp_path)
    assert (dataset.channels, dataset.dtype) == (6, "uint16")
    assert (dataset.load(dataset.samples[1])[0] == bands).all()


@pytest.mark.parametrize("name", SAMPLES)
def test_what_a_mask_is_made_of_changes_its_digest(name, made):
    root = made(name)
    sources = [sample.mask for sample in find_layout(root)[1].samples if sample.mask is not None]
    assert all(len(digest_of(source)) == 64 for source in sources)
    before = [digest_of(source) for source in sources]
    assert [digest_of(source) for source in sources] == before
    objects = [sample.instances for sample in find_layout(root)[1].samples if sample.instances is not None]
    for source, mask in zip(objects, sources, strict=False):
        if not np.array_equal(load_mask(source).values, load_mask(mask).values):
            assert digest_of(source) != digest_of(mask)


def test_the_fingerprint_follows_annotations_and_objects(made):
    root = made("coco")
    first = open_dataset(root).fingerprint()
    path = root / "annotations/instances_val2017.json"
    text = path.read_text()
    path.write_text(text.replace("[3, 2, 11, 2", "[3, 2, 12, 2", 1))
    assert path.read_text() != text
    assert open_dataset(root).fingerprint() != first
    path.write_text(text)
    assert open_dataset(root).fingerprint() == first


def test_the_fingerprint_follows_object_files(folder):
    folder.pairs("a", "b").save("instances/a.png", np.ones((8, 10), np.uint8))
    first = open_dataset(folder.root).fingerprint()
    folder.save("instances/a.png", np.full((8, 10), 2, np.uint8))
    assert open_dataset(folder.root).fingerprint() != first
