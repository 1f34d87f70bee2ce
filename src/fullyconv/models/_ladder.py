"""The head of an FCN: scores that descend from the coarsest map to the image, from grid to grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullyconv.backbones import Backbone
from fullyconv.errors import GeometryError
from fullyconv.geometry import Affine, Interpolation, Interval, Rule, Transposed, Window, crop_offset
from fullyconv.receptive_fields import trace_geometry
from fullyconv.upsampling import UPSAMPLERS, MaxUnpooling, strongest_places

BILINEAR = "transposed_fixed"


@dataclass(frozen=True)
class Grid:
    """Where the positions of a map lie over an image, along both axes, and how many there are at one size."""

    place: Affine
    count: int


def image_grid(size: int) -> Grid:
    """Return the grid of the pixels themselves."""
    return Grid(Affine(), size)


def measured_grids(backbone: Backbone, size: int) -> list[Grid]:
    """Return the grid of every map of a backbone at an image of ``size``×``size``.

    Raises
    ------
    GeometryError
        A map lies over no places of the image, or over other rows than columns.
    """
    return backbone.measured_once(f"grids of {size}", lambda: _measured_grids(backbone, size))


def _measured_grids(backbone: Backbone, size: int) -> list[Grid]:
    geometry = trace_geometry(_Marked(backbone), backbone.image_channels, (size, size))
    rows, columns = ((graph.maps(size), graph.sizes(size)) for graph in geometry.graphs((size, size)))
    grids = []
    for level, stride in enumerate(backbone.strides):
        name = f"marks.{level}"
        place = rows[0][name]
        if place is None or (place, rows[1][name]) != (columns[0][name], columns[1][name]):
            raise GeometryError(
                f"a map of stride {stride} at {place} by rows and {columns[0][name]} by columns",
                "a map that lies over the image, by rows as by columns",
                "choose another backbone",
            )
        grids.append(Grid(place, rows[1][name] - 1))
    return grids


class _Marked(nn.Module):
    """All maps of a backbone in one output, each through a layer that the recorded graph will name.

    The layer adds a row and a column at the end, which moves nothing; one doing nothing would have no node.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.marks = nn.ModuleList(nn.ZeroPad2d((0, 1, 0, 1)) for _ in backbone.strides)

    def forward(self, images: Tensor) -> Tensor:
        marked = [mark(found) for mark, found in zip(self.marks, self.backbone(images), strict=True)]
        total: Tensor = marked[-1]
        for finer in marked[:-1]:
            total = total + finer.mean((1, 2, 3), keepdim=True)
        return total


