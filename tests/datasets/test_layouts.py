from pathlib import Path

import numpy as np
import pytest

from fullyconv.datasets import LAYOUTS, open_dataset
from fullyconv.errors import DataError


def test_images_and_masks_pair_by_stem_whatever_the_suffix(folder):
    folder.pairs("b", "a", "sub/c.d")
    (folder.root / "images/a.png").rename(folder.root / "images/a.PNG")
    dataset = open_dataset(folder.root)
    assert [sample.name for sample in dataset.samples] == ["a", "b", "sub/c.d"]
    assert [sample.split for sample in dataset.samples] == [None] * 3
    assert dataset.layout == "images/ and masks/ with 3 pairs of equal stems"


def test_split_folders_keep_equal_stems_apart(folder):
    folder.pairs("x", "y", below="train/").pairs("x", below="Validation/").pairs("x", below="test/")
    dataset = open_dataset(folder.root)
    assert [sample.name for sample in dataset.split("train")] == ["train/x", "train/y"]
    assert [sample.name for sample in dataset.split("val")] == ["Validation/x"]
    assert [sample.name for sample in dataset.split("test")] == ["test/x"]
    assert dataset.split("nonsense") == ()
    assert len(dataset.samples) == 4


def test_a_test_folder_may_lack_masks_and_says_so(folder):
    folder.pairs("x", "y", below="train/")
    folder.save("test/images/z.png", np.zeros((5, 6), np.uint8))
    dataset = open_dataset(folder.root)
    (sample,) = dataset.split("test")
    assert sample.mask is None
    assert "test/ has no masks: its images are read without truth" in dataset.notes
    image, labels = dataset.load(sample)
    assert image.shape == (5, 6, 1)
    assert labels.shape == (5, 6)
    assert (labels == dataset.classes.ignore_index).all()


def test_split_lists_take_stems_or_file_names_and_leave_the_rest_out(folder):
    folder.pairs("a", "b", "c", "d")
    folder.text("splits/train.txt", "b\na.png\n\n")
    folder.text("splits/valid.txt", "c")
    folder.text("splits/fold1.txt", "c")
    dataset = open_dataset(folder.root)
    assert [sample.name for sample in dataset.split("train")] == ["a", "b"]
    assert [sample.name for sample in dataset.split("val")] == ["c"]
    assert len(dataset.samples) == 3
    assert "1 pair in no list of splits/, left out" in dataset.notes
    assert any(note.startswith("splits/fold1.txt is not used") for note in dataset.notes)


def test_files_that_are_no_images_are_left_out_and_hidden_ones_not_even_counted(folder):
    folder.pairs("a", "b")
    folder.text("images/notes.md", "hello")
    folder.text("images/.DS_Store", "junk")
    assert "1 file of data/images no image, left out" in open_dataset(folder.root).notes


def test_faults_of_split_lists_are_named_with_the_nearest_stem(folder):
    folder.pairs("cell_1", "cell_2")
    folder.text("splits/train.txt", "cell_1\nceil_2")
    folder.text("splits/val.txt", "cell_1")
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    assert error.value.problems[:2] == (
        "splits/train.txt: entry 2 names 'ceil_2', no such pair; fix: did you mean cell_2?",
        "splits/val.txt: entry 1, 'cell_1', is also in splits/train.txt; fix: keep one of them",
    )


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "other"])
def test_a_folder_of_no_known_layout_is_refused_with_what_it_holds(tmp_path: Path, kind):
    root = tmp_path / "nuclei"
    if kind == "file":
        root.write_text("x")
    elif kind == "missing":
        (tmp_path / "nuclei2").mkdir()
    else:
        root.mkdir()
        if kind == "other":
            (root / "labels").mkdir()
    with pytest.raises(DataError) as error:
        open_dataset(root)
    expected = {
        "missing": f"{root} is not there",
        "file": f"{root} is a file",
        "empty": f"{root} holds nothing",
        "other": f"{root} holds no layout that is known\n    labels/ (empty)",
    }
    assert error.value.given == expected[kind]
    assert kind != "missing" or error.value.fix.endswith(f"did you mean {tmp_path / 'nuclei2'}?")


@pytest.mark.parametrize("find", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_passes_on_an_empty_folder(find, tmp_path: Path):
    assert find(tmp_path) is None


def test_lists_of_other_names_alone_are_no_splits(folder):
    folder.pairs("a", "b").text("splits/fold1.txt", "a")
    assert [sample.split for sample in open_dataset(folder.root).samples] == [None, None]


def test_lists_may_come_from_windows(folder):
    folder.pairs("a", "b")
    (folder.root / "splits").mkdir()
    (folder.root / "splits/train.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert len(open_dataset(folder.root).split("train")) == 2
