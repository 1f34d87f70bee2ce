"""Layers that a lifted classifier needs and torch does not have: they work on windows of a map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fullyconv.errors import GeometryError


def fit(images: Tensor, channels: int, size: tuple[int, int], pad: bool) -> Tensor:
    """Return images that are at least ``size``, padded evenly with zeros where ``pad`` allows.

    Raises
    ------
    GeometryError
        The images have other channels, or are smaller and ``pad`` is off.
    """
    if isinstance(images, fx.Proxy):
        return images  # a network that is traced again is traced for images that fit
    if images.dim() != 4 or images.shape[1] != channels:
        raise GeometryError(
            f"images of shape {'×'.join(map(str, images.shape))}",
            f"N×{channels}×H×W, as the classifier was trained on",
            "move the channels to the second place, one image as a batch of one, and bring their number to "
            f"{channels}",
        )
    short = [max(0, least - actual) for least, actual in zip(size, images.shape[-2:], strict=True)]
    if not any(short):
        return images
    if not pad:
        raise GeometryError(
            f"an image of {images.shape[-2]}×{images.shape[-1]}",
            f"at least the classifier's training size of {size[0]}×{size[1]}",
            "enlarge the image, or lift the classifier with convolutionalize(..., pad=True)",
        )
    (top, left) = (missing // 2 for missing in short)
    return F.pad(images, (left, short[1] - left, top, short[0] - top))


class SlidingLayer(nn.Module):
    """A layer of this module: always one node of a graph."""


class WindowConv2d(SlidingLayer, nn.Conv2d):
    """A convolution whose kernel is a classifier's whole window, as lifting makes of a fully connected layer.

    On the CPU and at few positions it runs as the fully connected layer it is, on a batch of windows: a
    convolution would first reorder its very large weights, which takes longer than to use them.
    """

    MOST_POSITIONS = 100

    @classmethod
    def like(cls, conv: nn.Conv2d) -> WindowConv2d:
        """Return the same layer, with the same parameters."""
        kernel = conv.kernel_size[0], conv.kernel_size[1]
        made = cls(conv.in_channels, conv.out_channels, kernel, device="meta")
        made.weight, made.bias = conv.weight, conv.bias
        return made.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve N×C×H×W."""
        height, width = (total - taps + 1 for total, taps in zip(x.shape[-2:], self.kernel_size, strict=True))
        # Compilers, exporters and tracers get the convolution, which is right for every size.
        compiled = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
        if compiled or type(x) is not Tensor or x.device.type != "cpu" or self.dilation != (1, 1):
            return super().forward(x)
        if x.shape[0] * height * width > self.MOST_POSITIONS:
            return super().forward(x)
        windows = F.unfold(x, self.kernel_size).transpose(1, 2)
        scores = F.linear(windows, self.weight.flatten(1), self.bias)
        return scores.transpose(1, 2).reshape(len(x), -1, height, width)


class StackWindow(SlidingLayer):
    """Stack the values of every window into channels: N×C×H×W → N×(C·h·w)×H'×W'.

    Parameters
    ----------
    window
        (height, width) in values.
    dilation
        Distance between neighbouring values of a window.
    order
        The order of channel, row and column inside the new channels: a permutation of ``"CHW"``.
    """

    def __init__(
        self, window: tuple[int, int], dilation: tuple[int, int] = (1, 1), order: str = "CHW"
    ) -> None:
        super().__init__()
        self.window, self.dilation, self.order = window, dilation, order

    def forward(self, x: Tensor) -> Tensor:
        """Stack windows at stride 1."""
        height, width = (
            total - (taps - 1) * apart
            for total, taps, apart in zip(x.shape[-2:], self.window, self.dilation, strict=True)
        )
        shifted = [
            x[..., row : row + height, column : column + width]
            for row in range(0, self.window[0] * self.dilation[0], self.dilation[0])
            for column in range(0, self.window[1] * self.dilation[1], self.dilation[1])
        ]
        samples, channels = x.shape[:2]
        stacked = torch.stack(shifted, 2).reshape(samples, channels, *self.window, height, width)
        return stacked.permute(0, *(1 + "CHW".index(axis) for axis in self.order), 4, 5).flatten(1, 3)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"window={self.window}, dilation={self.dilation}, order={self.order!r}"


