"""The image at each feature level, and what the levels of a U-Net's decoder take from their skips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fullyconv.explanation.document import Content, Gallery, Section, Source, Table
from fullyconv.explanation.drawing import Layer, Picture, Pixels, where
from fullyconv.explanation.subject import Subject
from fullyconv.models import FCN, UNet
from fullyconv.progress import Progress

_BLOCKS = 128  # positions along a side; more could not be told apart on a page
_ORANGE = (230, 159, 0)
_BLUE_TO_ORANGE = np.array([0.45, 0.06, -0.45])  # a second direction beside light and dark, safe to all eyes


@dataclass(frozen=True, eq=False)
class Level:
    """Features of one image at one stride.

    Parameters
    ----------
    stride
        Pixels from one position to the next.
    features
        C×h×w.
    path
        "down", towards coarser maps, or "up", back to the image.
    """

    stride: int
    features: Tensor
    path: str


@torch.no_grad()
def feature_levels(model: FCN | UNet, image: Tensor) -> tuple[Level, ...]:
    """Return the features of an image at every level, in the order the network computes them.

    Parameters
    ----------
    model
        An FCN, whose backbone has them, or a U-Net, whose encoder and decoder have them.
    image
        1×C×H×W in raw units.
    """
    found: list[Level] = []

    def keep(path: str, strides: tuple[int, ...], maps: Callable[[Any], Any]) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            found.extend(
                Level(stride, features[0], path)
                for stride, features in zip(strides, maps(output), strict=True)
            )

        return hook

    if isinstance(model, FCN):
        hooks = [
            model.backbone.register_forward_hook(keep("down", model.backbone.strides, lambda maps: maps))
        ]
    else:
        strides = tuple(2**level for level in range(len(model.decoder) + 1))
        # The network replaces what is in the list on its way up: it is read before.
        hooks = [model.encoder.register_forward_hook(keep("down", strides, lambda output: output[0]))]
        hooks += [
            level.register_forward_hook(keep("up", (stride,), lambda output: [output]))
            for stride, level in zip(strides, model.decoder, strict=False)
        ]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(found)


def two_patterns(features: Tensor) -> tuple[Pixels, float]:
    """Return a picture of C×h×w features by their two strongest patterns (principal components).

    Parameters
    ----------
    features
        C×h×w.

    Returns
    -------
    pixels
        h×w×3, uint8: the first pattern is light against dark, the second orange against blue.
    share
        Of the features' variance that the two hold, 0 to 1.
    """
    channels, height, width = features.shape
    flat = features.reshape(channels, -1).double().numpy()
    flat = flat - flat.mean(axis=1, keepdims=True)
    variances, directions = np.linalg.eigh(flat @ flat.T / flat.shape[1])
    patterns = []
    for place in (-1, -2):
        direction = directions[:, place] if channels >= -place else np.zeros(channels)
        # An eigenvector has no sign of its own: the largest part is made positive, so that runs agree.
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        pattern = direction @ flat
        low, high = np.quantile(pattern, (0.01, 0.99))
        scaled = np.clip((pattern - low) / (high - low), 0, 1) if high > low else np.full(pattern.shape, 0.5)
        patterns.append(scaled.reshape(height, width))
    light, color = patterns
    mixed = 0.15 + 0.7 * light[..., None] + (color[..., None] - 0.5) * _BLUE_TO_ORANGE
    total = float(variances.clip(0).sum())
    share = float(variances[-2:].sum()) / total if total else 1.0
    return np.rint(255 * np.clip(mixed, 0, 1)).astype(np.uint8), share


def explain_levels(subject: Subject, progress: Progress) -> Section:
    """Show the image at each feature level, and for a U-Net what each skip brings."""
    model = cast("FCN | UNet", subject.model)
    found = feature_levels(model, subject.image)
    content: list[Content] = [
        "On its way through the network the image becomes maps of features: fewer positions, more numbers "
        "at each. A map of many channels has no colours of its own. Drawn here are the two patterns in "
        "which its positions differ most (its principal components): the first as light and dark, the "
        "second as orange and blue. Places of equal colour look alike to the network at this level. Each "
        "block is one position.",
    ]
    for path, said in (("down", "Down: from the image to its coarsest map"), ("up", "Up: back to the image")):
        pictures = tuple(_drawn(subject, level) for level in found if level.path == path)
        if pictures:
            content.append(Gallery(pictures, said))
    numbers: dict[str, Any] = {"levels": [[level.stride, *level.features.shape] for level in found]}
    sources = [
        Source(
            "principal components of features: Oquab et al., arXiv 2304.07193, figure 1",
            "https://arxiv.org/abs/2304.07193",
        ),
    ]
    if isinstance(model, UNet):
        pieces, numbers["skips"] = _skips(subject, model)
        content += pieces
        sources.insert(
            0,
            Source(
                "Ronneberger, Fischer, Brox, arXiv 1505.04597, section 2", "https://arxiv.org/abs/1505.04597"
            ),
        )
    return Section("The image at each feature level", tuple(content), tuple(sources), numbers)


def _drawn(subject: Subject, level: Level) -> Picture:
    pixels, share = two_patterns(level.features)
    channels, height, width = level.features.shape
    margin = isinstance(subject.model, UNet) and subject.model.margin
    # An unpadded network's maps lie inside the mirrored image: they are shown on their own.
    size = (height * level.stride, width * level.stride) if margin else subject.size
    return Picture(
        size,
        (Layer(pixels, (height * level.stride, width * level.stride), blocks=max(height, width) <= _BLOCKS),),
        f"Stride {level.stride}",
        f"{height}×{width} positions of {channels} numbers; the two patterns hold {share:.0%} of how they "
        "differ.",
        f"Features at stride {level.stride}: {height}×{width} positions, {channels} channels.",
        () if margin else (subject.mark,),
    )


@torch.no_grad()
def without_skip(subject: Subject, model: UNet, level: int) -> Tensor:
    """Return the scores where one skip tells no place from another: its mean stands everywhere.

    Parameters
    ----------
    subject
        Its image is scored.
    model
        Its network.
    level
        Of the decoder; 0 is the finest.
    """

    def flatten(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        coarser, skip, *rest = inputs
        return coarser, skip.mean((2, 3), keepdim=True).expand_as(skip), *rest

    hook = model.decoder[level].register_forward_pre_hook(flatten)
    try:
        scores: Tensor = subject.network(subject.image)
    finally:
        hook.remove()
    return scores


def _skips(subject: Subject, model: UNet) -> tuple[list[Content], list[dict[str, Any]]]:
    """Return what changes when a skip is made flat, level by level from the coarsest."""
    first, second = subject.best
    margin = subject.question.margin
    pictures, rows, numbers = [], [], []
    for level in reversed(range(len(model.decoder))):
        stride = 2**level
        scores = without_skip(subject, model, level)
        changed = scores[0].argmax(0).numpy() != subject.labels
        here = scores[0, :, *subject.at]
        lost = float(here[first] - here[second])
        numbers.append({"stride": stride, "labels_changed": int(np.count_nonzero(changed))})
        rows.append((f"skip at stride {stride}", f"{changed.mean():.1%}", f"{margin:.2f}", f"{lost:.2f}"))
        pictures.append(_changed(subject, stride, changed))
    content: list[Content] = [
        Gallery(tuple(pictures), "What each skip brings", across=4),
        "The decoder doubles the map's size level by level and joins the features that the encoder had at "
        "that size. To see what one skip brings, its features are replaced by their mean over the image: it "
        "still says what is there, but no longer where. Painted are the pixels whose label then changes.",
        Table(
            "One skip made flat at a time",
            ("without", "labels changed", f"{subject.names[0]} ahead of {subject.names[1]} here", "and then"),
            tuple(rows),
        ),
    ]
    return content, numbers


def _changed(subject: Subject, stride: int, changed: NDArray[np.bool_]) -> Picture:
    return Picture(
        subject.size,
        (Layer(subject.gray, opacity=0.75), where(changed, np.array(_ORANGE, np.uint8))),
        f"Without the skip at stride {stride}",
        f"{changed.mean():.1%} of the labels change.",
        f"The pixels whose label changes without the skip at stride {stride}: {changed.mean():.1%}.",
        (subject.mark,),
    )
