"""Upsamplers: modules that make a map exactly ``factor`` times as high and as wide.

One contract for all of them. ``module(features, indices=None)`` takes N×C×h×w, of any size from 1×1 up and
any floating dtype, and returns N×C×(h·f)×(w·f). Positions follow the half-pixel convention: the centre of
output pixel ``o`` lies over position (o + ½)/f − ½ of the input, so the f×f output pixels of one input pixel
surround it. Output pixel ``o`` reads no input pixel farther than ``reach`` from pixel ⌊o/f⌋, along each axis.

``indices`` is for the one upsampler that needs it (``needs_indices``): where :func:`max_pool` found each
value. All others accept and leave it, so a decoder may hand it to any of them.

Learned upsamplers start as interpolation (bilinear, nearest, or a local mean), so a network keeps its scores
when one is put in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullyconv.errors import ConfigError, GeometryError


def bilinear_kernel(factor: int) -> Tensor:
    """Return the k×k kernel with which a transposed convolution of stride ``factor`` interpolates bilinearly.

    k = 2f − f mod 2. With padding ⌊f/2⌋ the output is f times the input's size, and the kernel's centre
    (at f − ½ for even f, f − 1 for odd f) puts input pixel i at output position f·i + (f − 1)/2: the
    half-pixel convention, for even and odd factors alike.

    Parameters
    ----------
    factor
        How many times larger the output is, from 1 up.

    Returns
    -------
    Tensor
        k×k, float32, the same as ``upsample_filt`` in ``surgery.py`` of the FCN reference (Long et al. 2015).

    Examples
    --------
    >>> bilinear_kernel(2)[0].tolist()
    [0.0625, 0.1875, 0.1875, 0.0625]
    """
    size = 2 * factor - factor % 2
    center = (size - 1) / 2
    tent = 1 - (torch.arange(size) - center).abs() / factor
    return torch.outer(tent, tent)


def max_pool(features: Tensor, factor: int = 2) -> tuple[Tensor, Tensor]:
    """Take the largest value of each f×f window and remember where it was, for :class:`MaxUnpooling`.

    Parameters
    ----------
    features
        N×C×H×W, any size; windows at the lower and right border may be cut (pooling rounds up).
    factor
        Side and stride of the windows.

    Returns
    -------
    pooled
        N×C×h×w with h = ⌈H/f⌉, w = ⌈W/f⌉.
    indices
        N×C×h×w, int64: row · (w·f) + column of the largest value, on the grid of (h·f)×(w·f) pixels that
        unpooling makes. The same as torch's where f divides W.
    """
    width = features.shape[-1]
    pooled, indices = F.max_pool2d(features, factor, ceil_mode=True, return_indices=True)
    rows = torch.div(indices, width, rounding_mode="floor")
    return pooled, indices + rows * (pooled.shape[-1] * factor - width)


def strongest_places(features: Tensor, factor: int = 2) -> Tensor:
    """Return where a map is largest in each f×f window, in the mean over its channels.

    For networks whose encoder has strided convolutions in place of max pooling, and so no maxima of its own.

    Parameters
    ----------
    features
        N×C×H×W.
    factor
        Side and stride of the windows.

    Returns
    -------
    Tensor
        N×1×⌈H/f⌉×⌈W/f⌉, int64, as the indices of :func:`max_pool`: one place for all channels.
    """
    return max_pool(features.float().mean(1, keepdim=True), factor)[1]


class Upsampler(nn.Module):
    """What every upsampler is: see the module's docstring for the contract.

    Parameters
    ----------
    channels
        C, of input and output.
    factor
        How many times larger the output is along each axis, from 1 up.

    Attributes
    ----------
    reach
        How many pixels around its own an output pixel reads of the input.
    needs_indices
        Whether ``forward`` needs the places of the encoder's maxima.

    Raises
    ------
    ConfigError
        Channels or factor below 1.
    """

    reach: int = 0
    needs_indices: ClassVar[bool] = False

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        if channels < 1 or factor < 1:
            raise ConfigError(
                f"an upsampler of {channels} channels by factor {factor}",
                "whole numbers from 1 up",
                "pass the number of channels first, then the factor",
            )
        self.channels = channels
        self.factor = factor

    def forward(self, features: Tensor, indices: Tensor | None = None) -> Tensor:
        """Upsample N×C×h×w to N×C×(h·f)×(w·f)."""
        return self.enlarge(features)

    def enlarge(self, features: Tensor) -> Tensor:
        """Upsample from the features alone."""
        raise NotImplementedError  # each kind has its own

    def extra_repr(self) -> str:
        """Show channels and factor in the printed network."""
        return f"{self.channels}, factor={self.factor}"


class Interpolation(Upsampler):
    """Nearest, bilinear or bicubic interpolation, with the border repeated outwards; nothing is learned.

    Bicubic is Keys' cubic convolution with a = −¾ as in torch and OpenCV. It overshoots at edges, and (other
    than a = −½) bends a ramp by up to 0.048 of its step.
    """

    def __init__(self, channels: int, factor: int, mode: Literal["nearest", "bilinear", "bicubic"]) -> None:
        super().__init__(channels, factor)
        self.mode = mode
        self.reach = {"nearest": 0, "bilinear": 1, "bicubic": 2}[mode]

    def enlarge(self, features: Tensor) -> Tensor:
        """Interpolate."""
        return F.interpolate(features, scale_factor=float(self.factor), mode=self.mode)


class TransposedConvolution(Upsampler):
    """A transposed convolution that starts as bilinear interpolation (Long et al. 2015, section 3.3).

    Outside the map are zeros, so values within half an input pixel of the border fall towards zero, by the
    same share in every channel: the arg-max over channels stays.

    Parameters
    ----------
    learned
        True: a trainable C×C×k×k weight, zero between different channels at the start. False: the same
        function, fixed, with one k×k kernel for each channel.
    """

    reach = 1

    def __init__(self, channels: int, factor: int, learned: bool) -> None:
        super().__init__(channels, factor)
        kernel = bilinear_kernel(factor)
        groups = 1 if learned else channels
        self.conv = nn.ConvTranspose2d(
            channels,
            channels,
            kernel.shape[-1],
            stride=factor,
            padding=factor // 2,
            groups=groups,
            bias=False,
        )
        with torch.no_grad():
            diagonal = torch.eye(channels) if learned else torch.ones(channels, 1)
            self.conv.weight.copy_(diagonal[:, :, None, None] * kernel)
        self.conv.requires_grad_(learned)

    def enlarge(self, features: Tensor) -> Tensor:
        """Convolve, transposed."""
        result: Tensor = self.conv(features)
        return result


class MaxUnpooling(Upsampler):
    """Put each value back where the encoder's max pooling found it; all else is zero.

    As in SegNet (Badrinarayanan et al. 2015, 1511.00561, section 3). The windows of the pooling must not
    overlap (side = stride = ``factor``), as in :func:`max_pool`, which makes the indices.
    """

    needs_indices = True

    def forward(self, features: Tensor, indices: Tensor | None = None) -> Tensor:
        """Upsample N×C×h×w with ``indices`` of the same shape, or N×1×h×w for all channels, int64.

        Raises
        ------
        ConfigError
            No indices.
        GeometryError
            The indices have another shape than the features.
        """
        if indices is None:
            raise ConfigError(
                "max unpooling without the places of the maxima",
                "the indices of the encoder's pooling at the same size",
                "pool with fullyconv.upsampling.max_pool, or choose another upsampler such as 'bilinear'",
            )
        if indices[:, 0].shape != features[:, 0].shape or indices.shape[1] not in (1, features.shape[1]):
            raise GeometryError(
                f"features of shape {tuple(features.shape)} with indices of shape {tuple(indices.shape)}",
                "the same shape, or one channel",
                "hand over the indices of the pooling at this stride, of as many channels",
            )
        height, width = features.shape[-2] * self.factor, features.shape[-1] * self.factor
        grid = torch.arange(height * width, device=features.device)
        # A window is compared with its own pixel's index: no scatter, so every run and device agrees.
        places = grid.view(height // self.factor, self.factor, width // self.factor, self.factor)
        found = indices[:, :, :, None, :, None] == places
        spread = torch.where(found, features[:, :, :, None, :, None], 0.0)
        return spread.reshape(features.shape[0], features.shape[1], height, width)


class SubPixel(Upsampler):
    """A 3×3 convolution to C·f² channels whose values are dealt out as f×f pixels (ESPCN, 1609.05158).

    Starts as ICNR (Aitken et al., 1707.02937): the f² filters of an output channel are equal, so there is no
    checkerboard. Here each starts as the identity of its channel, so the whole starts as nearest
    interpolation.
    """

    reach = 1

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__(channels, factor)
        self.conv = nn.Conv2d(channels, channels * factor**2, 3, padding=1, bias=False)
        with torch.no_grad():
            identity = nn.init.dirac_(torch.empty(channels, channels, 3, 3))
            self.conv.weight.copy_(identity.repeat_interleave(factor**2, dim=0))

    def enlarge(self, features: Tensor) -> Tensor:
        """Convolve and shuffle."""
        return F.pixel_shuffle(self.conv(features), self.factor)


class ContentAware(Upsampler):
    """Each output pixel is a mean of 5×5 input pixels, with weights predicted from the features there.

    CARAFE (Wang et al. 2019, 1905.02188): a 1×1 convolution to 64 channels, a 3×3 convolution to 25 weights
    for each of the f² output pixels, softmax, reassembly; sizes and start values as its authors published.
    Outside the map are zeros. Chosen over DySample because what it reads is bounded, so tiles stay exact.
    """

    window: ClassVar[int] = 5
    reach = window // 2

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__(channels, factor)
        self.compress = nn.Conv2d(channels, 64, 1)
        self.encode = nn.Conv2d(64, (self.window * factor) ** 2, 3, padding=1)
        nn.init.xavier_uniform_(self.compress.weight)
        nn.init.normal_(self.encode.weight, std=0.001)
        for conv in (self.compress, self.encode):
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def enlarge(self, features: Tensor) -> Tensor:
        """Predict the weights, then take the means."""
        count, channels, height, width = features.shape
        scores = self.encode(self.compress(features))
        weights = scores.view(count, self.window**2, self.factor**2, height, width).softmax(dim=1)
        padded = F.pad(features, [self.reach] * 4)[:, :, None]
        # Twenty-five products at low resolution: a quarter of the time, and less memory, than unfolding.
        total = features.new_zeros(count, channels, self.factor**2, height, width)
        for neighbour in range(self.window**2):
            row, column = divmod(neighbour, self.window)
            shifted = padded[..., row : row + height, column : column + width]
            total = torch.addcmul(total, shifted, weights[:, None, neighbour])
        return F.pixel_shuffle(total.flatten(1, 2), self.factor)


UPSAMPLERS: dict[str, Callable[[int, int], Upsampler]] = {
    "nearest": partial(Interpolation, mode="nearest"),
    "bilinear": partial(Interpolation, mode="bilinear"),
    "bicubic": partial(Interpolation, mode="bicubic"),
    "transposed": partial(TransposedConvolution, learned=True),
    "transposed_fixed": partial(TransposedConvolution, learned=False),
    "unpooling": MaxUnpooling,
    "subpixel": SubPixel,
    "content_aware": ContentAware,
}
