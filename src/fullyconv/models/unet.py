"""U-Net, as published (unpadded) and as people use it (same padding, any encoder): one class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from fullyconv.backbones import Backbone, build_backbone
from fullyconv.errors import ConfigError, GeometryError
from fullyconv.labels import ClassTable
from fullyconv.models._layers import (
    BackboneEncoder,
    ConvBlock,
    DecoderLevel,
    Encoder,
    Norm,
    Padding,
    UpConvolution,
    Upsampling,
    cut_end,
    score_layer,
)
from fullyconv.models._unet_options import (
    UP_CONVOLUTION,
    BackboneUNetArchitecture,
    UNetArchitecture,
    checked,
    checked_on_backbone,
)
from fullyconv.models.segmentation import Normalization, SegmentationModel
from fullyconv.upsampling import UPSAMPLERS

__all__ = ["PUBLISHED_WIDTHS", "BackboneUNetArchitecture", "UNet", "UNetArchitecture", "skip_crops"]

Size = tuple[int, int]
PUBLISHED_WIDTHS = (64, 128, 256, 512, 1024)


class UNet(SegmentationModel):
    """U-Net (Ronneberger, Fischer, Brox, arXiv 1505.04597, section 2).

    Parameters
    ----------
    classes
        A class table, a list of names, or a number of classes.
    channels
        Of the image.
    widths
        Channels at each level, finest first; each level halves the size. The published ones by default. With
        an ``encoder`` those of the expanding path, one for each halving; by default 16, 32, 64, and so on.
    encoder
        None for the published contracting path. Otherwise a name of torchvision or timm ("resnet34",
        "timm:regnety_008"), a `Backbone`, or a network of your own; see `build_backbone`. Where it has no map
        at a stride, as most have none at 1, the image itself is joined there, averaged to the size.
    weights
        Of the encoder: None for random start values, "imagenet", or a file.
    freeze_batch_norm
        Use the encoder's batch statistics as they are, in training mode too; by default where there are
        weights.
    padding
        "same": every convolution keeps the size, pooling rounds up, upsampled maps are cropped to the
        skip, so that scores have the image's size, whatever it is; for an ``encoder`` the image is padded at
        its end, with its mean, to a multiple of the stride, and by as much more as the encoder needs so that
        one pixel makes no empty map. "valid": as published, without any
        padding; scores are `margin` pixels smaller at each side, and only some sizes fit
        (`valid_output_size`).
    norm
        "batch", "group" (8 groups), "instance", or None as published.
    dropout
        Probability at the end of the contracting path, that is after its two deepest levels, where the
        published network has 0.5; with an ``encoder`` after its coarsest map.
    upsampling
        "up_convolution", the published 2×2 one, or a key of `fullyconv.upsampling.UPSAMPLERS`. An unpadded
        network takes only those that look at no neighbours: "up_convolution" and "nearest". With an
        ``encoder`` "unpooling" puts values where the encoder's finer map is strongest, in the mean over its
        channels: strided convolutions leave no maxima.
    deep_supervision
        Add a score layer at each level of the expanding path. In training mode the network then returns
        the scores of all levels at one size, finest first (Lee et al., arXiv 1409.5185).
    normalization
        Of raw pixel values; by default none, or what the encoder's weights were trained with, for images of
        8 bits.

    Attributes
    ----------
    backbone : Backbone or None
        The encoder, the part that trained weights come with.

    Raises
    ------
    ConfigError
        An option is out of range, or options do not go with each other.

    Examples
    --------
    >>> model = UNet(2, channels=1, widths=(8, 16)).eval()
    >>> model(torch.zeros(1, 1, 37, 1)).shape
    torch.Size([1, 2, 37, 1])
    """

    architecture: UNetArchitecture | BackboneUNetArchitecture
    encoder: Encoder | BackboneEncoder

    def __init__(
        self,
        classes: ClassTable | Sequence[str] | int,
        channels: int = 3,
        *,
        widths: Sequence[int] | None = None,
        encoder: str | nn.Module | None = None,
        weights: str | Path | None = None,
        freeze_batch_norm: bool | None = None,
        padding: Padding = "same",
        norm: Norm | None = "batch",
        dropout: float = 0.0,
        upsampling: str = UP_CONVOLUTION,
        deep_supervision: bool = False,
        normalization: Normalization | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "padding": padding,
            "norm": norm,
            "dropout": float(dropout),
            "upsampling": upsampling,
            "deep_supervision": deep_supervision,
        }
        architecture: UNetArchitecture | BackboneUNetArchitecture
        contracting: BackboneEncoder | None = None
        if encoder is None:
            if weights is not None:
                raise ConfigError(
                    f"weights={weights!r} for a U-Net's own encoder",
                    "an encoder that has trained weights",
                    "pass encoder='resnet34', or another one, too",
                )
            widths = PUBLISHED_WIDTHS if widths is None else tuple(widths)
            architecture = checked(UNetArchitecture, widths=widths, **options)
            skips, coarsest, decoder_widths = widths[:-1], widths[-1], widths[:-1]
        else:
            built = build_backbone(encoder, channels=channels, weights=weights)
            frozen = weights is not None if freeze_batch_norm is None else freeze_batch_norm
            decoder_widths = _decoder_widths(built) if widths is None else tuple(widths)
            options |= {"widths": decoder_widths, "freeze_batch_norm": frozen}
            _require_goes_with_backbone(built, channels, options)
            architecture = checked_on_backbone(built, **options)
            contracting = BackboneEncoder(built, dropout, keep_indices=upsampling == "unpooling")
            skips, coarsest = contracting.widths[:-1], contracting.widths[-1]
            if normalization is None:
                normalization = Normalization(*(built.normalization or ()))
        super().__init__(classes, channels, normalization or Normalization())
        self.architecture = architecture
        depth = len(skips)
        self.stride = 2**depth
        crops = skip_crops(depth) if padding == "valid" else (0,) * depth
        self.margin = crops[0] + 4 if padding == "valid" else 0

        def block(inputs: int, outputs: int, dropout: float = 0.0) -> ConvBlock:
            return ConvBlock(inputs, outputs, padding=padding, norm=norm, dropout=dropout)

        self.backbone_frozen = False
        self.encoder = contracting or Encoder(
            *(
                block(inputs, outputs, dropout if level >= depth - 1 else 0.0)
                for level, (inputs, outputs) in enumerate(pairwise((channels, *skips, coarsest)))
            ),
            keep_indices=upsampling == "unpooling",
        )
        # Level by level like the encoder: decoder.0 is the finest and comes last.
        self.decoder = nn.ModuleList(
            DecoderLevel(self._upsampling(coarser, width), block(skip + width, width), crop)
            for skip, width, coarser, crop in zip(
                skips, decoder_widths, (*decoder_widths[1:], coarsest), crops, strict=True
            )
        )
        self.head = score_layer(decoder_widths[0], len(self.classes))
        if deep_supervision:
            self.auxiliary_heads = nn.ModuleList(
                score_layer(width, len(self.classes)) for width in decoder_widths[1:]
            )

    @classmethod
    def published(
        cls,
        classes: ClassTable | Sequence[str] | int,
        channels: int = 1,
        *,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        normalization: Normalization | None = None,
    ) -> UNet:
        """Return the network of the paper: unpadded, without normalisation layers, dropout 0.5."""
        return cls(
            classes,
            channels,
            widths=widths,
            padding="valid",
            norm=None,
            dropout=0.5,
            normalization=normalization,
        )

    def _upsampling(self, inputs: int, outputs: int) -> nn.Module:
        name = self.architecture.upsampling
        if name == UP_CONVOLUTION:
            return UpConvolution(inputs, outputs)
        upsampler = UPSAMPLERS[name](outputs, 2)
        if self.margin and (upsampler.reach or upsampler.needs_indices):
            raise ConfigError(
                f"an unpadded U-Net with upsampling {name!r}, which looks beyond the border",
                "one that looks at no neighbours: 'up_convolution' or 'nearest'",
                "choose one of those, or padding='same'",
            )
        return Upsampling(inputs, upsampler)

    def scores(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Score every pixel of normalised images N×C×H×W.

        Raises
        ------
        GeometryError
            The network is unpadded and the size does not fit it.
        """
        if self.margin:
            _require_fit(images.shape[-2], images.shape[-1], self.stride, self.margin)
        size = images.shape[-2:]
        levels, indices = self.encoder(images)
        for level in reversed(range(len(self.decoder))):
            levels[level] = self.decoder[level](levels[level + 1], levels[level], indices[level])
        if self.backbone is not None:
            levels[0] = cut_end(levels[0], size)
        scores: Tensor = self.head(levels[0])
        if not (self.training and self.architecture.deep_supervision):
            return scores
        return (
            scores,
            *(
                self._at_full_size(head(levels[level]), level, scores)
                for level, head in enumerate(self.auxiliary_heads, start=1)
            ),
        )

    def _at_full_size(self, coarse: Tensor, level: int, scores: Tensor) -> Tensor:
        fine = nn.functional.interpolate(coarse, scale_factor=2**level, mode="bilinear")
        # Unpadded, each finer level loses 2 more of its own pixels at each side.
        start = 2 ** (level + 1) - 2 if self.margin else 0
        height, width = scores.shape[-2:]
        return fine[..., start : start + height, start : start + width]

    @property
    def backbone(self) -> Backbone | None:
        """The encoder where it is a backbone."""
        return self.encoder.backbone if isinstance(self.encoder, BackboneEncoder) else None

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if isinstance(self.architecture, BackboneUNetArchitecture) and self.backbone is not None:
            if self.backbone_frozen:
                self.backbone.eval()
            elif self.architecture.freeze_batch_norm:
                self.backbone.freeze_batch_norm()
        return self

    def freeze_backbone(self, frozen: bool = True) -> None:
        """Train the expanding path alone: the encoder's weights and statistics stay; or undo that."""
        if self.backbone is None:
            raise ConfigError(
                "a U-Net with its own encoder, to be frozen", "one on a backbone", "pass encoder='resnet34'"
            )
        self.backbone_frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def valid_output_size(self, size: Size) -> Size:
        """Return the size (height, width) of the scores of an image of ``size``.

        Raises
        ------
        GeometryError
            The network is unpadded and the size leads to a fractional crop or to no scores at all.

        Examples
        --------
        >>> UNet.published(2).valid_output_size((572, 572))
        (388, 388)
        """
        if self.margin:
            _require_fit(*size, self.stride, self.margin)
        return size[0] - 2 * self.margin, size[1] - 2 * self.margin

    def valid_input_size(self, size: Size) -> Size:
        """Return the smallest image size (height, width) whose scores are at least of ``size``."""
        if not self.margin:
            return size
        height, width = (_fitting(part + 2 * self.margin, self.stride, self.margin) for part in size)
        return height, width


