import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import precision_recall_fscore_support

from fullyconv.errors import ConfigError
from fullyconv.metrics import ConfusionMatrix, Scores, region_sums, score_regions


def count_by_loops(truth, prediction, classes, ignore_index):
    counts = np.zeros((classes, classes), np.int64)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != ignore_index:
            counts[t, p] += 1
    return counts


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([2, 3, 11, 300]), st.sampled_from([255, 1000, 65535]))
def test_counts_equal_loops(data, classes, ignore_index):
    if ignore_index < classes:
        ignore_index = classes
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    truth = data.draw(hnp.arrays(np.uint16, shape, elements=st.sampled_from([*range(classes), ignore_index])))
    prediction = data.draw(hnp.arrays(np.uint16, shape, elements=st.integers(0, classes - 1)))
    matrix = ConfusionMatrix(classes)
    matrix.update(truth, prediction, ignore_index)
    assert np.array_equal(matrix.counts, count_by_loops(truth, prediction, classes, ignore_index))


def test_counts_in_several_blocks_equal_numpy():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (1500, 1500)).astype(np.uint8)
    prediction = rng.integers(0, 5, truth.shape).astype(np.uint8)
    matrix = ConfusionMatrix(5)
    matrix.update(truth, prediction, 255)
    expected = np.histogram2d(truth.ravel(), prediction.ravel(), bins=(range(6), range(6)))[0]
    assert np.array_equal(matrix.counts, expected.astype(np.int64))


def test_scores_equal_their_definitions():
    counts = np.array([[50, 3, 2], [4, 30, 1], [0, 7, 3]])
    matrix = ConfusionMatrix(3)
    matrix.counts += counts
    scores = matrix.scores()
    t = counts.sum(1)
    iu = [counts[i, i] / (t[i] + counts[:, i].sum() - counts[i, i]) for i in range(3)]
    assert scores.pixel_accuracy == pytest.approx((50 + 30 + 3) / 100)
    assert scores.mean_accuracy == pytest.approx(np.mean([counts[i, i] / t[i] for i in range(3)]))
    assert scores.mean_iu == pytest.approx(np.mean(iu))
    assert scores.frequency_weighted_iu == pytest.approx(np.dot(t, iu) / 100)
    assert scores.class_iu == pytest.approx(tuple(iu))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_a_perfect_prediction_scores_one_and_any_label_type_counts(dtype):
    truth = np.arange(12).reshape(3, 4).astype(dtype) % 3
    matrix = ConfusionMatrix(3)
    matrix.update(truth, truth, 255)
    assert matrix.scores().mean_iu == 1.0
    assert matrix.scores().frequency_weighted_iu == 1.0


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.uint8, (2, 40), elements=st.integers(0, 3)))
def test_precision_recall_and_dice_equal_scikit_learn(labels):
    truth, prediction = labels
    matrix = ConfusionMatrix(4)
    matrix.update(truth, prediction, 255)
    scores = matrix.scores()
    precision, recall, dice, support = precision_recall_fscore_support(
        truth, prediction, labels=range(4), zero_division=0
    )
    present = support > 0
    for ours, theirs in (
        (scores.class_precision, precision),
        (scores.class_accuracy, recall),
        (scores.class_dice, dice),
    ):
        assert np.array(ours)[present] == pytest.approx(theirs[present])
        assert np.isnan(np.array(ours)[~present]).all()


def test_sums_of_many_matrices_score_as_each_alone():
    counts = np.random.default_rng(0).integers(0, 9, (5, 3, 3))
    together = score_regions(region_sums(counts))
    for place, each in enumerate(counts):
        matrix = ConfusionMatrix(3)
        matrix.counts += each
        assert Scores(**{name: _plain(value[place]) for name, value in together.items()}) == matrix.scores()


def _plain(value):
    return tuple(value.tolist()) if value.ndim else float(value)


def test_an_absent_class_is_left_out_of_means_but_its_false_pixels_count_against_others():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 0, 1, 1]]), np.array([[0, 2, 1, 1]]), 255)
    scores = matrix.scores()
    assert math.isnan(scores.class_iu[2])
    assert scores.class_iu[:2] == (0.5, 1.0)
    assert scores.mean_iu == 0.75
    assert scores.to_dict()["class_iu"] == [0.5, 1.0, None]


def test_ignored_pixels_count_nowhere():
    truth = np.array([[0, 255, 1, 255]], np.uint8)
    right, wrong = ConfusionMatrix(2), ConfusionMatrix(2)
    right.update(truth, np.array([[0, 0, 1, 0]]), 255)
    wrong.update(truth, np.array([[0, 1, 1, 1]]), 255)
    assert np.array_equal(right.counts, wrong.counts)
    assert right.counts.sum() == 2


def test_nothing_counted_gives_no_numbers():
    scores = ConfusionMatrix(2).scores()
    assert math.isnan(scores.mean_iu)
    assert scores.to_dict()["pixel_accuracy"] is None


def test_constant_predictor_equals_predicting_the_most_frequent_class():
    truth = np.array([[0, 1, 1, 1, 2]])
    matrix, constant = ConfusionMatrix(3), ConfusionMatrix(3)
    matrix.update(truth, np.array([[2, 1, 0, 1, 2]]), 255)
    constant.update(truth, np.ones_like(truth), 255)
    assert matrix.constant_predictor() == constant.scores()
    assert matrix.constant_predictor().mean_iu == pytest.approx((3 / 5) / 3)


def test_sum_equals_counting_both():
    a, b, both = ConfusionMatrix(2), ConfusionMatrix(2), ConfusionMatrix(2)
    x, y = np.array([[0, 1]]), np.array([[1, 1]])
    a.update(x, y, 255)
    b.update(y, x, 255)
    both.update(x, y, 255)
    both.update(y, x, 255)
    assert np.array_equal((a + b).counts, both.counts)


@pytest.mark.parametrize(
    ("classes", "place", "value"),
    list(itertools.product([2, 40, 2000], ["truth", "prediction"], [-1, 3000, 70000])),
)
def test_what_is_no_class_is_refused(classes, place, value):
    labels = {"truth": np.zeros((2, 2), np.int64), "prediction": np.zeros((2, 2), np.int64)}
    labels[place][1, 0] = value
    with pytest.raises(ConfigError, match=f"label {value}; expected 0 to {classes - 1}"):
        ConfusionMatrix(classes).update(labels["truth"], labels["prediction"], 65535)


def test_shapes_must_agree():
    with pytest.raises(ConfigError, match="equal shapes"):
        ConfusionMatrix(2).update(np.zeros((2, 3), int), np.zeros((3, 2), int), 255)
