"""Overlap-tile prediction of unpadded networks: any size, every pixel, tiled as whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fullyconv.engines import PrecisionChoice
from fullyconv.inference import predict
from fullyconv.inference.mirrored import MirroredImage
from fullyconv.inference.sources import ArraySource
from fullyconv.models import Normalization, UNet


@pytest.fixture(scope="module")
def unpadded():
    """A published U-Net with few channels: margin 92, stride 16."""
    torch.manual_seed(0)
    normalization = Normalization((100.0,), (50.0,))
    model = UNet.published(3, 2, widths=(2, 3, 4, 4, 4), normalization=normalization).eval()
    with torch.no_grad():
        model.head.weight.normal_()  # spread the scores, so that labels vary
    return model


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 2)).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_the_mirrored_image_fits_the_network_and_is_numpy_s_reflection(height, width):
    with torch.device("meta"):
        model = UNet(2, 2, widths=(1, 1, 1), padding="valid")
    image = noise(height, width)
    seen = MirroredImage(ArraySource(image), model)
    assert model.valid_output_size(seen.size) == seen.scored
    below, right = (n - m - model.margin for n, m in zip(seen.size, image.shape[:2], strict=True))
    padded = np.pad(image, ((model.margin, below), (model.margin, right), (0, 0)), mode="reflect")
    assert (seen.read(np.s_[:, :]) == padded).all()
    part = np.s_[3:30, 7:31]
    assert (seen.read(part) == padded[part]).all()


def test_a_network_that_scores_all_it_sees_reads_the_image_itself():
    image = noise(5, 7)
    seen = MirroredImage(ArraySource(image), UNet(2, 2, widths=(2, 2)))
    assert seen.size == seen.scored == (5, 7)
    assert np.shares_memory(seen.read(np.s_[1:3, :]), image)


@pytest.mark.parametrize("size", [(1, 1), (3, 120), (64, 51)])
def test_every_pixel_is_predicted_from_the_mirrored_image(unpadded, size):
    image = noise(*size)
    prediction = predict(unpadded, image, precision="f32", probabilities=True)
    assert prediction.labels.shape == size
    assert prediction.probabilities.shape == (*size, 3)
    mirrored = np.pad(image, ((92, 110), (92, 110), (0, 0)), mode="reflect")
    height, width = (needed - (needed + 4) % 16 for needed in mirrored.shape[:2])
    with torch.inference_mode():
        scores = unpadded(torch.from_numpy(mirrored[:height, :width]).permute(2, 0, 1)[None].float())[0]
    expected = scores.softmax(0).permute(1, 2, 0).numpy()[: size[0], : size[1]]
    assert np.abs(prediction.probabilities - expected).max() < 1e-5


@pytest.mark.parametrize("size", [(150, 103), (20, 200)])
def test_tiles_give_what_the_whole_image_gives(unpadded, size):
    image = noise(*size)
    whole = predict(unpadded, image, precision="f32", tile=None, probabilities=True)
    tiled = predict(unpadded, image, precision="f32", tile=268, probabilities=True)
    assert np.abs(whole.probabilities - tiled.probabilities).max() < 1e-5
    assert len(np.unique(whole.labels)) > 1


def test_precisions_are_compared_on_a_window_that_fits(unpadded, monkeypatch):
    compared = []
    monkeypatch.setattr(
        "fullyconv.inference.runners.choose_precision",
        lambda model, window, **_: (compared.append(window.shape), PrecisionChoice("f32", 1.0))[1],
    )
    assert predict(unpadded, noise(30, 400)).labels.shape == (30, 400)
    ((height, width, channels),) = compared
    assert unpadded.valid_output_size((height, width)) >= (30, 256)
    assert channels == 2
