"""Objects of a sample: from its file where there is one, else its connected regions."""

import numpy as np
import pytest
from scipy import ndimage

from fullyconv.datasets import find_instances, open_dataset
from fullyconv.errors import DataError


def instances(dataset, number=0):
    sample = dataset.samples[number]
    return find_instances(sample, dataset.load(sample)[1], ignore_index=dataset.classes.ignore_index)


@pytest.mark.parametrize("below", ["", "train/"])
def test_numbers_are_read_from_the_folder_beside_the_masks(folder, below):
    folder.pairs("a", "b", below=below)
    folder.pairs("c", below="val/" if below else "")
    numbers = np.arange(80, dtype=np.uint16).reshape(8, 10) * 700
    folder.save(f"{below}instances/a.png", numbers)
    dataset = open_dataset(folder.root)
    assert (instances(dataset) == numbers).all()
    assert dataset.samples[1].instances is None
    assert any("instances has 1 of" in note for note in dataset.notes)


def test_split_lists_keep_the_instances(folder):
    folder.pairs("a", "b").text("splits/train.txt", "a")
    folder.text("splits/val.txt", "b")
    path = folder.save("instances/b.png", np.ones((8, 10), np.uint8))
    assert [sample.instances for sample in open_dataset(folder.root).samples] == [None, path]


def test_without_a_file_each_region_of_a_class_is_an_object(folder):
    labels = np.zeros((9, 12), np.uint8)
    labels[1:4, 1:4], labels[4:7, 4:7] = 1, 1  # touch by a corner only: two objects
    labels[1:4, 4:7] = 2  # touches both by sides, but is of another class
    labels[8, :] = 255
    folder.masks(labels, labels)
    found = instances(open_dataset(folder.root))
    assert len(np.unique(found)) == 4
    assert ((found == 0) == np.isin(labels, (0, 255))).all()
    for number in range(1, 4):
        assert len(np.unique(labels[found == number])) == 1
        assert ndimage.label(found == number)[1] == 1


@pytest.mark.parametrize("wrong", [np.ones((8, 9), np.uint8), np.ones((8, 10, 3), np.uint8)])
def test_what_does_not_number_every_pixel_is_refused(folder, wrong):
    folder.pairs("a", "b").save("instances/a.png", wrong)
    with pytest.raises(DataError, match=r"a\.png"):
        instances(open_dataset(folder.root))


def test_real_nuclei_have_their_own_numbers(shared_data):
    dataset = open_dataset(shared_data / "nuclei")
    found, labels = instances(dataset), dataset.load(dataset.samples[0])[1]
    assert ((found > 0) == (labels > 0)).all()
    assert found.max() > 1
