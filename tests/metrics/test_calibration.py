import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from fullyconv.metrics import calibration_sums, score_calibration


def softmax(rng, *shape, sharpness=2.0):
    scores = np.exp(sharpness * rng.normal(size=shape))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_error_equals_torchmetrics(seed, classes):
    rng = np.random.default_rng(seed)
    probabilities = softmax(rng, 13, 17, classes)
    truth = rng.integers(0, classes, (13, 17))
    ours = score_calibration(calibration_sums(probabilities, truth, 255))["expected_calibration_error"]
    theirs = multiclass_calibration_error(
        torch.from_numpy(probabilities.reshape(-1, classes)), torch.from_numpy(truth.ravel()), classes
    )
    assert ours == pytest.approx(float(theirs), abs=1e-5)


def test_sums_equal_loops_and_images_add_up():
    rng = np.random.default_rng(0)
    images = [(softmax(rng, 9, 8, 3), rng.choice([0, 1, 2, 255], (9, 8))) for _ in range(2)]
    expected = np.zeros((15, 3))
    for probabilities, truth in images:
        for row, column in np.ndindex(truth.shape):
            if truth[row, column] == 255:
                continue
            answer = probabilities[row, column].argmax()
            confidence = probabilities[row, column, answer]
            place = next(k for k in range(15) if confidence <= np.float32((k + 1) / 15))
            expected[place] += 1, answer == truth[row, column], confidence
    assert sum(calibration_sums(*image, 255) for image in images) == pytest.approx(expected)


def test_a_network_that_is_right_as_often_as_it_says_has_no_error():
    probabilities = np.empty((1000, 10, 2), np.float32)
    probabilities[..., 1], probabilities[..., 0] = 0.8, 0.2
    truth = np.zeros((1000, 10), int)
    truth[:, :8] = 1
    scores = score_calibration(calibration_sums(probabilities, truth, 255))
    assert scores["expected_calibration_error"] == pytest.approx(0, abs=1e-6)
    truth[:] = 0
    scores = score_calibration(calibration_sums(probabilities, truth, 255))
    assert scores["expected_calibration_error"] == pytest.approx(0.8)
    assert scores["bin_pixels"][11] == 10000  # (11/15, 12/15]


def test_nothing_counted_gives_no_number():
    sums = calibration_sums(np.ones((2, 2, 2), np.float32), np.full((2, 2), 255), 255)
    assert np.isnan(score_calibration(sums)["expected_calibration_error"])
