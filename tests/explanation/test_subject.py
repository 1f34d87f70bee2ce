"""Which pixel is explained, of which part of which image, and what is known of it."""

import numpy as np
import pytest
import torch
from torch import nn

import fullyconv as fc
from fullyconv.classifiers import Classifier
from fullyconv.errors import ConfigError, ImageError
from fullyconv.explanation import subject as subjects
from fullyconv.explanation.subject import see, window_of
from fullyconv.explanation.uncertainty import entropy, margin
from fullyconv.models import Normalization


class Threshold(fc.SegmentationModel):
    """Class k where the first channel is nearest 100·k: its labels are those the test draws."""

    def __init__(self):
        super().__init__(("ground", "a", "b"), 1, Normalization())
        self.stride = 1

    def scores(self, images):
        return torch.cat([-(images - 100 * k).abs() for k in range(3)], dim=1)


def drawing(height=40, width=60):
    pixels = np.zeros((height, width, 1), np.uint8)
    pixels[5:12, 5:12] = 100  # 49 pixels
    pixels[20:31, 30:51] = 200  # 231, the largest
    pixels[20:25, 5:20] = 200  # 75
    return pixels


def tiny_classifier(classes=5, side=8, step=4):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 4, stride=step), nn.ReLU(), nn.Flatten(), nn.Linear(6 * (side // step) ** 2, classes)
    )
    names = tuple(f"thing {k}" for k in range(classes))
    normalization = Normalization((120.0,), (60.0,)).per_channel(3)
    return Classifier(module.eval(), "timm", "test", (side, side), 3, classes, normalization, names)


def test_the_middle_of_the_largest_object_is_chosen():
    subject = see(Threshold().eval(), drawing(), None)
    assert subject.at[0] == 25
    assert 35 <= subject.at[1] <= 45
    assert subject.names == ("b", "a")
    assert "largest object" in subject.chosen
    assert subject.place == subject.at


def test_an_image_of_one_label_has_a_middle():
    subject = see(Threshold().eval(), np.zeros((9, 21, 1), np.uint8), None)
    assert subject.at == (4, 10)
    assert "one label" in subject.chosen


def test_of_a_large_image_the_part_around_the_pixel_is_explained(monkeypatch):
    monkeypatch.setattr(subjects, "LONGEST", 16)
    pixels = drawing()
    for at in ((0, 0), (39, 59), (25, 40), (3, 30)):
        subject = see(Threshold().eval(), pixels, at)
        assert subject.size == (16, 16)
        assert subject.place == at
        np.testing.assert_array_equal(subject.pixels[subject.at], pixels[at])


@pytest.mark.parametrize("at", [(-1, 0), (0, 60), (40, 0)])
@pytest.mark.parametrize("network", [Threshold().eval(), tiny_classifier()], ids=["pixels", "windows"])
def test_a_pixel_outside_is_refused(network, at):
    pixels = drawing() if isinstance(network, Threshold) else np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(ConfigError, match="40×60"):
        see(network, pixels, at)


def test_images_of_another_type_are_refused():
    with pytest.raises(ImageError, match="uint8"):
        see(Threshold().eval(), drawing().astype(np.float32), None)


def test_an_unpadded_network_sees_a_mirrored_border_and_scores_the_image():
    network = fc.UNet(2, channels=1, widths=(4, 8), padding="valid", norm=None).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 1), dtype=np.uint8)
    subject = see(network, pixels, (3, 7))
    assert subject.labels.shape == (30, 41)
    np.testing.assert_array_equal(subject.shown(subject.image[0, 0].numpy()), pixels[..., 0])
    first, second = subject.best
    scores = subject.scores[0, :, 3, 7]
    assert subject.question.margin == pytest.approx(float(scores[first] - scores[second]), abs=1e-5)
    rows, columns = subject.question.field
    assert rows.start <= 3 + subject.margin < rows.stop
    assert subject.field.rows == (0, rows.stop - subject.margin)
    assert columns.stop - subject.margin >= subject.field.columns[1]


def test_a_classifier_sees_six_by_six_windows():
    classifier = tiny_classifier()
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    subject = see(classifier, pixels, None)
    assert subject.scores.shape == (1, 5, 6, 6)
    assert subject.size == (8 + 5 * 4, 8 + 5 * 4)
    assert subject.scale == pytest.approx(50 / 28)
    # The definition: the classifier on the window itself (this one has no padding).
    i, j = subject.position
    (top, bottom), (left, right) = window_of(subject.network.dense, (i, j))
    crop = (subject.image[..., top:bottom, left:right] - 120) / 60
    with torch.no_grad():
        expected = classifier.module(crop)[0]
    torch.testing.assert_close(subject.scores[0, :, i, j], expected, rtol=1e-4, atol=1e-4)
    best = subject.scores[0].softmax(0).amax(0)
    assert best[i, j] == best.max()
    assert subject.rival == "all classes on average"
    assert subject.question.margin == pytest.approx(float(expected.max() - expected.mean()), abs=1e-4)


@pytest.mark.parametrize("at", [(0, 0), (49, 89), (25, 60), (10, 3)])
def test_a_classifier_s_pixel_is_where_it_was_asked_for(at):
    subject = see(tiny_classifier(), np.zeros((50, 90, 3), np.uint8), at)
    assert all(abs(got - wanted) <= subject.scale for got, wanted in zip(subject.place, at, strict=True))
    assert all(0 <= place < length for place, length in zip(subject.at, subject.size, strict=True))
    assert all(0 <= cell < 6 for cell in subject.position)


def test_entropy_and_margin_of_known_probabilities():
    sure, even, two = [1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]
    probabilities = np.array([sure, even, two], np.float32).T[..., None]
    np.testing.assert_allclose(entropy(probabilities)[:, 0], [0, 1, 0.5], atol=1e-6)
    np.testing.assert_allclose(margin(probabilities)[:, 0], [1, 0, 0], atol=1e-6)
    assert margin(np.array([[[0.7]], [[0.1]], [[0.2]]])).item() == pytest.approx(0.5)
