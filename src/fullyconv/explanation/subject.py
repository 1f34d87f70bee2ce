"""What is explained: a network, an image as it sees it, and one pixel of that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import floor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from fullyconv import images
from fullyconv.classifiers import Classifier
from fullyconv.errors import ConfigError
from fullyconv.explanation.drawing import Box, Pixels, Point, Size, grayed, photograph
from fullyconv.explanation.evidence import Question
from fullyconv.labels import ClassTable, Labels
from fullyconv.models import SegmentationModel
from fullyconv.models.dense import spread
from fullyconv.surgery import DenseClassifier, convolutionalize

LONGEST = 768
"""Most pixels along a side that are explained: of a larger image, the part around the pixel."""

CELLS = 6
"""Positions along each side at which a classifier is explained: 384 pixels, for windows of 224 every 32."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, the image it sees, and the pixel whose label is explained.

    Parameters
    ----------
    model
        What was given.
    network
        N×C×H×W in raw units → N×K×h×w, in evaluation mode.
    given
        The image as it was given, H×W×C.
    pixels
        The explained part of the image, H×W×C.
    origin, scale
        (row, column) of its first pixel in the image, counted in seen pixels, and the image's pixels per one
        of them.
    image
        1×C×H'×W', as the network takes it; larger than ``pixels`` only for an unpadded network.
    scores
        1×K×h×w.
    at
        (row, column) of the pixel, in ``pixels``.
    chosen
        Why this one.
    """

    model: SegmentationModel | Classifier
    network: nn.Module
    given: NDArray[Any]
    pixels: NDArray[Any]
    origin: tuple[int, int]
    scale: float
    image: Tensor
    scores: Tensor
    at: tuple[int, int]
    chosen: str

    @property
    def size(self) -> Size:
        """(height, width) of what is explained."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def classes(self) -> ClassTable:
        """Names and colours of the classes."""
        if isinstance(self.model, SegmentationModel):
            return self.model.classes
        return ClassTable.of(self.model.class_names or self.model.classes)

    @cached_property
    def photo(self) -> Pixels:
        """The image for a screen, H×W×3."""
        return photograph(self.pixels)

    @cached_property
    def gray(self) -> Pixels:
        """The same without colours, to lay colours over."""
        return grayed(self.photo)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the scores, K×h×w."""
        return self.scores[0].softmax(0).numpy()

    @cached_property
    def labels(self) -> Labels:
        """The class of the largest score, h×w."""
        return self.scores[0].argmax(0).numpy()

    @property
    def mark(self) -> Point:
        """The pixel, to be drawn."""
        return Point(*self.at)

    @property
    def place(self) -> tuple[int, int]:
        """The pixel's (row, column) in the image that was given."""
        row, column = (
            floor((place + start + 0.5) * self.scale)
            for place, start in zip(self.at, self.origin, strict=True)
        )
        return row, column

    @property
    def named_place(self) -> str:
        """The same in words."""
        return f"row {self.place[0]}, column {self.place[1]}"

    @property
    def position(self) -> tuple[int, int]:
        """Where in the scores its own are; of a classifier, those of the window with the nearest centre."""
        if isinstance(self.model, SegmentationModel):
            return self.at
        return _nearest_cell(self.network, self.at, (self.scores.shape[-2], self.scores.shape[-1]))

    @cached_property
    def best(self) -> tuple[int, int]:
        """The class of the pixel, or window, and the next best."""
        first, second = self.scores[0, :, *self.position].topk(2).indices.tolist()
        return first, second

    @property
    def names(self) -> tuple[str, str]:
        """Their names."""
        first, second = (self.classes.names[k] for k in self.best)
        return first, second

    @cached_property
    def question(self) -> Question:
        """Why the pixel has its class rather than the next best; a window, rather than any."""
        pixels = isinstance(self.model, SegmentationModel)
        against = self.best[1] if pixels else None
        return Question(
            self.network, self.image, self.position, (self.best[0], against), pixels and not self.margin
        )

    @property
    def rival(self) -> str:
        """What the question compares with."""
        return self.names[1] if self.question.classes[1] is not None else "all classes on average"

    @property
    def thing(self) -> str:
        """What is explained, in a word."""
        return "pixel" if isinstance(self.model, SegmentationModel) else "window"

    def shown(self, values: NDArray[Any]) -> NDArray[Any]:
        """Cut a map of what the network was given to what is explained."""
        start = self.margin
        return values[start : start + self.size[0], start : start + self.size[1]]

    @property
    def margin(self) -> int:
        """Pixels that the network was given before the first that is explained."""
        return self.model.margin if isinstance(self.model, SegmentationModel) else 0

    @property
    def field(self) -> Box:
        """What of the explained image the pixel depends on."""
        rows, columns = (
            (max(seen.start - self.margin, 0), min(seen.stop - self.margin, length))
            for seen, length in zip(self.question.field, self.size, strict=True)
        )
        return Box(rows, columns, dashed=True)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Bring values h×w of the scores to the image's H×W: those of windows are interpolated."""
        if isinstance(self.network, Raw):
            dense = self.network.dense
            maps = torch.from_numpy(values)[None, None]
            return spread(maps, dense.input_size, dense.stride, self.size)[0, 0].numpy()
        return values


