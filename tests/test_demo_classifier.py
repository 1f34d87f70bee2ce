"""The demonstration's digit classifier and its windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fullyconv.demo.classifier import (
    WINDOW,
    DigitClassifier,
    DigitWindows,
    _window_places,
    accuracy,
    digit_classifier_data,
    train_digit_classifier,
)
from fullyconv.demo.scenes import Placement, Scene


@pytest.fixture(scope="module")
def windows() -> DigitWindows:
    return digit_classifier_data(0, train=600, test=200)


def test_windows_have_their_shapes_and_every_class(windows: DigitWindows) -> None:
    assert windows.train_images.shape == (600, *WINDOW, 3)
    assert windows.train_images.dtype == np.uint8
    assert windows.test_images.shape == (200, *WINDOW, 3)
    assert set(windows.train_labels) == set(range(11))
    assert 0.1 < (windows.train_labels == 0).mean() < 0.35


def test_windows_are_reproducible(windows: DigitWindows) -> None:
    again = digit_classifier_data(0, train=600, test=200)
    assert np.array_equal(windows.train_images, again.train_images)
    assert not np.array_equal(
        windows.train_images, digit_classifier_data(1, train=600, test=200).train_images
    )


def test_a_window_shows_what_its_label_says() -> None:
    """A digit's centre lies within three pixels of its window's centre, and beyond eight of background's."""
    place = Placement(digit=4, centre=(100.0, 100.0), height=20)
    blank = np.zeros((200, 200), np.uint8)
    scene = Scene(np.zeros((200, 200, 3), np.uint8), blank, (place,) * 30)
    labels = set()
    for row, column, label in _window_places(scene, np.random.default_rng(0)):
        distance = np.abs(np.array([row, column]) + 15.5 - 100).max()
        assert distance <= 3.5 if label == 5 else distance > 8
        labels.add(label)
    assert labels == {0, 5}


def test_the_classifier_is_unpadded_and_takes_raw_units(windows: DigitWindows) -> None:
    model = DigitClassifier().eval()
    with torch.inference_mode():
        assert model.features(torch.zeros(1, 3, 32, 32)).shape == (1, 32, 6, 6)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 11)
    assert not any(layer.padding not in (0, (0, 0)) for layer in model.features if hasattr(layer, "padding"))
    model.train()
    raw = torch.from_numpy(windows.train_images[:64]).permute(0, 3, 1, 2).float()
    assert model.normalize(raw).mean().abs() < 0.01


def test_accuracy_counts() -> None:
    class SaysTwo(torch.nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            return torch.eye(11)[2].expand(len(windows), 11)

    images = np.zeros((4, 32, 32, 3), np.uint8)
    assert accuracy(SaysTwo(), images, np.array([2, 2, 0, 2])) == 0.75


def test_training_learns_repeats_itself_and_leaves_the_global_seed_alone(windows: DigitWindows) -> None:
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    first = train_digit_classifier(0, data=windows, epochs=10)
    assert torch.rand(1) == expected
    again = train_digit_classifier(0, data=windows, epochs=10)
    assert first.accuracy == again.accuracy > 0.4  # one in eleven by chance
    for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not first.model.training


@pytest.mark.slow
def test_the_demonstration_s_classifier_is_good() -> None:
    assert train_digit_classifier(0).accuracy > 0.97
