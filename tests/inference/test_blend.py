"""Blended tiles: weights that sum to one, the same bands whichever are asked for."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fullyconv.errors import ConfigError
from fullyconv.inference import Predictor, plan_tiles
from fullyconv.inference.blend import band, blend
from fullyconv.models import UNet
from fullyconv.progress import Quiet
from fullyconv.receptive_fields import trace_geometry

torch.manual_seed(0)
MODEL = UNet(2, 1, widths=(4, 8), norm="instance").eval()
GEOMETRY = trace_geometry(MODEL, 1)


def plan_of(size, tile, align=1):
    try:
        plan = plan_tiles(GEOMETRY, size, tile, align=align)
    except ConfigError:
        assume(False)
    assume(plan.count > 1)
    assert not plan.exact
    return plan


def shares(window):
    """Values of their own for each pixel, whatever tile it is seen in."""
    values = window[..., 0].astype(np.float32) / 255
    return np.stack([values, 1 - values], axis=2)


def blended(plan, image, wanted, run=lambda windows: map(shares, windows), align=1):
    return list(blend(plan, lambda part: image[part], run, wanted, align))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(20, 90), st.sampled_from([1, 7, 16]))
def test_what_tiles_agree_on_stays_and_bands_partition_the_image(height, width, tile, align):
    plan = plan_of((height, width), tile, align)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 1)).astype(np.uint8)
    bands = blended(plan, image, range(plan.rows.count), align=align)
    assert [where.rows.start % align for _, where, _ in bands] == [0] * len(bands)
    whole = np.concatenate([values for _, _, values in bands])
    assert whole.shape == (height, width, 2)
    assert np.abs(whole - shares(image)).max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(st.integers(60, 150), st.integers(20, 60), st.sampled_from([1, 16]), st.data())
def test_a_band_is_the_same_whichever_are_wanted(height, tile, align, data):
    plan = plan_of((height, 70), tile, align)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, 70, 1)).astype(np.uint8)

    def run(windows):
        """Answers that differ from tile to tile, as those of a network with global context do."""
        return (shares(window) * (1 + window.mean() / 100) for window in windows)

    every = blended(plan, image, range(plan.rows.count), run, align)
    some = data.draw(st.lists(st.sampled_from(range(plan.rows.count)), unique=True).map(sorted))
    for (number, where, values), wanted in zip(blended(plan, image, some, run, align), some, strict=True):
        assert number == wanted
        assert where == every[wanted][1]
        assert np.array_equal(values, every[wanted][2])


def test_bands_are_final_only_where_no_later_tile_reaches():
    plan = plan_tiles(GEOMETRY, (300, 40), 64)
    for row in range(plan.rows.count - 1):
        assert band(plan.rows, row, 16).stop <= plan.rows.begins(row + 1)
    assert band(plan.rows, plan.rows.count - 1, 16).stop == 300


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_network_that_sees_the_whole_image_is_blended_named_and_called_approximate(probabilities):
    class Heard(Quiet):
        lines = ()

        def say(self, line):
            self.lines += (line,)

    heard = Heard()
    image = np.random.default_rng(0).integers(0, 256, (150, 130, 1)).astype(np.uint8)
    predictor = Predictor(MODEL, engine="torch", precision="f32", tile=64, progress=heard)
    prediction = predictor.predict(image, probabilities=probabilities)
    assert not prediction.exact
    assert all("depends on the whole image" in reason for reason in prediction.reasons)
    assert "approximate" in heard.lines[0]
    whole = Predictor(MODEL, engine="torch", precision="f32", tile=None).predict(image)
    assert whole.exact
    assert prediction.labels.shape == whole.labels.shape
    if probabilities:
        assert np.abs(prediction.probabilities.sum(2) - 1).max() < 1e-5
        assert np.array_equal(prediction.probabilities.argmax(2), prediction.labels)
