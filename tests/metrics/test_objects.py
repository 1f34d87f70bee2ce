import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label

from fullyconv.metrics import OBJECT_THRESHOLDS, find_objects, object_sums, score_objects


def by_loops(truth, prediction, counted, agreed):
    """Match every pair of objects, as the definition says."""
    true = {n: (truth == n) & counted for n in np.unique(truth[counted]) if n}
    given = {n: (prediction == n) & counted for n in np.unique(prediction[counted]) if n}
    rows = []
    for k in range(10, 20):
        found = sum(
            20 * (t & p & agreed).sum() > k * (t.sum() + p.sum() - (t & p & agreed).sum())
            for t in true.values()
            for p in given.values()
        )
        in_vain, missed = len(given) - found, len(true) - found
        every = found + in_vain + missed
        rows.append([found, in_vain, missed, found / every if every else 0, every > 0])
    return np.array(rows, float)


masks = hnp.arrays(np.uint8, (8, 9), elements=st.sampled_from([0, 0, 1, 1, 2]))


@settings(deadline=None, max_examples=60)
@given(masks, st.data())
def test_matches_equal_a_loop_over_all_pairs(truth, data):
    # A prediction that differs in few pixels, so that objects are found at all.
    flips = data.draw(hnp.arrays(bool, truth.shape, elements=st.sampled_from([False] * 9 + [True])))
    prediction = np.where(flips, (truth + 1) % 3, truth)
    counted = ~data.draw(hnp.arrays(bool, truth.shape, elements=st.sampled_from([False] * 9 + [True])))
    numbers, answered = find_objects(truth, 255), find_objects(prediction, 255)
    agreed = truth == prediction
    sums = object_sums(numbers, answered, counted, agreed)
    assert np.array_equal(sums, by_loops(numbers, answered, counted, agreed))


@settings(deadline=None, max_examples=40)
@given(masks, st.integers(0, 2**16))
def test_scores_do_not_depend_on_the_numbers(truth, seed):
    rng = np.random.default_rng(seed)
    prediction = np.where(rng.random(truth.shape) < 0.1, 0, truth)
    numbers, answered = find_objects(truth, 255), find_objects(prediction, 255)
    everywhere = np.ones(truth.shape, bool)
    renamed = np.append(0, 1 + rng.permutation(numbers.max()) * 7)[numbers]
    assert np.array_equal(
        object_sums(numbers, answered, everywhere, everywhere),
        object_sums(renamed, answered, everywhere, everywhere),
    )
    perfect = score_objects(object_sums(numbers, renamed, everywhere, everywhere))
    assert (perfect["average_precision"] == 1) or not numbers.any()


def boxes(*widths):
    """Objects in a row, of a height of 1 and such widths."""
    return np.concatenate([[0, *[number] * width] for number, width in enumerate(widths, 1)])[None]


def test_an_intersection_over_union_at_a_threshold_is_not_above_it():
    truth = boxes(20)
    everywhere = np.ones(truth.shape, bool)
    for common in range(10, 21):
        answered = np.where(truth.cumsum(1) <= common, truth, 0)
        sums = object_sums(truth, answered, everywhere, everywhere)
        expected = [common > k for k in range(10, 20)]  # of 20: k/20 are the thresholds
        assert sums[:, 0].tolist() == expected


def test_an_object_of_another_class_finds_nothing():
    truth = boxes(6, 6)
    agreed = np.ones(truth.shape, bool)
    agreed[truth == 2] = False
    sums = object_sums(truth, truth, np.ones(truth.shape, bool), agreed)
    assert sums[0].tolist() == [1, 1, 1, 1 / 3, 1]


