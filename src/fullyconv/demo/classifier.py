"""A small digit classifier that ends in fully connected layers, for the demonstration to make dense."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from fullyconv.demo.handwriting import CLASSES, Handwriting
from fullyconv.demo.scenes import Scene, draw_scene
from fullyconv.images import to_tensor
from fullyconv.progress import Progress, Quiet

WINDOW = (32, 32)
HEIGHTS = (18.0, 28.0)  # of the digits a window can hold, in pixels

_SIDE = 32
_BATCH = 128
_CENTRED = 3.0  # a window shows a digit when their centres are this close, in rows and in columns
_CLEAR = 8.0  # and shows background when no digit's centre is this close; nothing is taught in between


class DigitClassifier(nn.Module):
    """Tell which digit stands in the middle of a 32×32 window, or that none does.

    In the manner of LeNet-5 (LeCun et al. 1998, §II), without padding: two convolutions with pooling make a
    32×6×6 map, which two fully connected layers turn into 11 scores. The total stride is 4. The input is in
    raw units (0 to 255); the first layer brings them to zero mean and unit variance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalize = nn.BatchNorm2d(3, affine=False)
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(32 * 6 * 6, 128),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(128, len(CLASSES)),
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Score windows N×3×32×32, 0 to 255, as N×11: background, then the digits 0 to 9."""
        scores: torch.Tensor = self.classifier(self.features(self.normalize(windows)))
        return scores


@dataclass(frozen=True)
class DigitWindows:
    """Windows cut from scenes of handwriting.

    Attributes
    ----------
    train_images, test_images
        N×32×32×3, uint8; the test windows show digit images that no training window shows.
    train_labels, test_labels
        N integers: 0 for background, 1 to 10 for the digits 0 to 9.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def digit_classifier_data(seed: int = 0, *, train: int = 15000, test: int = 2000) -> DigitWindows:
    """Cut windows around digits, and one in six beside them, out of freshly drawn scenes.

    Parameters
    ----------
    seed
        The same seed gives the same windows.
    train, test
        How many windows of each kind.
    """
    train_images, train_labels = _cut_windows(False, train, np.random.default_rng([seed, 0]))
    test_images, test_labels = _cut_windows(True, test, np.random.default_rng([seed, 1]))
    return DigitWindows(train_images, train_labels, test_images, test_labels)


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier in evaluation mode, and its accuracy (0 to 1) on windows of digits it never saw."""

    model: DigitClassifier
    accuracy: float


def train_digit_classifier(
    seed: int = 0, *, data: DigitWindows | None = None, epochs: int = 8, progress: Progress | None = None
) -> TrainedClassifier:
    """Train on 32×32 windows with AdamW and a one-cycle schedule; a fraction of a minute on two cores.

    Parameters
    ----------
    seed
        Of the data, the weights at the start, and the order of batches.
    data
        Windows to use; None draws them.
    epochs
        Passes over the training windows.
    progress
        Where news go; None is silent.
    """
    data = data or digit_classifier_data(seed)
    progress = progress or Quiet()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitClassifier().to(memory_format=torch.channels_last)  # a third faster on CPUs
        images, labels = _to_batch(data.train_images), torch.from_numpy(data.train_labels)
        steps = len(labels) // _BATCH
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=epochs * steps)
        for epoch in range(epochs):
            order = torch.randperm(len(labels))[: steps * _BATCH]
            for chosen in order.view(steps, _BATCH):
                loss = F.cross_entropy(model(images[chosen]), labels[chosen])
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
            progress.advance("training the digit classifier", epoch + 1, epochs)
    model.eval()
    return TrainedClassifier(model, accuracy(model, data.test_images, data.test_labels))


def accuracy(model: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return the share, 0 to 1, of windows N×32×32×3 that ``model`` gives their label."""
    with torch.inference_mode():
        predicted = model(_to_batch(images)).argmax(1)
    return float((predicted.numpy() == labels).mean())


def _to_batch(images: NDArray[np.uint8]) -> torch.Tensor:
    batch = torch.stack([to_tensor(image) for image in images])
    return batch.to(memory_format=torch.channels_last)


def _cut_windows(
    held_out: bool, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    handwriting = Handwriting(held_out=held_out)
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    while len(images) < count:
        scene = draw_scene(handwriting, rng, (256, 256), heights=HEIGHTS)
        for row, column, label in _window_places(scene, rng):
            images.append(scene.image[row : row + _SIDE, column : column + _SIDE])
            labels.append(label)
    return np.stack(images[:count]), np.array(labels[:count], np.int64)


def _window_places(scene: Scene, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Top left corners of windows with what they show: near each digit's centre, and away from all."""
    limit = np.array(scene.labels.shape) - _SIDE
    places = []
    for placement in scene.placements:
        corner = np.rint(placement.centre - np.array(_SIDE / 2 - 0.5) + rng.uniform(-_CENTRED, _CENTRED, 2))
        if (corner >= 0).all() and (corner <= limit).all():
            places.append((int(corner[0]), int(corner[1]), placement.digit + 1))
    centres = np.array([placement.centre for placement in scene.placements]).reshape(-1, 2)
    corners = rng.integers(0, limit + 1, (len(places) // 3, 2))
    for row, column in corners:
        distance = np.abs(centres - (row + _SIDE / 2 - 0.5, column + _SIDE / 2 - 0.5)).max(axis=1)
        if (distance > _CLEAR).all():
            places.append((int(row), int(column), 0))
    return places
