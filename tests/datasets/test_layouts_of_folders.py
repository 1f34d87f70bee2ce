"""Image and mask folders in the namings people use, each with what it is understood as."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from fullyconv.datasets import open_dataset
from fullyconv.datasets._layouts import find_layout
from fullyconv.datasets._layouts._folders import IMAGE_FOLDERS, MASK_FOLDERS
from fullyconv.errors import DataError


def pair(folder, image: str, mask: str) -> None:
    folder.pairs("x", below="made/")
    for made, name in (("made/images/x.png", image), ("made/masks/x.png", mask)):
        (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.root / made).rename(folder.root / name)
    for empty in ("made/images", "made/masks", "made"):
        (folder.root / empty).rmdir()


@pytest.mark.parametrize(
    ("image", "mask", "name", "split"),
    [
        ("images/a.png", "masks/a.png", "a", None),
        ("imgs/a.png", "masks/a.png", "a", None),
        ("img/a.png", "label/a.png", "a", None),
        ("image/a.png", "mask/a.png", "a", None),
        ("Images/a.png", "Labels/a.png", "a", None),
        ("JPEGImages/a.png", "annotations/a.png", "a", None),
        ("input/a.png", "target/a.png", "a", None),
        ("images/a.png", "gt/a_gt.png", "a", None),
        ("images/a.png", "masks/a_mask.png", "a", None),
        ("images/a_image.png", "masks/a_mask.png", "a_image", None),
        ("a.png", "a_mask.png", "a", None),
        ("a.png", "a_label.png", "a", None),
        ("a.png", "a-seg.png", "a", None),
        ("train/a.png", "trainannot/a.png", "train/a", "train"),
        ("val/a.png", "val_masks/a_mask.png", "val/a", "val"),
        ("train/a.png", "train/a_mask.png", "train/a", "train"),
        ("valid/images/a.png", "valid/masks/a.png", "valid/a", "val"),
        ("testing/image/a.png", "testing/label/a.png", "testing/a", "test"),
        ("images/train/a.png", "masks/train/a.png", "train/a", "train"),
        ("images/validation/s/a.png", "annotations/validation/s/a.png", "validation/s/a", "val"),
        ("deep/er/images/a.png", "deep/er/masks/a.png", "a", None),
    ],
)  # fmt: skip
def test_each_naming_is_understood(folder, image, mask, name, split):
    pair(folder, image, mask)
    root, layout = find_layout(folder.root)
    (sample,) = layout.samples
    assert layout.problems == ()
    assert (sample.name, sample.split) == (name, split)
    assert (sample.image, sample.mask) == (folder.root / image, folder.root / mask)
    assert root == (folder.root / "deep/er" if image.startswith("deep") else folder.root)


@pytest.mark.parametrize("images", IMAGE_FOLDERS)
@pytest.mark.parametrize("masks", MASK_FOLDERS[::4])
def test_every_name_of_images_goes_with_every_name_of_masks(folder, images, masks):
    pair(folder, f"{images}/a.png", f"{masks}/a.png")
    assert len(find_layout(folder.root)[1].samples) == 1


def test_equal_stems_go_before_endings(folder):
    """An image may itself be called *_mask."""
    for stem in ("wear", "wear_mask"):
        folder.save(f"images/{stem}.png", np.zeros((4, 4), np.uint8))
        folder.save(f"masks/{stem}.png", np.zeros((4, 4), np.uint8))
    layout = find_layout(folder.root)[1]
    assert [(sample.name, sample.mask.stem) for sample in layout.samples] == [
        ("wear", "wear"), ("wear_mask", "wear_mask")
    ]  # fmt: skip
    assert layout.problems == ()


def test_segnets_folders_are_three_splits(folder):
    for part in ("train", "val", "test"):
        for stem in ("a", "b"):
            mask = np.zeros((6, 6), np.uint8)
            mask[2:4], mask[4:] = 1, 11
            folder.save(
                f"{part}/{part}{stem}.png",
                np.random.default_rng(zlib.crc32(f"{part}{stem}".encode())).integers(
                    0, 256, (6, 6, 3), dtype=np.uint8
                ),
            )
            folder.save(f"{part}annot/{part}{stem}.png", mask)
    folder.text("classes.toml", 'ignore = 11\n[[class]]\nname = "sky"\n[[class]]\nname = "road"\n')
    folder.text("train.txt", "/SegNet/CamVid/train/traina.png /SegNet/CamVid/trainannot/traina.png\n")
    dataset = open_dataset(folder.root)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [2, 2, 2]
    assert set(np.unique(dataset.load(dataset.samples[0])[1])) == {0, 1, 255}


def test_a_folder_of_masks_that_holds_none_is_not_taken(folder):
    pair(folder, "images/a.png", "mask/a.png")
    folder.text("labels/a.txt", "0 0.5 0.5 1 1")
    assert find_layout(folder.root)[1].samples[0].mask == folder.root / "mask/a.png"


def test_missing_partners_are_named_beside_images(folder):
    folder.save("a.png", np.zeros((4, 4), np.uint8))
    folder.save("a_mask.png", np.zeros((4, 4), np.uint8))
    folder.save("b.png", np.zeros((4, 4), np.uint8))
    folder.save("c_mask.png", np.zeros((4, 4), np.uint8))
    assert find_layout(folder.root)[1].problems == (
        "b.png: it has no mask; fix: add b.png or remove the image",
        "c_mask.png: it has no image; fix: add the image to ./ or remove the mask",
    )


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ["photos/a.jpg", "truth/a.png"],
            r"if photos/ holds images and truth/ their masks, mv .*photos .*images",
        ),
        (["a.jpg", "b.jpg", "c.txt"], r"move the 2 images and their masks there under the same names"),
        (["x.csv", "deep/y.txt"], r"mkdir .*/images .*/masks, and move each image and its mask"),
    ],
)
def test_an_unknown_folder_is_drawn_and_its_nearest_layout_told(tmp_path: Path, files, said):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=said) as error:
        find_layout(tmp_path)
    for name in files:
        folder, _, file = name.rpartition("/")
        suffix = Path(name).suffix
        assert (f"{folder}/ (1 {suffix})" if folder else file) in error.value.given
    assert "Hugging Face parquet" in error.value.expected


def test_the_tree_of_an_unknown_folder_is_short(tmp_path: Path):
    for k in range(40):
        (tmp_path / f"f{k:02}.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"\.\.\. 28 more"):
        find_layout(tmp_path)
