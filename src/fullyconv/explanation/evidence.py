"""Which pixels of an image decided one position of a network's scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fullyconv.errors import GeometryError
from fullyconv.geometry import Interval
from fullyconv.receptive_fields import Geometry, trace_geometry

Map = NDArray[np.float32]

_PIXELS_AT_ONCE = 1 << 18  # of images in one pass: beyond, a processor gains nothing and memory grows
PLACES = 8
"""Side by side patches along the longer side of what is looked at; they overlap by half."""


@dataclass(frozen=True, eq=False)
class Question:
    """Why does a network prefer one class to another at one position?

    All answers are maps H×W of the image, zero outside the receptive field. The network is only ever run on
    the part of the image that the position depends on, which gives the same scores there.

    Parameters
    ----------
    network
        N×C×H×W → N×K×h×w, in evaluation mode.
    image
        1×C×H×W, as the network takes it.
    position
        (row, column) of the scores h×w.
    classes
        (for, against): the class explained, and the one it is compared with; None for the mean of all.
    local
        False where the network cannot be run on a part of the image, as an unpadded one on any size.

    Attributes
    ----------
    margin
        Score of the class for less score of what is against, at the position.
    """

    network: nn.Module
    image: Tensor
    position: tuple[int, int]
    classes: tuple[int, int | None]
    local: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.image.shape[-2], self.image.shape[-1]

    @cached_property
    def geometry(self) -> Geometry:
        """Where the network looks."""
        return trace_geometry(self.network, self.image.shape[1], self.size)

    @cached_property
    def field(self) -> tuple[Interval, Interval]:
        """The rows and columns of the image that the position depends on: its receptive field, clipped."""
        row, column = (Interval(place, place + 1) for place in self.position)
        return self.geometry.input_interval((row, column), self.size)

    @cached_property
    def _part(self) -> tuple[tuple[slice, slice], tuple[int, int]]:
        """The part of the image to run on, and the position in its scores."""
        if not self.local:
            return (slice(0, self.size[0]), slice(0, self.size[1])), self.position
        rows, columns = (
            slice(seen.start // step * step, min(-(-seen.stop // step) * step, length))
            for seen, step, length in zip(self.field, self.geometry.stride, self.size, strict=True)
        )
        steps = self.geometry.output_stride
        row, column = (
            place - int(part.start / step)
            for place, part, step in zip(self.position, (rows, columns), steps, strict=True)
        )
        return (rows, columns), (row, column)

    @property
    def part(self) -> Tensor:
        """The part of the image that the network is run on, 1×C×h×w."""
        rows, columns = self._part[0]
        return self.image[..., rows, columns]

    @cached_property
    def baseline(self) -> Tensor:
        """What tells the network nothing: the mean colour of the receptive field, 1×C×1×1."""
        rows, columns = (slice(seen.start, seen.stop) for seen in self.field)
        return self.image[..., rows, columns].mean((2, 3), keepdim=True)

    def scores(self, parts: Tensor) -> Tensor:
        """Return the scores N×K at the position for images in place of the part, N×C×h×w."""
        row, column = self._part[1]
        scores: Tensor = self.network(parts)
        return scores[:, :, row, column]

    def margins(self, parts: Tensor) -> Tensor:
        """Return how far the class for is ahead, N."""
        scores, (ours, theirs) = self.scores(parts), self.classes
        return scores[:, ours] - (scores.mean(1) if theirs is None else scores[:, theirs])

    @cached_property
    def margin(self) -> float:
        """How far the class for is ahead at the position."""
        with torch.no_grad():
            return float(self.margins(self.part))

    def placed(self, values: Tensor) -> Map:
        """Return values h×w of the part as a map H×W of the image."""
        result = np.zeros(self.size, np.float32)
        result[self._part[0]] = values.detach().cpu().numpy()
        return result

    def batches(self, count: int) -> Iterator[slice]:
        """Yield so many numbers in groups that fit one pass."""
        height, width = self.part.shape[-2:]
        at_once = max(1, _PIXELS_AT_ONCE // (height * width))
        for start in range(0, count, at_once):
            yield slice(start, min(start + at_once, count))


def effective_receptive_field(question: Question) -> Map:
    """Return how strongly each pixel's change would change the score of the class for.

    Parameters
    ----------
    question
        Its position and first class are looked at.

    Returns
    -------
    ndarray
        H×W, float32: |∂ score / ∂ pixel| summed over channels, as shares that add up to 1 (all zero where the
        score depends on nothing).

    Notes
    -----
    Source: Luo, Li, Urtasun, Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural
    Networks" (arXiv 1701.04128), section 2. They average over random images; this is for the one given.
    """
    part = question.part.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(question.scores(part)[0, question.classes[0]], part)
    strength = gradient[0].abs().sum(0)
    return question.placed(strength / strength.sum().clamp_min(torch.finfo(strength.dtype).tiny))


def integrated_gradients(question: Question, *, steps: int = 32) -> Map:
    """Return what each pixel contributes to the margin, by its gradient on the way from a flat image.

    Parameters
    ----------
    question
        What is asked.
    steps
        On the straight way from the baseline, a flat image of the mean colour, to the image.

    Returns
    -------
    ndarray
        H×W, float32, in units of the scores, summed over channels: above 0 what speaks for the class for,
        below 0 what speaks for the other. All add up to the margin less the margin of the flat image
        (completeness), up to the error of the steps.

    Notes
    -----
    Source: Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks" (arXiv 1703.01365), section 3;
    the steps lie in the middle of equal parts of the way.
    """
    image, flat = question.part, question.baseline
    total = torch.zeros_like(image)
    for batch in question.batches(steps):
        places = (torch.arange(batch.start, batch.stop) + 0.5).view(-1, 1, 1, 1).to(image) / steps
        between = (flat + places * (image - flat)).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(question.margins(between).sum(), between)
        total += gradient.sum(0, keepdim=True) / steps
    return question.placed(((image - flat) * total)[0].sum(0))


@dataclass(frozen=True, eq=False)
class Occlusion:
    """How the margin falls when a patch of the image is covered.

    Parameters
    ----------
    patches
        One (top, bottom, left, right) each, in pixels of the image, clipped to the receptive field; n×4.
    falls
        n, float32: the margin less the margin with the patch covered.
    map
        H×W, float32: for each pixel the mean over the patches that cover it.
    side
        Of a patch, in pixels.
    """

    patches: NDArray[np.intp]
    falls: NDArray[np.float32]
    map: Map
    side: int

    @property
    def strongest(self) -> tuple[int, int, int, int]:
        """The patch whose covering makes the margin fall most."""
        top, bottom, left, right = (int(edge) for edge in self.patches[self.falls.argmax()])
        return top, bottom, left, right

    def agreement(self, contributions: Map) -> float:
        """Return how well another account, pixel by pixel, agrees: the correlation over patches, −1 to 1.

        Parameters
        ----------
        contributions
            H×W, such as `integrated_gradients` returns; they are summed over each patch.

        Returns
        -------
        float
            Pearson's correlation with the falls; NaN where either is the same everywhere.
        """
        sums = [contributions[top:bottom, left:right].sum() for top, bottom, left, right in self.patches]
        if np.ptp(sums) == 0 or np.ptp(self.falls) == 0:
            return float("nan")
        return float(np.corrcoef(sums, self.falls)[0, 1])


def occlusion(
    question: Question,
    *,
    side: int | None = None,
    step: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Occlusion:
    """Cover one patch after the other with the mean colour, and see how far the margin falls.

    Parameters
    ----------
    question
        What is asked.
    side, step
        Of the square patches, and from one to the next, in pixels; an eighth of the receptive field in the
        image, and half of that, where not given.
    progress
        Called with the number of patches done, and of all.

    Returns
    -------
    Occlusion
        The patches cover the receptive field, and nothing outside it.

    Raises
    ------
    GeometryError
        A side or step below 1.

    Notes
    -----
    Source: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks" (arXiv 1311.2901), section
    4.2.
    """
    side = max(1, round(max(seen.size for seen in question.field) / PLACES)) if side is None else side
    step = max(1, side // 2) if step is None else step
    if min(side, step) < 1:
        raise GeometryError(f"patches of {side} pixels every {step}", "1 or more", "leave them out")
    patches = _patches(question.field, side, step)
    falls = np.zeros(len(patches), np.float32)
    with torch.no_grad():
        for batch in question.batches(len(patches)):
            falls[batch] = question.margin - _covered_margins(question, patches[batch])
            progress(batch.stop, len(patches))
    total, count = (np.zeros(question.size, np.float64) for _ in range(2))
    for (top, bottom, left, right), fall in zip(patches, falls, strict=True):
        total[top:bottom, left:right] += fall
        count[top:bottom, left:right] += 1
    return Occlusion(patches, falls, (total / np.maximum(count, 1)).astype(np.float32), side)


def _covered_margins(question: Question, patches: NDArray[np.intp]) -> NDArray[np.float32]:
    rows, columns = question._part[0]
    covered = question.part.repeat(len(patches), 1, 1, 1)
    for image, (top, bottom, left, right) in zip(covered, patches, strict=True):
        image[:, top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = (
            question.baseline[0]
        )
    return cast("NDArray[np.float32]", question.margins(covered).cpu().numpy())


def _patches(field: tuple[Interval, Interval], side: int, step: int) -> NDArray[np.intp]:
    """Return squares that cover a rectangle, the outer ones clipped to it."""
    edges = [
        [
            (max(seen.start, start), min(seen.stop, start + side))
            for start in range(seen.start - (side - step) // 2, seen.stop, step)
            if min(seen.stop, start + side) > max(seen.start, start)
        ]
        for seen in field
    ]
    return np.array([(*rows, *columns) for rows in edges[0] for columns in edges[1]], np.intp)


def distances(strength: Map, position: tuple[int, int], shares: tuple[float, ...]) -> tuple[int, ...]:
    """Return how far from a pixel one must go to gather given shares of a map.

    Parameters
    ----------
    strength
        H×W, nothing below 0.
    position
        (row, column) of the pixel.
    shares
        From 0 to 1.

    Returns
    -------
    tuple of int
        For each share the smallest d such that the square of 2d + 1 pixels around the pixel holds it.
    """
    rows, columns = (
        np.abs(np.arange(length) - place) for length, place in zip(strength.shape, position, strict=True)
    )
    rings = np.bincount(np.maximum.outer(rows, columns).ravel(), strength.ravel().astype(np.float64))
    gathered = rings.cumsum() / max(rings.sum(), 1e-300)
    return tuple(int(np.searchsorted(gathered, share - 1e-9)) for share in shares)
