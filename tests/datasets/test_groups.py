"""Several folders, lists of names, and groups that no split divides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullyconv.datasets import open_dataset, split_dataset
from fullyconv.errors import ConfigError, DataError

NAMES = [f"p{patient}_{k}" for patient in range(5) for k in range(patient + 1)]


@pytest.fixture(scope="module")
def patients(kept_folder):
    return open_dataset(kept_folder("patients").pairs(*NAMES).root, groups=r"^(p\d+)_")


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 0.99), st.integers(0, 1000))
def test_no_group_is_divided_and_the_share_is_near(patients, validation, seed):
    split = split_dataset(patients, validation=validation, seed=seed)
    train, val = split.split("train"), split.split("val")
    assert {sample.group for sample in train}.isdisjoint(sample.group for sample in val)
    assert len(train) + len(val) == len(NAMES)
    assert train
    assert val
    largest = 5
    assert abs(len(val) - validation * len(NAMES)) <= largest
    assert split_dataset(patients, validation=validation, seed=seed) == split


def test_groups_come_from_a_table_or_the_name(folder):
    folder.pairs("a1", "a2", "b1", "b2")
    table = folder.text("groups.csv", "name,patient\na1,A\na2.png,A\nb1,B\nb2,B\n")
    by_table = open_dataset(folder.root, groups=table)
    assert [sample.group for sample in by_table.samples] == ["A", "A", "B", "B"]
    assert any(note.startswith("groups: 2, by ") for note in by_table.notes)
    by_name = open_dataset(folder.root, groups="^[a-z]")
    assert [sample.group for sample in by_name.samples] == ["a", "a", "b", "b"]


def test_splits_that_divide_a_group_are_refused(folder):
    folder.pairs("a1", "a2", "b1")
    folder.text("splits/train.txt", "a1\nb1")
    folder.text("splits/val.txt", "a2")
    with pytest.raises(DataError) as error:
        open_dataset(folder.root, groups="^.")
    assert any(
        line.startswith("a2: it is in val, a1 of the same group 'a' in train; fix: move")
        for line in error.value.problems
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,group\na,1\n", "b: it has no group in"),
        ("name,group\n", "no two columns with a header"),
        ("name\na\nb\n", "no two columns with a header"),
        ("name,group\na,1\na,2\nb,1\n", "names 'a' twice"),
    ],
)
def test_faults_of_a_table_of_groups_are_named(folder, text, said):
    folder.pairs("a", "b")
    with pytest.raises(DataError, match=said):
        open_dataset(folder.root, groups=folder.text("groups.csv", text))


def test_faults_of_an_expression_are_named(folder):
    folder.pairs("a", "b")
    with pytest.raises(ConfigError, match=r"a \.csv file or a regular expression"):
        open_dataset(folder.root, groups="(")
    with pytest.raises(DataError, match=r"no such file|No such file"):
        open_dataset(folder.root, groups="missing.csv")


def test_one_group_cannot_be_divided(folder):
    dataset = open_dataset(folder.pairs("a1", "a2").root, groups="^a")
    with pytest.raises(DataError, match="all of the group 'a'"):
        split_dataset(dataset, seed=0)


def test_lists_elsewhere_go_before_what_the_layout_says(folder, new_folder):
    folder.pairs("a", "b", below="train/").pairs("c", below="val/")
    lists = new_folder("fold2")
    lists.text("train.txt", "val/c\ntrain/a\n")
    lists.text("val.txt", "train/b.png\n")
    dataset = open_dataset(folder.root, splits=lists.root)
    assert [sample.name for sample in dataset.split("train")] == ["train/a", "val/c"]
    assert [sample.name for sample in dataset.split("val")] == ["train/b"]
    with pytest.raises(ConfigError, match=r"no train\.txt, val\.txt or test\.txt"):
        open_dataset(folder.root, splits=folder.root)


def test_several_folders_are_one_dataset(new_folder):
    one, other = new_folder("one").pairs("a", "b", below="train/"), new_folder("other").pairs("a", "c")
    other.text("splits/val.txt", "a\nc")
    dataset = open_dataset([one.root, other.root])
    assert [sample.name for sample in dataset.samples] == ["one/train/a", "one/train/b", "other/a", "other/c"]
    assert [sample.split for sample in dataset.samples] == ["train", "train", "val", "val"]
    assert dataset.load(dataset.samples[3])[0].shape == (8, 10, 1)
    with pytest.raises(ConfigError, match="2 folders, 1 different"):
        open_dataset([one.root, one.root])


def test_problems_of_several_folders_name_the_folder(new_folder):
    one, other = new_folder("one").pairs("a", "b"), new_folder("other").pairs("a")
    other.save("images/x.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError) as error:
        open_dataset([one.root, other.root])
    assert any(line.startswith("other/images/x.png: it has no mask") for line in error.value.problems)


def test_folders_with_different_classes_are_refused(new_folder):
    text = '[[class]]\nname = "{}"\n[[class]]\nname = "ink"\n'
    folders = [new_folder(name).pairs(f"{name}1", f"{name}2") for name in ("one", "other")]
    for folder, name in zip(folders, ("paper", "page"), strict=True):
        folder.text("classes.toml", text.format(name))
    roots = [folder.root for folder in folders]
    with pytest.raises(DataError, match=r"different classes: paper, ink; page, ink"):
        open_dataset(roots)
    common = folders[0].text("common.toml", text.format("sheet"))
    assert open_dataset(roots, classes=common).classes.names == ("sheet", "ink")
