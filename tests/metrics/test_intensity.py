import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullyconv.metrics import ConfusionMatrix, IntensityHistogram
from fullyconv.metrics._intensity import _levels


def mean_iu(truth, prediction):
    matrix = ConfusionMatrix(2)
    matrix.update(truth, prediction, 255)
    return matrix.scores().mean_iu


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_threshold_is_better(data):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=8))
    image = data.draw(hnp.arrays(np.uint8, (*shape, 2), elements=st.integers(0, 20)))
    truth = data.draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])))
    if (truth == 255).all():
        truth[0, 0] = 0
    histogram = IntensityHistogram()
    histogram.update(image, truth, 255)
    best = histogram.best_threshold()
    total = image.sum(2)
    every = max(
        mean_iu(truth, ((total >= limit) ^ dark).astype(np.uint8)) for limit in range(43) for dark in (0, 1)
    )
    assert mean_iu(truth, best.predict(image)) == pytest.approx(every)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("brighter", [0, 1])
def test_any_type_and_either_polarity(dtype, brighter):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (30, 40)).astype(np.uint8)
    low, high = (-90, -10) if np.dtype(dtype).kind in "if" else (10, 90)
    values = np.where(truth == brighter, high, low) + rng.integers(-9, 10, truth.shape)
    histogram = IntensityHistogram()
    histogram.update(values[..., None].astype(dtype), truth, 255)
    best = histogram.best_threshold()
    assert best.brighter == brighter
    assert low + 9 < best.value(1) <= high + 9
    assert np.array_equal(best.predict(values[..., None].astype(dtype)), truth)


def test_the_value_is_where_the_brighter_begin():
    image = np.array([[[10, 20, 30], [10, 20, 31]]], np.uint8)
    histogram = IntensityHistogram()
    histogram.update(image, np.array([[0, 1]]), 255)
    assert histogram.best_threshold().value(3) == pytest.approx(61 / 3)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=20))
def test_levels_keep_the_order_of_floats(values):
    ordered = np.sort(np.array(values, np.float32))
    levels = _levels(ordered[None, :, None])[0]
    assert (np.diff(levels) >= 0).all()
    assert levels.min() >= 0
    assert levels.max() < 1 << 18


def test_whole_numbers_to_1024_are_told_apart():
    levels = _levels(np.arange(-1024, 1025)[None, :, None].astype(np.int16))
    assert (np.diff(levels) > 0).all()


def test_an_image_of_one_class_is_answered_by_it():
    histogram = IntensityHistogram()
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    histogram.update(image, np.ones((3, 4), int), 255)
    assert (histogram.best_threshold().predict(image) == 1).all()
