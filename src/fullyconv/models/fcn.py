"""Fully convolutional networks: FCN-32s, 16s, 8s and 4s on any backbone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from fullyconv.backbones import Backbone, build_backbone, is_backbone_name
from fullyconv.errors import ConfigError
from fullyconv.labels import ClassTable
from fullyconv.models._ladder import Ladder, cut, image_grid, measured_grids
from fullyconv.models.segmentation import Architecture, Normalization, SegmentationModel
from fullyconv.upsampling import UPSAMPLERS

Alignment = Literal["same", "paper"]


def _known_backbone(name: str) -> str:
    if not is_backbone_name(name):
        raise ValueError("'torchvision:NAME' or 'timm:NAME' of a network there")
    return name


def _known_upsampling(name: str) -> str:
    if name not in UPSAMPLERS:
        raise ValueError(f"one of {', '.join(UPSAMPLERS)}")
    return name


class FCNArchitecture(Architecture):
    """The options of `FCN`, which describes them."""

    kind: Literal["fcn"] = "fcn"
    backbone: Annotated[str, AfterValidator(_known_backbone)]
    stride: Annotated[int, Field(ge=1, le=32)]
    alignment: Alignment
    upsampling: Annotated[str, AfterValidator(_known_upsampling)]
    fully_connected: bool
    freeze_batch_norm: bool

    @property
    def classifier(self) -> tuple[str, str]:
        """``"LIBRARY:NAME"`` of the classifier inside, and what its tensors' names begin with."""
        return self.backbone, "backbone.trunk."


class FCN(SegmentationModel):
    """FCN-32s, 16s, 8s or 4s (Long, Shelhamer, Darrell, arXiv 1411.4038, section 4; 1605.06211).

    Scores are predicted from the backbone's coarsest map by a 1×1 convolution, enlarged ×2 and added to those
    predicted from the next finer map, down to the map of ``stride``; from there fixed bilinear steps lead to
    the image. Score layers start at zero, enlargements as bilinear interpolation. Where maps lie in the
    image is computed by `fullyconv.geometry`, so every map is added in its place.

    Parameters
    ----------
    backbone
        A name of torchvision or timm ("resnet18", "timm:resnet18"), a `Backbone`, or a network of your own;
        see `fullyconv.backbones.build_backbone`.
    classes
        A class table, a list of names, or a number of classes.
    stride
        Of the finest map that scores are predicted from: 32, 16, 8 or 4, where the backbone has it.
    channels
        Of the image.
    weights
        Of the backbone: None for random start values, "imagenet", or a file.
    alignment
        "same": the image is padded at its end, with the mean, to a multiple of the backbone's stride, and by
        as much more as the backbone needs so that one pixel makes no empty map; scores beyond a border
        repeat those at it. "paper": as published, for VGG and AlexNet with their fully connected layers: 100
        pixels of padding around the image, maps cropped to each other, one last bilinear enlargement.
    upsampling
        Of the ×2 steps between maps: a key of `fullyconv.upsampling.UPSAMPLERS`. "unpooling" puts scores
        where the finer map is strongest, in the mean over its channels, since scores come from no pooling.
    fully_connected
        Keep the classifier's fully connected layers as conv6 and conv7, with dropout; by default for
        ``alignment="paper"`` only.
    freeze_batch_norm
        Use the backbone's batch statistics as they are, in training mode too: for batches of one image, and
        for weights whose batch normalisation has been folded away. By default where there are weights.
    normalization
        Of raw pixel values; by default the one that the backbone's weights were trained with, for
        images of 8 bits.

    Attributes
    ----------
    backbone : Backbone
        Features; the part that trained weights come with.
    head : Ladder
        Scores; the part that is new for new classes.

    Raises
    ------
    ConfigError
        An option is out of range or does not go with the backbone.
    GeometryError
        Maps lie a fraction of a position apart, so that no crop aligns them.

    Examples
    --------
    >>> model = FCN("squeezenet1_1", 3, stride=8).eval()
    >>> model(torch.zeros(1, 3, 37, 1)).shape
    torch.Size([1, 3, 37, 1])
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        classes: ClassTable | Sequence[str] | int,
        stride: int = 8,
        *,
        channels: int = 3,
        weights: str | Path | None = None,
        alignment: Alignment = "same",
        upsampling: str = "transposed",
        fully_connected: bool | None = None,
        freeze_batch_norm: bool | None = None,
        normalization: Normalization | None = None,
    ) -> None:
        _require_known("alignment", alignment, get_args(Alignment))
        _require_known("upsampling", upsampling, tuple(UPSAMPLERS))
        published = alignment == "paper"
        built = build_backbone(
            backbone,
            channels=channels,
            weights=weights,
            fully_connected=published if fully_connected is None else fully_connected,
            published=published,
        )
        _require_fit(built, channels, stride, published)
        if normalization is None:
            normalization = Normalization(*(built.normalization or ()))
        super().__init__(classes, channels, normalization)
        self.finest, self.alignment, self.upsampling = stride, alignment, upsampling
        self.batch_norm_frozen = weights is not None if freeze_batch_norm is None else freeze_batch_norm
        self.backbone_frozen = False
        self.stride = built.strides[-1]
        self.backbone = built
        size = max(8 * self.stride, built.least_size)
        self.head = Ladder(
            len(self.classes),
            built.channels,
            [image_grid(size), *measured_grids(built, size)],
            finest=stride,
            upsampling=upsampling,
            published=published,
        )
        self.train()  # what is frozen is so from the start

    @property
    def architecture(self) -> FCNArchitecture:  # type: ignore[override]  # read only: it follows the parts
        """What rebuilds this network, weights aside.

        Raises
        ------
        ConfigError
            The backbone is a network of one's own, which no file can rebuild.
        """
        if self.backbone.name is None:
            raise ConfigError(
                "an FCN on a backbone of your own, which a model file cannot rebuild",
                "a backbone by its name in torchvision or timm",
                "keep torch.save(model.state_dict(), FILE) together with the code that builds the network",
            )
        return FCNArchitecture(
            backbone=self.backbone.name,
            stride=self.finest,
            alignment=self.alignment,
            upsampling=self.upsampling,
            fully_connected=self.backbone.fully_connected,
            freeze_batch_norm=self.batch_norm_frozen,
        )

    def scores(self, images: Tensor) -> Tensor:
        """Score every pixel of normalised images N×C×H×W, from 1×1 up."""
        size = images.shape[-2:]
        if self.alignment == "same":
            images = F.pad(images, (0, self.backbone.missing(size[1]), 0, self.backbone.missing(size[0])))
        scores: Tensor = self.head(self.backbone(images), images.shape[-2:])
        return cut(scores, 0, size)

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.backbone_frozen:
            self.backbone.eval()
        elif self.batch_norm_frozen:
            self.backbone.freeze_batch_norm()
        return self

    def freeze_backbone(self, frozen: bool = True) -> None:
        """Train the head alone: the backbone's weights and statistics stay as they are; or undo that."""
        self.backbone_frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def with_classes(self, classes: ClassTable | Sequence[str] | int) -> FCN:
        """Return a network for other classes: a copy of the backbone with its weights, and a new head."""
        return self._rebuilt(classes, self.finest)

    def _rebuilt(self, classes: ClassTable | Sequence[str] | int, stride: int) -> FCN:
        return FCN(
            copy.deepcopy(self.backbone),
            classes,
            stride,
            channels=self.channels,
            alignment=self.alignment,
            upsampling=self.upsampling,
            freeze_batch_norm=self.batch_norm_frozen,
            normalization=self.normalization,
        ).train(self.training)