def test_the_bowl_s_score_by_hand():
    """Of two images: one object of three found in the first, none of one in the second."""
    truth = boxes(10, 10, 10)
    first = np.where(truth == 1, 1, 0)
    everywhere = np.ones(truth.shape, bool)
    second = boxes(10, 10, 10) == 3
    sums = object_sums(truth, first, everywhere, everywhere) + object_sums(
        second.astype(int), np.zeros(truth.shape, int), everywhere, everywhere
    )
    scores = score_objects(sums)
    assert scores["average_precision"] == pytest.approx((1 / 3 + 0) / 2)
    assert scores["object_precision"] == 1
    assert scores["object_recall"] == 0.25
    assert scores["object_f1"] == pytest.approx(2 * 0.25 / 1.25)
    assert np.allclose(OBJECT_THRESHOLDS, np.arange(0.5, 1.0, 0.05))


def test_no_objects_no_score():
    empty = np.zeros((3, 3), int)
    sums = object_sums(empty, empty, empty == 0, empty == 0)
    assert all(np.isnan(value).all() for value in score_objects(sums).values())


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 1, 2, 255])))
def test_objects_are_the_regions_of_scikit_image(labels):
    numbers = find_objects(labels, 255)
    expected = label(np.where(labels == 255, 0, labels), connectivity=1)
    pairs = np.unique(np.stack([numbers.ravel(), expected.ravel()]), axis=1)
    assert len(pairs[0]) == len(np.unique(numbers)) == len(np.unique(expected))
    assert numbers.max() == len(np.unique(numbers[numbers > 0]))


def discs(*circles, size=80):
    rows, columns = np.mgrid[:size, :size]
    return [(rows - r) ** 2 + (columns - c) ** 2 <= radius**2 for r, c, radius in circles]


def test_touching_discs_are_parted_at_their_neck():
    circles = [(30, 20, 12), (30, 42, 14), (52, 34, 11)]
    truth = discs(*circles)
    labels = np.any(truth, 0).astype(np.uint8)
    assert find_objects(labels, 255).max() == 1
    parted = find_objects(labels, 255, split=True)
    assert parted.max() == 3
    assert np.array_equal(parted > 0, labels > 0)
    for disc in truth:
        number = np.bincount(parted[disc]).argmax()
        own = parted == number
        assert (own & disc).sum() / (own | disc).sum() > 0.9


def test_discs_of_two_sizes_are_parted_where_their_circles_cross():
    """The radical axis of radii 16 and 8 at a distance of 22 lies at 15.4 from the larger one's centre."""
    labels = np.any(discs((40, 20, 16), (40, 42, 8)), 0).astype(np.uint8)
    parted = find_objects(labels, 255, split=True)
    assert parted.max() == 2
    row = parted[40]
    change = np.nonzero(np.diff(row[4:51]))[0] + 4
    assert change.tolist() == [35]


ROWS, COLUMNS = np.mgrid[:60, :60]
NO_NECK = {
    "disc": discs((30, 30, 17), size=60)[0],
    "bar": (abs(ROWS - 30) < 6) & (abs(COLUMNS - 30) < 25),
    "ring": discs((30, 30, 24), size=60)[0] & ~discs((30, 30, 14), size=60)[0],
    "cut by the edge": discs((0, 30, 20), size=60)[0],
    "the whole image": np.ones((60, 60), bool),
}


@pytest.mark.parametrize("shape", NO_NECK)
def test_what_has_no_neck_stays_whole(shape):
    assert find_objects(NO_NECK[shape].astype(np.uint8), 255, split=True).max() == 1


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.uint8, (14, 13), elements=st.sampled_from([0, 1, 1, 1, 255])))
def test_parting_only_divides(labels):
    """Every part lies in one region, and all parts together are the regions."""
    regions, parts = find_objects(labels, 255), find_objects(labels, 255, split=True)
    assert np.array_equal(regions > 0, parts > 0)
    assert len(np.unique(np.stack([regions, parts])[:, regions > 0], axis=1).T) == parts.max()
    assert sorted(np.unique(parts[parts > 0])) == list(range(1, parts.max() + 1))


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.uint8, (14, 13), elements=st.sampled_from([0, 1, 1, 1, 1])))
def test_the_edge_of_the_image_is_an_outside_like_any_other(labels):
    parts = find_objects(labels, 255, split=True)
    framed = find_objects(np.pad(labels, 3), 255, split=True)
    assert np.array_equal(parts, framed[3:-3, 3:-3])
