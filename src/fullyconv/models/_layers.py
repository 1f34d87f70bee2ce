"""The pieces a U-Net is made of; every convolution starts as He et al. (arXiv 1502.01852) propose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullyconv.backbones import Backbone
from fullyconv.errors import ConfigError
from fullyconv.upsampling import Upsampler, max_pool, strongest_places

Padding = Literal["same", "valid"]
Norm = Literal["batch", "group", "instance"]


class ConvBlock(nn.Module):
    """Two 3×3 convolutions, each with its normalisation and ReLU; unpadded they take 2 pixels at each side.

    Parameters
    ----------
    inputs, outputs
        Channels.
    padding
        "same" or "valid".
    norm
        A key of `NORMS`; None for none, and then the convolutions have biases.
    dropout
        Probability, on the output.
    """

    def __init__(
        self, inputs: int, outputs: int, *, padding: Padding, norm: Norm | None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, padding, bias=norm is None)
        self.norm1 = _norm(norm, outputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = _convolution(outputs, outputs, padding, bias=norm is None)
        self.norm2 = _norm(norm, outputs)
        self.relu2 = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Take N×C×H×W to N×K×H×W, or N×K×(H−4)×(W−4) unpadded."""
        features = self.relu1(self.norm1(self.conv1(features)))
        features = self.relu2(self.norm2(self.conv2(features)))
        result: Tensor = self.dropout(features)
        return result


class Encoder(nn.Sequential):
    """Blocks with 2×2 max pooling between them.

    Pooling rounds up, so that no row or column of an odd size is lost and 1×1 stays 1×1.

    Parameters
    ----------
    blocks
        One for each level, finest first.
    keep_indices
        Whether to say where each maximum was, for `MaxUnpooling`.
    """

    def __init__(self, *blocks: nn.Module, keep_indices: bool = False) -> None:
        super().__init__(*blocks)
        self.keep_indices = keep_indices

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return the features of every level, finest first, and where the maxima between two levels were."""
        features: list[Tensor] = []
        indices: list[Tensor | None] = []
        for block in self:
            if features:
                images, places = self._pool(features[-1])
                indices.append(places)
            images = block(images)
            features.append(images)
        return features, indices

    def _pool(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.keep_indices:
            return max_pool(features)
        return F.max_pool2d(features, 2, ceil_mode=True), None


class BackboneEncoder(nn.Module):
    """A backbone's maps at every power of two from the image on; the image itself where it has none.

    Parameters
    ----------
    backbone
        Its strides are powers of two.
    dropout
        Probability, on the coarsest map.
    keep_indices
        Whether to say where the maps are strongest, for `MaxUnpooling`.

    Attributes
    ----------
    widths : tuple of int
        Channels at each level, finest first: strides 1, 2, 4 and so on.

    Raises
    ------
    ConfigError
        Another stride.
    """

    def __init__(self, backbone: Backbone, dropout: float, *, keep_indices: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.keep_indices = keep_indices
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self._strides = [2**level for level in range(backbone.strides[-1].bit_length())]
        if not set(backbone.strides) <= set(self._strides):
            raise ConfigError(
                f"an encoder with maps of strides {', '.join(map(str, backbone.strides))}",
                "powers of two",
                "choose another one, or other layers of it",
            )
        widths = dict(zip(backbone.strides, backbone.channels, strict=True))
        self.widths = tuple(widths.get(stride, backbone.image_channels) for stride in self._strides)

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return the features of every level, finest first, and where the finer of two levels is strongest.

        The image is padded at its end, with its mean, to a size at which every level is whole.
        """
        height, width = images.shape[-2:]
        images = F.pad(images, (0, self.backbone.missing(width), 0, self.backbone.missing(height)))
        maps = dict(zip(self.backbone.strides, self.backbone(images), strict=True))
        maps[self._strides[-1]] = self.dropout(maps[self._strides[-1]])
        features = [
            maps[stride] if stride in maps else F.avg_pool2d(images, stride) if stride > 1 else images
            for stride in self._strides
        ]
        return features, [strongest_places(finer) if self.keep_indices else None for finer in features[:-1]]


class DecoderLevel(nn.Module):
    """Upsample the coarser features, join the skip, convolve.

    Parameters
    ----------
    upsample
        Doubles the size of the coarser features, given them and the indices of their pooling.
    block
        What joined features go through.
    crop
        Pixels cut from each side of the skip of an unpadded network; 0 cuts the end of the upsampled
        map to the skip's size instead.
    """

    def __init__(self, upsample: nn.Module, block: nn.Module, crop: int) -> None:
        super().__init__()
        self.upsample = upsample
        self.block = block
        self.crop = crop

    def forward(self, coarser: Tensor, skip: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return features N×C×H×W of the (cropped) skip's size."""
        features = self.upsample(coarser, indices)
        if self.crop:
            skip = skip[..., self.crop : -self.crop, self.crop : -self.crop]
        else:
            features = cut_end(features, skip.shape[-2:])
        joined: Tensor = self.block(torch.cat((skip, features), dim=1))
        return joined


def cut_end(features: Tensor, size: Sequence[int]) -> Tensor:
    """Return the first rows and columns of N×C×H×W, ``size`` of them."""
    # Padding by less than nothing: a slice would make torch.export settle for odd or for even sizes.
    height, width = size
    return F.pad(features, (0, width - features.shape[-1], 0, height - features.shape[-2]))


class UpConvolution(nn.Module):
    """The published 2×2 up-convolution: N×C×H×W to N×K×2H×2W, each output pixel from one input pixel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        _start(self.conv, math.sqrt(2 / inputs))

    def forward(self, features: Tensor, indices: Tensor | None = None) -> Tensor:
        """Upsample; the indices are for other upsamplers."""
        result: Tensor = self.conv(features)
        return result


class Upsampling(nn.Module):
    """An upsampler of `fullyconv.upsampling`, after a 1×1 convolution that brings the channels to its own."""

    def __init__(self, inputs: int, upsampler: Upsampler) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, upsampler.channels, 1)
        _start(self.reduce, math.sqrt(2 / inputs))
        self.upsampler = upsampler

    def forward(self, features: Tensor, indices: Tensor | None = None) -> Tensor:
        """Reduce, then upsample: fewer channels are upsampled, and maxima's indices fit."""
        result: Tensor = self.upsampler(self.reduce(features), indices)
        return result


class GroupNorm(nn.GroupNorm):
    """Group normalisation that also takes maps of a single pixel: torch's refuses one value per group."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise N×C×H×W over each group's channels and all positions."""
        return torch.group_norm(features, self.num_groups, self.weight, self.bias, self.eps)


def score_layer(inputs: int, classes: int) -> nn.Conv2d:
    """Return the last 1×1 convolution; it starts small, so that training starts near equal odds."""
    layer = nn.Conv2d(inputs, classes, 1)
    _start(layer, 0.01)
    return layer


def _convolution(inputs: int, outputs: int, padding: Padding, *, bias: bool) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1 if padding == "same" else 0, bias=bias)
    _start(layer, math.sqrt(2 / (9 * inputs)))
    return layer


def _start(layer: nn.Conv2d | nn.ConvTranspose2d, std: float) -> None:
    """Draw the weights; He's std is √(2/n), with n the values that come into one output value."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _norm(name: Norm | None, channels: int) -> nn.Module:
    return nn.Identity() if name is None else NORMS[name](channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: GroupNorm(math.gcd(8, channels), channels),
    "instance": lambda channels: GroupNorm(channels, channels),
}