def skip_crops(depth: int) -> tuple[int, ...]:
    """Return the pixels cut from each side of each skip of an unpadded U-Net, finest first.

    Examples
    --------
    >>> skip_crops(4)
    (88, 40, 16, 4)
    """
    # A skip loses what the level below loses on its way down and up again, at twice the size: the
    # lower level's own crop, and 2 at each side by its two blocks of two convolutions.
    crops = [4]
    while len(crops) < depth:
        crops.append(2 * crops[-1] + 8)
    return tuple(reversed(crops))


@torch.fx.wrap
def _require_fit(height: int, width: int, stride: int, margin: int) -> None:
    """Raise `GeometryError` unless an unpadded network crops whole pixels; one opaque step to a tracer."""
    for length in (height, width):
        if length <= 2 * margin or (length + 4) % stride:
            raise GeometryError(
                f"an image of {height}×{width} pixels for an unpadded U-Net that halves to 1/{stride}",
                "a size at which every crop is whole, such as "
                f"{_fitting(height, stride, margin)}×{_fitting(width, stride, margin)}",
                "mirror the border up to that size (overlap-tile), or use padding='same'",
            )


def _fitting(length: int, stride: int, margin: int) -> int:
    """Return the first length from ``length`` up that an unpadded network takes.

    Every level takes 4 from what is then halved, so length = stride·n + 4·(stride − 1).
    """
    length = max(length, 2 * margin + 1)
    return length + -(length + 4) % stride


def _decoder_widths(backbone: Backbone) -> tuple[int, ...]:
    return tuple(min(16 << level, 512) for level in range(backbone.strides[-1].bit_length() - 1))


def _require_goes_with_backbone(backbone: Backbone, channels: int, options: dict[str, Any]) -> None:
    levels = backbone.strides[-1].bit_length() - 1
    mismatches = (
        (
            options["padding"] == "valid",
            "padding='valid'",
            "padding='same': encoders pad",
        ),
        (
            len(options["widths"]) != levels,
            f"widths={options['widths']}",
            f"{levels} widths, one for each halving",
        ),
        (
            backbone.image_channels != channels,
            f"{channels} channels",
            f"the encoder's {backbone.image_channels} channels",
        ),
    )
    for wrong, given, expected in mismatches:
        if wrong:
            raise ConfigError(
                f"{given} for a U-Net on an encoder of stride {backbone.strides[-1]}",
                expected,
                "correct or leave out the option",
            )