class Ladder(nn.Module):
    """Scores at the coarsest map, enlarged from grid to grid, with scores of finer maps added on the way.

    Parameters
    ----------
    classes
        K.
    channels
        Of the maps, finest first.
    grids
        Of the image, and then of the maps, finest first.
    finest
        The stride down to which maps are scored. Steps between scored maps are of the kind ``upsampling``;
        all later steps are fixed bilinear ones.
    upsampling
        A key of `UPSAMPLERS`.
    published
        One last step from the finest scored map to the image, and nothing repeated beyond borders. Otherwise
        the scores pass the grids of all finer maps of the backbone on their way, so that scoring one more
        map changes no other step.
    """

    def __init__(
        self,
        classes: int,
        channels: Sequence[int],
        grids: Sequence[Grid],
        *,
        finest: int,
        upsampling: str,
        published: bool,
    ) -> None:
        super().__init__()
        self.strides = [int(grid.place.stride) for grid in grids[1:]]
        self.score = nn.ModuleDict(
            {
                str(stride): _score_layer(width, classes)
                for stride, width in zip(self.strides, channels, strict=True)
                if stride >= finest
            }
        )
        passed = [grid for grid in reversed(grids[1:]) if not published or grid.place.stride >= finest]
        self.step = nn.ModuleDict()
        here = passed[0]
        for fine in passed[1:]:
            stride = int(fine.place.stride)
            kind = upsampling if stride >= finest else BILINEAR
            step = Step(classes, here, fine, kind, repeat=not published)
            self.step[str(stride)] = step
            here = step.arrived
        if here != grids[0]:
            self.step["image"] = Step(classes, here, grids[0], BILINEAR, repeat=not published)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Score maps, finest first, of an image of ``size``: N×K×height×width."""
        maps = dict(zip(map(str, self.strides), features, strict=True))
        scores: Tensor = self.score[str(self.strides[-1])](features[-1])
        for name, module in self.step.items():
            step = cast(Step, module)
            scores = step(scores, maps.get(name))
            skip = self.score[name](maps[name]) if name in self.score else None
            if skip is not None and step.crop < 0:
                scores = cut(skip, -step.crop, scores.shape[-2:]) + scores
                continue
            scores = cut(scores, step.crop, maps[name].shape[-2:] if name in maps else size)
            scores = scores if skip is None else skip + scores
        return scores


class Step(nn.Module):
    """Enlarge scores from the grid of one map to that of a finer one.

    Parameters
    ----------
    classes
        K.
    coarse, fine
        The grids.
    kind
        A key of `UPSAMPLERS`. Transposed convolutions have the kernel whose centre fits the grids; others
        put pixels around their coarse one, and where the grids want them half a pixel farther on, the mean of
        two neighbours is taken.
    repeat
        Repeat the scores at the border outwards as far as the fine grid reaches.

    Attributes
    ----------
    crop : int
        Leading rows and columns of what `forward` returns that lie before the fine grid; less than zero
        where the fine grid begins before.
    arrived : Grid
        Where the result lies once the one that begins before has been cut to the other.

    Raises
    ------
    GeometryError
        The grids lie a fraction of a position apart.
    """

    def __init__(self, classes: int, coarse: Grid, fine: Grid, kind: str, *, repeat: bool) -> None:
        super().__init__()
        ratio = coarse.place.stride / fine.place.stride
        if ratio.denominator != 1:
            raise GeometryError(
                f"maps of strides {coarse.place.stride} and {fine.place.stride}",
                "strides of which one divides the other",
                "choose other layers of the backbone",
            )
        factor = int(ratio)
        apart = (coarse.place.offset - fine.place.offset) / fine.place.stride
        self.enlarge, self.average, rules = _enlargement(kind, classes, factor, apart)
        place = coarse.place
        for rule in rules:
            place = place.after(rule.affine(coarse.count))
        self.crop = (
            crop_offset(place, fine.place)
            if place.offset <= fine.place.offset
            else -crop_offset(fine.place, place)
        )
        self.before = self.after = 0
        if repeat:
            read = Interval(self.crop, self.crop + fine.count)
            for rule in reversed(rules):
                read = rule.reads(read, coarse.count)
            self.before, self.after = max(0, -read.start), max(0, read.stop - coarse.count)
            self.crop += self.before * factor  # repeated scores come before the first
        self.arrived = fine if self.crop >= 0 else Grid(place, fine.count)

    def forward(self, scores: Tensor, finer: Tensor | None = None) -> Tensor:
        """Take N×K×h×w to a map of the fine grid's stride, to be cut to its size.

        ``finer`` is the backbone's map on the fine grid, where there is one.
        """
        if self.before or self.after:
            scores = F.pad(scores, (self.before, self.after) * 2, mode="replicate")
        if isinstance(self.enlarge, MaxUnpooling):
            assert finer is not None, "only steps between scored maps are of a chosen kind"
            height, width = (length * self.enlarge.factor for length in scores.shape[-2:])
            places = strongest_places(cut(finer, -self.crop, (height, width)), self.enlarge.factor)
            enlarged = self.enlarge(scores, places)
        else:
            enlarged = self.enlarge(scores)
        result: Tensor = self.average(enlarged)
        return result


class FixedBilinear(nn.Module):
    """A transposed convolution of one fixed kernel for every channel."""

    kernel: Tensor

    def __init__(self, kernel: Tensor, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("kernel", kernel[None, None], persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Take N×K×h×w to N×K×((h−1)·f+k)×((w−1)·f+k)."""
        classes = scores.shape[1]
        return F.conv_transpose2d(
            scores, self.kernel.expand(classes, -1, -1, -1), stride=self.factor, groups=classes
        )


def _enlargement(
    kind: str, classes: int, factor: int, apart: Fraction
) -> tuple[nn.Module, nn.Module, tuple[Rule, ...]]:
    """Return what enlarges, what averages after it, and the geometry of both.

    ``apart`` is from the first fine position to the coarse.
    """
    if kind not in ("transposed", "transposed_fixed", "bilinear"):
        upsampler = UPSAMPLERS[kind](classes, factor)
        around = Interpolation("bilinear", Fraction(factor))
        if (apart - Fraction(factor - 1, 2)).denominator == 1:
            return upsampler, nn.Identity(), (around,)
        return upsampler, nn.AvgPool2d(2, stride=1), (around, Window(2))
    # An odd kernel's centre is a position, an even one's lies between two.
    side = 2 * factor - (apart.denominator == 1)
    kernel = _tent(side, factor)
    if kind != "transposed":
        return FixedBilinear(kernel, factor), nn.Identity(), (Transposed(side, factor),)
    learned = nn.ConvTranspose2d(classes, classes, side, stride=factor, bias=False)
    with torch.no_grad():
        learned.weight.copy_(torch.eye(classes)[:, :, None, None] * kernel)
    return learned, nn.Identity(), (Transposed(side, factor),)


def _tent(side: int, factor: int) -> Tensor:
    line = 1 - (torch.arange(side) - (side - 1) / 2).abs() / factor
    return torch.outer(line, line)


def _score_layer(channels: int, classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, classes, 1)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def cut(scores: Tensor, start: int, size: Sequence[int]) -> Tensor:
    """Return ``size`` rows and columns from ``start`` on."""
    # Padding by less than nothing: a slice would make torch.export settle for sizes of one remainder.
    height, width = scores.shape[-2:]
    return F.pad(scores, (-start, start + size[1] - width, -start, start + size[0] - height))
