import numpy as np
import pytest

from fullyconv.datasets import channel_statistics, class_counts, looks_upright, open_dataset
from fullyconv.errors import DataError


def test_statistics_weigh_each_image_alike(folder):
    folder.pairs("a", "b")
    folder.save("images/a.png", np.full((8, 10, 3), (10, 0, 7), np.uint8))
    folder.save("images/b.png", np.full((80, 10, 3), (20, 0, 9), np.uint8))
    folder.save("masks/b.png", np.zeros((80, 10), np.uint8))
    dataset = open_dataset(folder.root)
    mean, std = channel_statistics(dataset, dataset.samples, seed=0)
    assert mean == (15.0, 0.0, 8.0)
    assert std == (5.0, 1.0, 1.0)
    limited, _ = channel_statistics(dataset, dataset.samples, seed=0, limit=1)
    assert limited[0] in (10.0, 20.0)
    with pytest.raises(DataError, match="no samples"):
        channel_statistics(dataset, (), seed=0)


def test_class_counts_equal_counting_loaded_labels(folder):
    dataset = open_dataset(folder.pairs("a", "b", "c").root)
    chosen = dataset.samples[:2]
    counted = sum(np.bincount(dataset.load(sample)[1].ravel(), minlength=2) for sample in chosen)
    assert class_counts(dataset, chosen).tolist() == counted.tolist()
    assert class_counts(dataset, ()).tolist() == [0, 0]


@pytest.mark.parametrize(("low", "upright"), [(True, True), (False, False)])
def test_a_class_that_keeps_to_the_bottom_tells_which_way_is_up(folder, low, upright):
    rng = np.random.default_rng(0)
    for number in range(20):
        mask = np.zeros((21, 30), np.uint8)
        middle = rng.integers(12, 19) if low else rng.integers(2, 19)
        mask[middle - 2 : middle + 2, 5:20] = 255
        folder.save(f"images/{number}.png", mask)
        folder.save(f"masks/{number}.png", mask)
    dataset = open_dataset(folder.root)
    assert looks_upright(dataset, dataset.samples, seed=0) is upright
    assert not looks_upright(dataset, dataset.samples[:5], seed=0)


@pytest.mark.parametrize(("name", "upright"), [("camvid", True), ("nuclei", False), ("em-membranes", False)])
def test_streets_are_upright_and_microscopy_is_not(shared_data, name, upright):
    dataset = open_dataset(shared_data / name)
    assert looks_upright(dataset, dataset.split("train"), seed=0) is upright