def see(model: SegmentationModel | Classifier, pixels: NDArray[Any], at: tuple[int, int] | None) -> Subject:
    """Run a network on an image, and choose the pixel where none is given.

    Parameters
    ----------
    model
        A network, or a classifier, which is made to slide over the image at 6×6 positions.
    pixels
        H×W×C.
    at
        (row, column) of the pixel.

    Raises
    ------
    ConfigError
        ``at`` lies outside the image.
    ImageError
        The image's channels or type are not the network's.
    """
    size = pixels.shape[0], pixels.shape[1]
    if at is not None and not all(0 <= place < length for place, length in zip(at, size, strict=True)):
        raise ConfigError(
            f"the pixel at row {at[0]}, column {at[1]} of an image of {size[0]}×{size[1]}",
            f"a row from 0 to {size[0] - 1} and a column from 0 to {size[1] - 1}",
            "correct --at, or leave it out",
        )
    if isinstance(model, Classifier):
        return _see_windows(model, pixels, at)
    return _see_pixels(model, pixels, at)


@torch.no_grad()
def _see_pixels(model: SegmentationModel, pixels: NDArray[Any], at: tuple[int, int] | None) -> Subject:
    pixels, _ = images.conform(pixels, model.channels, model.normalization.dtype)
    centre = at or (pixels.shape[0] // 2, pixels.shape[1] // 2)
    part, origin = _around(pixels, centre, LONGEST)
    size = part.shape[0], part.shape[1]
    image = images.to_tensor(_mirrored(part, model.valid_input_size(size), model.margin))[None]
    network = Cut(model, size) if model.margin else model
    scores = network(image)
    chosen = "as you asked"
    if at is None:
        at, chosen = _middle_of_largest(scores[0].argmax(0).numpy())
    else:
        at = at[0] - origin[0], at[1] - origin[1]
    return Subject(model, network, pixels, part, origin, 1.0, image, scores, at, chosen)


class Cut(nn.Module):
    """An unpadded network whose scores are cut to the image, where its mirrored border had to be larger."""

    def __init__(self, model: SegmentationModel, size: Size) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel of the image without its mirrored border."""
        scores: Tensor = self.model(image)
        return scores[..., : self.size[0], : self.size[1]]


def _mirrored(pixels: NDArray[Any], size: Size, margin: int) -> NDArray[Any]:
    """Mirror an image at its border up to a size an unpadded network takes."""
    if not margin:
        return pixels
    beyond = [(margin, wanted - margin - has) for wanted, has in zip(size, pixels.shape[:2], strict=True)]
    return np.pad(pixels, [*beyond, (0, 0)], mode="reflect")


def _around(pixels: NDArray[Any], at: tuple[int, int], longest: int) -> tuple[NDArray[Any], tuple[int, int]]:
    """Return the part of an image around a pixel, no side longer than ``longest``, and where it starts."""
    top, left = (
        max(0, min(place - longest // 2, length - longest))
        for place, length in zip(at, pixels.shape[:2], strict=True)
    )
    return pixels[top : top + longest, left : left + longest], (top, left)


def _middle_of_largest(labels: Labels) -> tuple[tuple[int, int], str]:
    """Return the pixel deepest inside the largest region that is not of the most frequent class, and why."""
    counts = np.bincount(labels.ravel())
    counts[counts.argmax()] = 0
    found = [ndimage.label(labels == k)[0] for k in np.flatnonzero(counts)]
    regions = [part == 1 + np.bincount(part.ravel())[1:].argmax() for part in found]
    if not regions:
        middle = labels.shape[0] // 2, labels.shape[1] // 2
        return middle, "the middle of the image, which has one label everywhere"
    largest = max(regions, key=np.count_nonzero)
    # The border of the image is an outline too.
    depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
    row, column = divmod(int(depth.argmax()), depth.shape[1])
    return (row, column), "the middle of the largest object: of a region, the most frequent class aside"


@torch.no_grad()
def _see_windows(classifier: Classifier, pixels: NDArray[Any], at: tuple[int, int] | None) -> Subject:
    pixels, _ = images.conform(pixels, classifier.channels, classifier.normalization.dtype)
    dense = convolutionalize(
        classifier.module,
        classifier.input_size,
        pad=True,
        channels=classifier.channels,
        class_names=classifier.class_names,
    ).eval()
    size = _six_by_six(dense)
    scale = min(length / wanted for length, wanted in zip(pixels.shape[:2], size, strict=True))
    height, width = (
        max(wanted, round(length / scale)) for length, wanted in zip(pixels.shape[:2], size, strict=True)
    )
    tensor = F.interpolate(images.to_tensor(pixels)[None], (height, width), mode="bilinear", antialias=True)
    seen = images.from_tensor(tensor[0].round()).astype(pixels.dtype)
    centre = (height // 2, width // 2) if at is None else tuple(int((place + 0.5) / scale) for place in at)
    top, left = (
        max(0, min(place - wanted // 2, length - wanted))
        for place, wanted, length in zip(centre, size, (height, width), strict=True)
    )
    part = seen[top : top + size[0], left : left + size[1]]
    network = Raw(dense, classifier.normalization.per_channel(classifier.channels)).eval()
    image = images.to_tensor(part)[None]
    scores = network(image)
    if at is None:
        best = scores[0].softmax(0).amax(0)
        here = cell_centre(dense, divmod(int(best.argmax()), best.shape[1]))
        chosen = "the centre of the window that the classifier is most sure of"
    else:
        here = min(centre[0] - top, size[0] - 1), min(centre[1] - left, size[1] - 1)
        chosen = "as you asked; explained is the window whose centre is nearest"
    return Subject(classifier, network, pixels, part, (top, left), scale, image, scores, here, chosen)


class Raw(nn.Module):
    """A dense classifier of images in raw units."""

    def __init__(self, dense: DenseClassifier, normalization: Any) -> None:
        super().__init__()
        self.dense = dense
        for name in ("mean", "std"):
            values = torch.tensor(getattr(normalization, name), dtype=torch.float32)
            self.register_buffer(name, values.view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Score N×C×H×W at every position."""
        scores: Tensor = self.dense(self.normalized(images))
        return scores

    def normalized(self, images: Tensor) -> Tensor:
        """Return images as the classifier was trained on them."""
        return (images - self.mean) / self.std  # type: ignore[operator]  # buffers are typed as modules, too


def cell_centre(dense: DenseClassifier, cell: tuple[int, int]) -> tuple[int, int]:
    """Return the pixel at the centre of a window."""
    row, column = (
        k * step + (side - 1) // 2 for k, step, side in zip(cell, dense.stride, dense.input_size, strict=True)
    )
    return row, column


def window_of(dense: DenseClassifier, cell: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and the columns, each (start, stop), of a window."""
    rows, columns = (
        (k * step, k * step + side)
        for k, step, side in zip(cell, dense.stride, dense.input_size, strict=True)
    )
    return rows, columns


def _nearest_cell(network: nn.Module, at: tuple[int, int], cells: Size) -> tuple[int, int]:
    assert isinstance(network, Raw)
    dense = network.dense
    row, column = (
        min(max(0, round((place - (side - 1) / 2) / step)), count - 1)
        for place, side, step, count in zip(at, dense.input_size, dense.stride, cells, strict=True)
    )
    return row, column


def _six_by_six(dense: DenseClassifier) -> Size:
    height, width = (
        side + (CELLS - 1) * step for side, step in zip(dense.input_size, dense.stride, strict=True)
    )
    return height, width
