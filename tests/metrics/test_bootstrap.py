import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullyconv.metrics import _bootstrap, interval, region_sums, resample, score_regions


def mean(totals):
    return totals[..., 0] / totals[..., 1]


def mean_iu(totals):
    return score_regions(totals)["mean_iu"]


def test_resampling_equals_a_loop_over_images():
    rng = np.random.default_rng(1)
    sums = rng.integers(1, 50, (7, 2, 3))
    drawn = np.random.default_rng(5).multinomial(7, [1 / 7] * 7, 40)
    expected = []
    for counts in drawn:
        total = np.zeros((2, 3))
        for image, count in enumerate(counts):
            for _ in range(count):
                total += sums[image]
        expected.append(total)
    values = resample(sums, resamplings=40, seed=5)
    assert np.array_equal(values, expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30), st.integers(1, 60), st.integers(0, 2**32))
def test_blocks_draw_what_one_draw_would(images, resamplings, seed):
    sums = np.arange(images * 2).reshape(images, 2)
    whole = resample(sums, resamplings=resamplings, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bootstrap, "_DRAWN_AT_ONCE", 64)
        parts = resample(sums, resamplings=resamplings, seed=seed)
    assert np.array_equal(whole, parts)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    """For a mean of normal numbers, where the truth is known; percentiles of 40 are a little short."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        values = rng.normal(3.0, 1.0, 40)
        low, high = interval(mean(resample(np.stack([values, np.ones(40)], 1), resamplings=400, seed=trial)))
        held += bool(low <= 3.0 <= high)
    assert 0.90 < held / 300 < 0.975


def test_one_image_and_equal_images_have_no_spread():
    for sums in (np.array([[3, 4]]), np.array([[3, 4]] * 9)):
        assert interval(mean(resample(sums, resamplings=50))) == (0.75, 0.75)


def test_the_same_seed_pairs_two_models_and_another_seed_does_not():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 100, (30, 2, 2))
    better = first + np.eye(2, dtype=int) * 40
    values = [mean_iu(resample(region_sums(counts), seed=3)) for counts in (first, better)]
    paired = np.std(values[1] - values[0])
    unpaired = np.std(values[1] - values[0][::-1])
    assert paired < unpaired / 1.3
    again = mean_iu(resample(region_sums(first), seed=3))
    other = mean_iu(resample(region_sums(first), seed=4))
    assert np.array_equal(again, values[0])
    assert not np.array_equal(other, values[0])


def test_a_class_of_one_image_is_judged_by_the_resamplings_that_have_it():
    counts = np.zeros((5, 2, 2), int)
    counts[:, 0, 0] = 10
    counts[0, 1] = 2, 6
    values = score_regions(resample(region_sums(counts)))["class_iu"]
    assert 0.2 < np.isnan(values[:, 1]).mean() < 0.5
    low, high = interval(values)
    assert (low[1], high[1]) == (0.75, 0.75)
    low, high = interval(np.full((4, 1), np.nan))
    assert np.isnan([*low, *high]).all()
