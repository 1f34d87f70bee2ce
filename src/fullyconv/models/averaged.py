"""Several networks, or one that also looks at the mirrored image, as one network: their mean answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import lcm
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fullyconv.errors import ConfigError
from fullyconv.models.file import load, model_files
from fullyconv.models.segmentation import Architecture, SegmentationModel

Flips = Literal["none", "horizontal", "both"]
Size = tuple[int, int]
Network = SegmentationModel | str | Path


class AveragedArchitecture(Architecture):
    """What shapes an `Averaged` network: each member's architecture and normalisation as JSON."""

    kind: Literal["averaged"] = "averaged"
    members: tuple[str, ...]
    flips: Flips


class Averaged(SegmentationModel):
    """The mean of the class probabilities that networks give to an image and to its mirror images.

    Scores are the logarithms of the mean probabilities, so softmax gives these back. It is put together where
    it is used; a file holds one of its members.

    Parameters
    ----------
    members
        Networks of equal classes, channels, pixel type and margin; used in place.
    flips
        The mirror images that every member looks at too, its answer being mirrored back: "horizontal", left
        to right; "both", left to right, top to bottom, and both at once.

    Raises
    ------
    ConfigError
        There are no members, one does not go with the others, or there are no such flips.

    Examples
    --------
    >>> from fullyconv.models import UNet
    >>> model = Averaged([UNet(2, widths=(4, 8)), UNet(2, widths=(4, 8))], flips="both").eval()
    >>> model(torch.zeros(1, 3, 20, 30)).softmax(1).sum(1).round().unique()
    tensor([1.], grad_fn=<Unique2Backward0>)
    """

    def __init__(self, members: Sequence[SegmentationModel], flips: Flips = "none") -> None:
        if not members:
            raise ConfigError("no networks to average", "one or more", "name a model file")
        if flips not in FLIPS:
            raise ConfigError(f"flips {flips!r}", f"one of {', '.join(FLIPS)}", "take 'none'")
        first = members[0]
        for number, other in enumerate(members[1:], 2):
            _require_alike(first, other, number)
        super().__init__(first.classes, first.channels, first.normalization)
        self.members = nn.ModuleList(members)
        self.margin = first.margin
        self.stride = lcm(*(member.stride for member in members))
        self.flips = flips

    @property
    def architecture(self) -> AveragedArchitecture:  # type: ignore[override]  # read only: its members'
        """What shapes it.

        Raises
        ------
        ConfigError
            A member is one that no file describes.
        """
        return AveragedArchitecture(members=tuple(map(_described, self.networks)), flips=self.flips)

    @property
    def networks(self) -> tuple[SegmentationModel, ...]:
        """The members."""
        return tuple(cast(SegmentationModel, member) for member in self.members)

    @property
    def straight(self) -> Averaged:
        """The same members, looking at the image alone."""
        return Averaged(self.networks)

    @property
    def mirrored(self) -> tuple[bool, bool]:
        """Whether the image is also seen upside down, and whether left to right."""
        axes = {axis for flipped in FLIPS[self.flips] for axis in flipped}
        return -2 in axes, -1 in axes

    def forward(self, images: Tensor) -> Tensor:
        """Score every pixel of images N×C×H×W in raw units: logarithms of the mean probabilities, N×K×H×W."""
        passes = [
            _probabilities(member, images, axes) for member in self.members for axes in FLIPS[self.flips]
        ]
        total = passes[0]
        for other in passes[1:]:
            total = total + other
        return (total / len(passes)).clamp_min(torch.finfo(torch.float32).tiny).log()

    def scores(self, images: Tensor) -> Tensor:
        """Score every pixel of images normalised as the first member's."""
        return self.forward(images * self.std + self.mean)

    def valid_input_size(self, size: Size) -> Size:
        """Return the smallest image size (height, width) that all members take and score ``size`` of."""
        while True:
            sizes = [member.valid_input_size(size) for member in self.networks]
            largest = max(height for height, _ in sizes), max(width for _, width in sizes)
            if all(found == largest for found in sizes):
                return largest
            size = largest[0] - 2 * self.margin, largest[1] - 2 * self.margin


def assemble(models: Network | Sequence[Network], flips: Flips = "none") -> SegmentationModel:
    """Return a network as it is to be used: alone, or averaged with others and over mirror images.

    Parameters
    ----------
    models
        A network, a model file, a folder of folds (see `model_files`), or several of these.
    flips
        See `Averaged`.

    Raises
    ------
    ConfigError
        As `Averaged` and `model_files`.
    ModelFileError
        A file is not a model file, or is damaged.
    """
    given = [models] if isinstance(models, (SegmentationModel, str, Path)) else list(models)
    members: list[SegmentationModel] = []
    for each in given:
        if isinstance(each, SegmentationModel):
            members.append(each)
        else:
            members += map(load, model_files(each))
    return members[0] if len(members) == 1 and flips == "none" else Averaged(members, flips)


def _probabilities(member: nn.Module, images: Tensor, axes: tuple[int, ...]) -> Tensor:
    if not axes:
        return cast(Tensor, member(images)).float().softmax(1)
    return cast(Tensor, member(images.flip(axes))).float().softmax(1).flip(axes)


def _require_alike(first: SegmentationModel, other: SegmentationModel, number: int) -> None:
    for what, ours, theirs in (
        ("classes", first.classes, other.classes),
        ("channels", first.channels, other.channels),
        ("pixel type", first.normalization.dtype, other.normalization.dtype),
        ("margin", first.margin, other.margin),
    ):
        if ours != theirs:
            raise ConfigError(
                f"networks to average, of which the first has {what} {ours} and number {number} {theirs}",
                f"the same {what}",
                "average networks that were trained on the same data, such as those of train --folds",
            )


def _described(member: SegmentationModel) -> str:
    return json.dumps([member.architecture.model_dump(mode="json"), asdict(member.normalization)])


# Name -> the axes of N×C×H×W that each look at the image mirrors.
FLIPS: dict[Flips, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (-1,)),
    "both": ((), (-1,), (-2,), (-2, -1)),
}
