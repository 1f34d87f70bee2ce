import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullyconv.datasets import class_counts, open_dataset, split_dataset
from fullyconv.errors import ConfigError, DataError, ImageError
from fullyconv.images import write_labels


def test_load_returns_the_pixels_of_the_files(folder):
    image = np.arange(60, dtype=np.uint16).reshape(6, 10) * 1000
    mask = (image > 9000).astype(np.uint8)
    for stem in "ab":
        folder.save(f"images/{stem}.tif", image)
        folder.save(f"masks/{stem}.png", mask)
    dataset = open_dataset(folder.root)
    loaded, labels = dataset.load(dataset.samples[0])
    assert (dataset.channels, dataset.dtype) == (1, "uint16")
    assert loaded.dtype == np.uint16
    assert (loaded[..., 0] == image).all()
    assert (labels == mask).all()
    assert dataset.sizes == {"a": (6, 10), "b": (6, 10)}


def test_what_the_library_writes_it_reads(folder):
    folder.pairs("a", "b")
    dataset = open_dataset(folder.root)
    labels = dataset.load(dataset.samples[0])[1].copy()
    labels[0, 0] = 255
    for stem in "ab":
        write_labels(folder.root / f"masks/{stem}.png", labels, dataset.classes, overwrite=True)
    again = open_dataset(folder.root)
    assert again.classes.colors == dataset.classes.colors
    assert (again.load(again.samples[0])[1] == labels).all()


def test_grey_rgb_and_opaque_rgba_become_rgb_and_are_noted(folder):
    folder.pairs("a", "b", "c")
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
    folder.save("images/b.png", rgb)
    folder.save("images/c.png", np.dstack([rgb, np.full((8, 10, 1), 255, np.uint8)]))
    dataset = open_dataset(folder.root)
    assert dataset.channels == 3
    assert "images: 1 of 3 with 1 channel, used with 3" in dataset.notes
    assert "images: 1 of 3 with 4 channels, used with 3" in dataset.notes
    images = [dataset.load(sample)[0] for sample in dataset.samples]
    assert {image.shape for image in images} == {(8, 10, 3)}
    assert (images[0][..., :1] == images[0]).all()
    assert (images[2] == rgb).all()


def test_transparent_images_keep_their_alpha_if_all_have_one(folder):
    folder.pairs("a", "b")
    for stem in "ab":
        folder.save(f"images/{stem}.png", np.full((8, 10, 4), 77, np.uint8))
    assert open_dataset(folder.root).channels == 4


def test_a_dataset_travels_to_other_processes(folder):
    dataset = open_dataset(folder.pairs("a", "b").root)
    assert pickle.loads(pickle.dumps(dataset)) == dataset


def test_a_file_changed_after_opening_is_refused_on_loading(folder):
    dataset = open_dataset(folder.pairs("a", "b").root)
    sample = dataset.samples[0]
    folder.save("masks/a.png", np.full((8, 10), 9, np.uint8))
    with pytest.raises(DataError) as error:
        dataset.load(sample)
    assert "80 pixels of value 9, first at row 0, column 0" in error.value.problems[0]
    folder.save("masks/a.png", np.full((8, 9), 0, np.uint8))
    with pytest.raises(DataError, match=r"masks/a.png is 8×9, its image 8×10"):
        dataset.load(sample)
    folder.save("images/a.png", np.zeros((8, 10), np.uint16))
    with pytest.raises(ImageError, match="uint16"):
        dataset.load(sample)


def test_the_fingerprint_follows_content_not_place(folder, new_folder):
    folder.pairs("a", "b")
    dataset = open_dataset(folder.root)
    first = dataset.fingerprint()
    assert len(first) == 64
    assert open_dataset(folder.root).fingerprint() == first
    moved = new_folder("elsewhere").root
    shutil.copytree(folder.root, moved)
    assert open_dataset(moved).fingerprint() == first
    assert split_dataset(dataset, seed=0).fingerprint() != first
    (moved / "images/b.png").rename(moved / "images/c.png")
    (moved / "masks/b.png").rename(moved / "masks/c.png")
    assert open_dataset(moved).fingerprint() != first
    folder.save("masks/a.png", np.full((8, 10), 255, np.uint8))
    assert open_dataset(folder.root).fingerprint() != first


def test_a_split_is_a_partition_drawn_by_the_seed(folder):
    dataset = open_dataset(folder.pairs(*(f"{k:02}" for k in range(20))).root)
    split = split_dataset(dataset, validation=0.25, seed=1)
    train, val = split.split("train"), split.split("val")
    assert (len(train), len(val)) == (15, 5)
    assert sorted(sample.name for sample in train + val) == [sample.name for sample in dataset.samples]
    assert split_dataset(dataset, validation=0.25, seed=1) == split
    assert split_dataset(dataset, validation=0.25, seed=2).split("val") != val
    assert split_dataset(split, validation=0.5, seed=3) is split
    assert split.notes[-1] == "split: 15 to train, 5 to validate, drawn with seed 1"


@settings(max_examples=25, deadline=None)
@given(st.floats(0.001, 0.999), st.integers(0, 10))
def test_both_sides_of_a_split_hold_a_sample(three_pairs, validation, seed):
    split = split_dataset(three_pairs, validation=validation, seed=seed)
    assert split.split("train")
    assert split.split("val")


def test_validation_is_taken_from_train_and_test_is_left_alone(folder):
    folder.pairs("a", "b", "c", below="train/").pairs("d", below="test/")
    dataset = split_dataset(open_dataset(folder.root), seed=0)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [2, 1, 1]
    assert dataset.split("test")[0].name == "test/d"


def test_splits_that_cannot_be_are_refused(folder):
    folder.pairs("a", below="train/").pairs("b", below="test/")
    dataset = open_dataset(folder.root)
    with pytest.raises(DataError, match="1 sample to divide"):
        split_dataset(dataset, seed=0)
    for validation in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="validation share"):
            split_dataset(dataset, validation=validation, seed=0)


def test_progress_reaches_the_end(folder):
    seen = []

    class Watcher:
        def say(self, line):
            raise AssertionError(line)

        def advance(self, task, done, total, note=""):
            seen.append((done, total))

    open_dataset(folder.pairs("a", "b", "c").root, progress=Watcher())
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("name", "samples", "channels", "classes", "ignored"),
    [
        ("nuclei", {"train": 532, "val": 132}, 3, ("background", "foreground"), False),
        ("em-membranes", {"train": 24, "val": 6}, 1, ("background", "foreground"), False),
        ("camvid", {"train": 367, "val": 101}, 3, ("Sky", "Building", "Pole"), True),
    ],
)
def test_real_folders_are_understood(shared_data, name, samples, channels, classes, ignored):
    dataset = open_dataset(shared_data / name)
    assert {split: len(dataset.split(split)) for split in samples} == samples
    assert (dataset.channels, dataset.dtype) == (channels, "uint8")
    assert dataset.classes.names[:3] == classes
    image, labels = dataset.load(dataset.samples[0])
    assert image.shape == (*labels.shape, channels)
    assert class_counts(dataset, dataset.samples[:1]).sum() == (labels != 255).sum()
    pixels = sum(h * w for h, w in dataset.sizes.values())
    assert (class_counts(dataset, dataset.samples).sum() < pixels) == ignored