class StackPile(SlidingLayer):
    """Stack maps that lie one below the other into channels: N×C×(k·H)×W → N×(C·k)×H×W.

    Parameters
    ----------
    count
        How many maps, k.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Stack the maps."""
        samples, channels, rows, columns = x.shape
        return x.reshape(samples, channels * self.count, rows // self.count, columns)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"count={self.count}"


class DilatedAvgPool2d(SlidingLayer):
    """Average pooling over values that lie ``dilation`` apart, which torch's own does not offer.

    Parameters
    ----------
    kernel_size, stride, padding, dilation
        (height, width) each.
    count_include_pad
        Whether the zeros of the padding count in the mean, as in ``nn.AvgPool2d``.
    overhang
        How many rows and columns windows may reach beyond the end; what lies there does not count.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        *,
        count_include_pad: bool = True,
        overhang: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.count_include_pad, self.overhang = count_include_pad, overhang

    def forward(self, x: Tensor) -> Tensor:
        """Average N×C×H×W."""
        (rows, columns), (below, beside) = self.padding, self.overhang
        total = self._sum(F.pad(x, (columns, columns + beside, rows, rows + below)))
        if not any(self.overhang) and (self.count_include_pad or not any(self.padding)):
            return total / (self.kernel_size[0] * self.kernel_size[1])
        edge = float(self.count_include_pad)
        counted = F.pad(torch.ones_like(x[:1, :1]), (columns, columns, rows, rows), value=edge)
        return total / self._sum(F.pad(counted, (0, beside, 0, below)))

    def _sum(self, x: Tensor) -> Tensor:
        # A box is a column times a row: two short convolutions in place of one large.
        for axis in (0, 1):
            kernel = x.new_ones(x.shape[1], 1, *_along(axis, self.kernel_size))
            stride, dilation = _along(axis, self.stride), _along(axis, self.dilation)
            x = F.conv2d(x, kernel, None, stride, 0, dilation, x.shape[1])
        return x

    def extra_repr(self) -> str:
        """Show the arguments."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, count_include_pad={self.count_include_pad}, overhang={self.overhang}"
        )


class AdaptivePoolWindow(SlidingLayer):
    """Adaptive pooling of every window to k×k, the k·k maps one below the other: N×C×H×W → N×C×(k·k·H')×W'.

    Exact where the window's size is no multiple of k, so that the pooled regions differ in size.

    Parameters
    ----------
    window
        (height, width) of the map the classifier was trained with.
    output_size
        (height, width) k×k that it pooled this map to.
    kind
        ``"mean"`` or ``"max"``.
    dilation
        Distance between neighbouring values of a window.
    """

    def __init__(
        self,
        window: tuple[int, int],
        output_size: tuple[int, int],
        kind: str,
        dilation: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        self.window, self.output_size, self.kind, self.dilation = window, output_size, kind, dilation

    def forward(self, x: Tensor) -> Tensor:
        """Pool windows at stride 1."""
        down, right = self.dilation
        height = x.shape[-2] - (self.window[0] - 1) * down
        width = x.shape[-1] - (self.window[1] - 1) * right
        pooled: dict[tuple[int, int], Tensor] = {}
        regions = []
        for top, bottom in adaptive_regions(self.window[0], self.output_size[0]):
            for left, end in adaptive_regions(self.window[1], self.output_size[1]):
                kernel = bottom - top, end - left
                if kernel not in pooled:
                    pooled[kernel] = self._pool(x, kernel)
                rows, columns = (
                    slice(top * down, top * down + height),
                    slice(left * right, left * right + width),
                )
                regions.append(pooled[kernel][..., rows, columns])
        return torch.cat(regions, 2)

    def _pool(self, x: Tensor, kernel: tuple[int, int]) -> Tensor:
        if self.kind == "max":
            return F.max_pool2d(x, kernel, 1, 0, self.dilation)
        if self.dilation == (1, 1):
            return F.avg_pool2d(x, kernel, 1)
        averaged: Tensor = DilatedAvgPool2d(kernel, dilation=self.dilation)(x)
        return averaged

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"{self.window}, output_size={self.output_size}, {self.kind!r}, dilation={self.dilation}"


class Subsample(SlidingLayer):
    """Keep every ``step``-th position, from the first: how a finer branch meets a coarser one."""

    def __init__(self, step: tuple[int, int]) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """Thin out N×C×H×W."""
        return x[..., :: self.step[0], :: self.step[1]]

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"step={self.step}"


class CropEnd(SlidingLayer):
    """Leave out the last rows and columns: those of a window that a layer with a stride does not reach.

    Parameters
    ----------
    amount
        How many (rows, columns).
    """

    def __init__(self, amount: tuple[int, int]) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, x: Tensor) -> Tensor:
        """Crop N×C×H×W."""
        return x[..., : x.shape[-2] - self.amount[0], : x.shape[-1] - self.amount[1]]

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"amount={self.amount}"


class CropTo(SlidingLayer):
    """Crop a map at its end to the smallest of several: branches can differ by one position at odd sizes."""

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Crop N×C×H×W."""
        height, width = (min(other.shape[axis] for other in (x, *others)) for axis in (-2, -1))
        return x[..., :height, :width]


class PositionsToBatch(SlidingLayer):
    """Make every position a sample of its own: N×C×H×W → (N·H·W)×``shape``.

    Parameters
    ----------
    shape
        What such a layer takes for one sample: ``(C,)`` or ``(C, 1, 1)``.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Move positions into the batch."""
        return x.permute(0, 2, 3, 1).reshape(-1, *self.shape)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"shape={self.shape}"


class BatchToPositions(SlidingLayer):
    """Undo `PositionsToBatch`: (N·H·W)×K×… → N×K×H×W, with N, H and W of ``like``."""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Move positions out of the batch."""
        height, width = like.shape[-2:]
        return x.reshape(-1, height, width, x[0].numel()).permute(0, 3, 1, 2)


def adaptive_regions(extent: int, count: int) -> list[tuple[int, int]]:
    """Return the (start, stop) along one axis that torch's adaptive pooling reads for each output."""
    return [(k * extent // count, -(-(k + 1) * extent // count)) for k in range(count)]


def _along(axis: int, pair: tuple[int, int]) -> tuple[int, int]:
    return (pair[0], 1) if axis == 0 else (1, pair[1])