def upgrade(model: FCN) -> FCN:
    """Return the network with the next finer skip: an FCN-16s of an FCN-32s, an FCN-8s of an FCN-16s.

    Every weight is kept (copied), the new score layer starts at zero, and the new enlargement as bilinear
    interpolation.

    Before its first step of training the finer network gives the scores of the coarser one, up to
    rounding, under two conditions. ``alignment="same"``: there the coarser network's scores already pass the
    finer grid on their way to the image, by a fixed bilinear step, and the upgrade puts a learned one of
    the same start in its place. (Published networks go to the image in one step. ×2 and then ×16 is not ×32
    where positions lie half a pixel apart, so with "paper" scores change slightly, most around edges.) And an
    upsampling that starts bilinear: "transposed", "transposed_fixed" or "bilinear".

    Parameters
    ----------
    model
        An FCN; it is left as it is.

    Raises
    ------
    ConfigError
        The backbone has no finer map.

    Examples
    --------
    >>> upgrade(FCN("squeezenet1_1", 2, stride=16)).finest
    8
    """
    finer = [stride for stride in model.backbone.strides if stride < model.finest]
    if not finer:
        raise ConfigError(
            f"an FCN-{model.finest}s on a backbone with maps of strides "
            f"{', '.join(map(str, model.backbone.strides))}",
            "a backbone with a finer map",
            "train this one, or choose another backbone",
        )
    upgraded = model._rebuilt(model.classes, finer[-1])
    upgraded.head.load_state_dict(model.head.state_dict(), strict=False)
    upgraded.freeze_backbone(model.backbone_frozen)
    return upgraded


def _require_known(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{option}={value!r}", f"one of {', '.join(known)}", "see help(fullyconv.FCN)")


def _require_fit(backbone: Backbone, channels: int, stride: int, published: bool) -> None:
    if stride not in backbone.strides:
        raise ConfigError(
            f"stride {stride} on a backbone with maps of strides {', '.join(map(str, backbone.strides))}",
            "the stride of one of its maps",
            f"pass stride={min(backbone.strides, key=lambda known: abs(known - stride))}",
        )
    if backbone.image_channels != channels or backbone.published != published:
        raise ConfigError(
            f"a backbone for {backbone.image_channels} channels and "
            f"alignment {'paper' if backbone.published else 'same'!r}",
            f"{channels} channels and alignment {'paper' if published else 'same'!r}, as asked for",
            "pass both to build_backbone and FCN alike",
        )
