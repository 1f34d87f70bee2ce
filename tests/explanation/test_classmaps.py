"""Heatmaps: where they lie, what they add up to, and that they find the thing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fullyconv.classifiers import load_classifier
from fullyconv.errors import ConfigError, GeometryError, ImageError
from fullyconv.explanation import heatmaps
from fullyconv.images import write_image
from fullyconv.inference import predict
from fullyconv.surgery import convolutionalize


def brightness_classifier(classes=3):
    """The mean brightness of a 9×9 window decides for class 1, its darkness for class 0; stride 2."""
    net = nn.Sequential(
        nn.Conv2d(3, 1, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, classes)
    )
    with torch.no_grad():
        net[0].weight.fill_(1 / 3)
        net[0].bias.zero_()
        net[3].weight.copy_(torch.linspace(-0.05, 0.05, classes)[:, None].roll(1 - classes // 2 - 1, 0))
        net[3].bias.copy_(-128 * net[3].weight[:, 0])
    return net.eval()


@pytest.fixture(scope="module")
def dense():
    return convolutionalize(brightness_classifier(), (9, 9), class_names=("gray", "bright", "dark"))


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return replace(load_classifier("timm/test_convnext", weights="none"), input_size=(64, 64))


def noise(*size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(9, 40), st.integers(9, 40))
def test_maps_have_the_size_of_the_image_and_lie_on_the_windows(height, width):
    net = convolutionalize(brightness_classifier(), (9, 9))
    result = heatmaps(net, noise(height, width), classes=[1, 0])
    cells = (height - 9) // 2 + 1, (width - 9) // 2 + 1
    assert result.scores.shape == result.probabilities.shape == (3, *cells)
    assert result.maps.shape == (2, height, width)
    assert result.labels.shape == (height, width)
    # The window of cell (i, j) has its centre at pixel (4 + 2i, 4 + 2j).
    centres = result.maps[:, 4::2, 4::2][:, : cells[0], : cells[1]]
    np.testing.assert_allclose(centres, result.probabilities[[1, 0]], atol=1e-6)
    np.testing.assert_array_equal(result.labels[4::2, 4::2][: cells[0], : cells[1]], result.scores.argmax(0))
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert result.shares.sum() == pytest.approx(1, abs=1e-5)


def test_a_bright_square_is_found_where_it_is(dense):
    image = np.full((60, 80, 3), 20, np.uint8)
    image[30:42, 50:62] = 250
    result = heatmaps(dense, image, classes=["Bright"])
    row, column = np.unravel_index(result.maps[0].argmax(), result.maps[0].shape)
    assert 32 <= row <= 40
    assert 52 <= column <= 60
    assert result.class_names[result.labels[36, 56]] == "bright"
    assert result.class_names[result.labels[5, 5]] == "dark"
    assert result.top(1)[0][0] == "dark"


def test_on_an_image_of_one_window_it_is_the_classifier(classifier):
    image = noise(64, 64)
    result = heatmaps(classifier, image, shorter_side=64)
    model = classifier.to_model()
    with torch.no_grad():
        shares = model(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0, :, 0, 0].softmax(0)
    np.testing.assert_allclose(result.shares, shares, atol=1e-6)
    assert result.top(3) == [
        (classifier.class_names[k], pytest.approx(float(shares[k]), abs=1e-6)) for k in shares.topk(3).indices
    ]


def test_labels_are_those_of_the_model_file(classifier):
    """A thousand classes, taken a few at a time here and all together there."""
    image = noise(100, 130)
    result = heatmaps(classifier, image, shorter_side=None)
    prediction = predict(classifier.to_model(), image, precision="f32")
    assert (result.labels == prediction.labels).mean() > 0.9999
    assert result.labels.dtype == np.uint16


def test_photographs_are_seen_at_twice_a_window_and_networks_see_pixels_as_they_are(classifier, dense):
    image = noise(90, 45)
    result = heatmaps(classifier, image)
    assert result.seen_size == (256, 128)
    assert result.maps.shape[1:] == result.labels.shape == (90, 45)
    assert heatmaps(dense, image).seen_size == (90, 45)
    assert heatmaps(dense, image, shorter_side=30).seen_size == (60, 30)


def test_resizing_keeps_things_in_their_place(dense):
    image = np.full((60, 80, 3), 20, np.uint8)
    image[20:50, 10:40] = 250
    result = heatmaps(dense, image, classes=["bright"], shorter_side=120)
    rows, columns = np.nonzero(result.maps[0] > result.maps[0].max() / 2)
    assert rows.mean() == pytest.approx(34.5, abs=1)
    assert columns.mean() == pytest.approx(24.5, abs=1)


def test_a_finer_stride_keeps_the_coarse_scores(classifier):
    image = noise(128, 160)
    coarse, fine = (heatmaps(classifier, image, shorter_side=None, output_stride=s) for s in (None, 16))
    assert fine.stride == (16, 16)
    np.testing.assert_allclose(fine.scores[:, ::2, ::2], coarse.scores, atol=1e-4)


def test_classes_are_found_by_any_case_by_number_and_once(dense):
    result = heatmaps(dense, noise(20, 20), classes=["DARK", " bright", 2, "2"])
    assert result.chosen == (2, 1)


def test_all_unknown_classes_are_named_with_near_ones(classifier):
    with pytest.raises(ConfigError) as caught:
        heatmaps(classifier, noise(64, 64), classes=["tabby", "tiger catt", "retriever", "qqqq", 1000])
    message = str(caught.value)
    assert "'tiger catt' (perhaps tiger cat" in message
    assert "golden retriever" in message
    assert "'qqqq'" in message
    assert "'1000'" in message
    assert "'tabby'" not in message


def test_indices_name_classes_that_have_no_names():
    net = convolutionalize(brightness_classifier(40), (9, 9))
    result = heatmaps(net, noise(20, 30), classes=["class 3", 39])
    assert result.chosen == (3, 39)
    fine = result.scores.reshape(40, -1).argmax(0).reshape(result.scores.shape[1:])
    np.testing.assert_array_equal(result.labels[4::2, 4::2][: fine.shape[0], : fine.shape[1]], fine)


@pytest.mark.parametrize("options", [{"top": 0}, {"top": 25}, {"shorter_side": 0}, {"output_stride": 3}])
def test_numbers_out_of_range_are_refused(dense, options):
    with pytest.raises(ConfigError):
        heatmaps(dense, noise(20, 20), **options)


def test_images_the_classifier_does_not_take_are_refused(classifier, dense):
    with pytest.raises(ImageError, match="uint8"):
        heatmaps(classifier, noise(64, 64).astype(np.uint16))
    with pytest.raises(GeometryError, match="9×9"):
        heatmaps(dense, noise(8, 30))


def test_modes_gray_and_paths(dense, tmp_path):
    dense.train()
    gray = noise(20, 24)[..., 0]
    result = heatmaps(dense, gray)
    assert dense.training
    dense.eval()
    write_image(tmp_path / "a.png", np.repeat(gray[..., None], 3, 2))
    np.testing.assert_array_equal(heatmaps(dense, tmp_path / "a.png").scores, result.scores)


def test_it_says_what_it_saw(dense):
    result = heatmaps(dense, noise(20, 24))
    assert str(result).startswith("9×9 windows every 2 pixels of 20×24: 6×8×3 scores\n")
    said = result.to_dict()
    json.dumps(said, allow_nan=False)
    assert [entry["class"] for entry in said["top"]] == [name for name, _ in result.top()]
    assert said["windows"] == [6, 8]


@pytest.mark.slow
def test_photographs_show_what_their_names_say(shared_data):
    weights = shared_data / "weights" / "squeezenet1_1_imagenet.safetensors"
    classifier = load_classifier("squeezenet1_1", weights=weights)
    photos = sorted((shared_data / "photos").glob("*.jpg"))
    assert len(photos) == 14
    for photo in photos:
        name = " ".join(photo.stem.split("_")[1:])
        result = heatmaps(classifier, photo, classes=[name])
        assert name in [best for best, _ in result.top(2)], name
        assert result.maps.max() > 0.4, name
