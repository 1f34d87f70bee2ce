"""Tiles: they partition the output, and put together they equal the prediction of the whole image."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fullyconv.errors import ConfigError, GeometryError
from fullyconv.inference.plans import TilePlan
from fullyconv.inference.tiles import plan_tiles
from fullyconv.models.fcn import FCN
from fullyconv.models.unet import UNet
from fullyconv.receptive_fields import trace_geometry
from fullyconv.upsampling import UPSAMPLERS

CHANNELS = 2


def whole(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(image)


def tiled(model: nn.Module, image: torch.Tensor, plan: TilePlan) -> torch.Tensor:
    """Predict tile by tile; what no tile writes stays NaN."""
    result = None
    for tile in plan:
        scores = whole(model, image[(..., *tile.read.slices)])
        if result is None:
            result = torch.full((*scores.shape[:2], *plan.output_size), torch.nan)
        result[(..., *tile.write.slices)] = scores[(..., *tile.inside.slices)]
    return result


def assert_equal(model: nn.Module, size: tuple[int, int], plan: TilePlan) -> None:
    image = torch.rand(1, CHANNELS, *size) * 255
    expected = whole(model, image)
    scale = max(1.0, expected.abs().max().item())
    assert expected.shape[2:] == plan.output_size
    difference = (tiled(model, image, plan) - expected).abs().max().item() / scale
    assert difference <= 1e-4  # NaN, where nothing is written, is not


def assert_partition(plan: TilePlan) -> None:
    written = torch.zeros(plan.output_size, dtype=torch.int32)
    for tile in plan:
        written[tile.write.slices] += 1
        assert tile.write.size == tile.inside.size
        assert tile.read.size == plan.tile_size
        assert min(tile.write.size) >= 1
        assert tile.inside.rows.start >= 0 <= tile.inside.columns.start
        assert tile.read.rows.start >= 0 <= tile.read.columns.start
        assert tile.read.rows.stop <= plan.image_size[0]
        assert tile.read.columns.stop <= plan.image_size[1]
    assert (written == 1).all()


# --- U-Nets of any size -------------------------------------------------------------------------------

UNETS = {depth: UNet(2, channels=CHANNELS, widths=(4, 4, 6, 6)[: depth + 1]).eval() for depth in (1, 2, 3)}
GEOMETRIES = {depth: trace_geometry(model, CHANNELS) for depth, model in UNETS.items()}

sides = st.integers(1, 200)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(UNETS)), sides, sides, st.integers(20, 200), st.integers(20, 200), st.booleans())
def test_tiled_equals_whole(depth, height, width, tall, wide, shrink):
    try:
        plan = plan_tiles(GEOMETRIES[depth], (height, width), (tall, wide), shrink=shrink)
    except ConfigError:
        assume(False)
    assert plan.exact
    assert plan.tile_size[0] <= tall
    assert plan.tile_size[1] <= wide
    assert_partition(plan)
    assert_equal(UNETS[depth], (height, width), plan)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(UNETS)), sides, sides, st.integers(20, 200), st.integers(1, 40))
def test_borders_between_tiles_fall_on_multiples(depth, height, width, tile, align):
    try:
        plan = plan_tiles(GEOMETRIES[depth], (height, width), tile, align=align)
    except ConfigError:
        assume(False)
    assert_partition(plan)
    for written in plan:
        assert written.write.rows.start % align == 0
        assert written.write.columns.start % align == 0
    assert_equal(UNETS[depth], (height, width), plan)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(UNETS)), sides, st.integers(1, 200))
def test_the_least_tile_is_named_and_suffices(depth, height, tile):
    geometry = GEOMETRIES[depth]
    try:
        plan_tiles(geometry, (height, 9), tile)
    except ConfigError as error:
        least = int(error.expected.split()[2].rstrip(":"))
        assert least > tile
        plan = plan_tiles(geometry, (height, 9), least)
        assert_partition(plan)
        with pytest.raises(ConfigError):
            plan_tiles(geometry, (height, 9), least - 1)
    else:
        assert tile >= 9


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(UNETS)), sides, sides, st.integers(100, 200))
def test_shrinking_saves_work_and_no_tiles(depth, height, width, tile):
    try:
        small = plan_tiles(GEOMETRIES[depth], (height, width), tile)
    except ConfigError:
        assume(False)
    large = plan_tiles(GEOMETRIES[depth], (height, width), tile, shrink=False)
    assert small.count == large.count
    assert 1 <= small.overlap_cost <= large.overlap_cost
    for axis in (large.rows, large.columns):
        assert axis.count == 1 or tile - 2**depth < axis.tile_size <= tile


# --- other networks -----------------------------------------------------------------------------------


def conv(kernel=3, stride=1, padding=1, inputs=CHANNELS, **options):
    return nn.Conv2d(inputs, CHANNELS, kernel, stride, padding, **options)


class Skip(nn.Module):
    """Coarse scores resized to the image's size and added to fine ones."""

    def __init__(self, resize):
        super().__init__()
        self.fine = conv()
        self.down = nn.Sequential(conv(3, 2, 1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), conv())
        self.resize = resize

    def forward(self, x):
        return self.fine(x) + self.resize(self.down(x), x)


def to_size(coarse, x):
    return F.interpolate(coarse, size=x.shape[-2:], mode="bilinear")


def by_factor(coarse, x):
    return F.interpolate(coarse, scale_factor=4, mode="bilinear")[..., : x.shape[-2], : x.shape[-1]]


NETWORKS = {
    "convolutions": nn.Sequential(conv(), nn.ReLU(), conv(5, 1, 2)),
    "reflected": nn.Sequential(conv(padding_mode="reflect"), conv(5, 1, 2, padding_mode="replicate")),
    "dense classifier": nn.Sequential(
        conv(3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), conv(3, 2), conv(4, 1, 0)
    ),
    "rounding down": nn.Sequential(conv(), nn.MaxPool2d(2), conv(), nn.AvgPool2d(2), conv(2, 1, 0)),
    "averages": nn.Sequential(nn.AvgPool2d(3, 2, 1, ceil_mode=True), conv(), nn.Upsample(scale_factor=2)),
    "transposed": nn.Sequential(conv(3, 2), nn.ConvTranspose2d(2, 2, 4, 2, 1), conv()),
    "super resolution": nn.Sequential(conv(), nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2), conv()),
    "padded by 100": nn.Sequential(conv(3, 1, 20), nn.MaxPool2d(2, ceil_mode=True), conv(7, 1, 0)),
    "crop by factor": Skip(by_factor),
    **{
        f"unet {name}": UNet(2, channels=CHANNELS, widths=(3, 4, 5), upsampling=name)
        for name in sorted(UPSAMPLERS)
    },
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(131, 96), (100, 203)], ids=["131×96", "100×203"])
def test_tiled_equals_whole_on_other_networks(name, size):
    torch.manual_seed(0)
    model = NETWORKS[name].eval()
    geometry = trace_geometry(model, CHANNELS)
    plan = plan_tiles(geometry, size, (97, 101))
    assert plan.exact, plan.reasons
    assert plan.count > 1
    assert_partition(plan)
    assert_equal(model, size, plan)


@pytest.mark.parametrize(
    ("backbone", "alignment", "tile"),
    [("resnet18", "same", 800), ("alexnet", "paper", 700)],
)
def test_tiled_equals_whole_on_fcns(backbone, alignment, tile):
    torch.manual_seed(0)
    model = FCN(backbone, 2, 32 if alignment == "paper" else 8, channels=CHANNELS, alignment=alignment).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("head.score"):  # starts at zero
            nn.init.normal_(parameter, std=0.1)
    plan = plan_tiles(trace_geometry(model, CHANNELS), (901, 37), tile)
    assert plan.exact, plan.reasons
    assert plan.count > 1
    assert_partition(plan)
    assert_equal(model, (901, 37), plan)


def test_the_published_unet_on_a_mirrored_image():
    model = UNet(2, channels=CHANNELS, widths=(2, 3, 3), padding="valid", norm=None).eval()
    size = (44 + 4 * 20, 44 + 4 * 31)
    plan = plan_tiles(trace_geometry(model, CHANNELS), size, 92)
    assert plan.exact
    assert plan.count > 2
    assert plan.halo == ((0, 0), (0, 0))
    assert_partition(plan)
    assert_equal(model, size, plan)


def test_a_halo_one_smaller_would_not_do():
    model = copy.deepcopy(NETWORKS["convolutions"])
    for parameter in model.parameters():  # so that every zero beyond a border is felt
        nn.init.constant_(parameter, 0.1)
    plan = plan_tiles(trace_geometry(model, CHANNELS), (60, 10), 30)
    assert plan.halo == ((3, 3), (0, 0))
    tile = plan[1]
    scores = whole(model, torch.ones(1, CHANNELS, *tile.read.size))
    expected = whole(model, torch.ones(1, CHANNELS, 60, 10))[..., tile.read.rows.start :, :]
    assert torch.allclose(scores[:, :, 3], expected[:, :, 3])
    assert not torch.allclose(scores[:, :, 2], expected[:, :, 2])


# --- what cannot be exact -----------------------------------------------------------------------------


def test_global_context_is_named_and_planned_for_blending():
    model = nn.Sequential(conv(), nn.GroupNorm(1, CHANNELS))
    plan = plan_tiles(trace_geometry(model, CHANNELS), (100, 40), 40)
    assert not plan.exact
    assert plan.reasons == ("1 (group_norm) depends on the whole image",)
    assert_partition(plan)
    starts = [plan.rows.read(i).start for i in range(plan.rows.count)]
    assert max(b - a for a, b in pairwise(starts)) <= plan.tile_size[0] / 2


def test_global_context_matters_only_where_an_image_is_cut():
    model = nn.Sequential(conv(), nn.GroupNorm(1, CHANNELS))
    plan = plan_tiles(trace_geometry(model, CHANNELS), (40, 30), 40)
    assert plan.exact
    assert plan.count == 1


def test_a_resize_to_the_image_is_exact_where_its_factor_is():
    model = Skip(to_size).eval()
    geometry = trace_geometry(model, CHANNELS)
    even = plan_tiles(geometry, (128, 96), 64)
    assert even.exact
    assert_equal(model, (128, 96), even)
    odd = plan_tiles(geometry, (130, 96), 64)
    assert not odd.exact
    assert "interpolate" in odd.reasons[0] or "strides" in odd.reasons[0]
    assert_partition(odd)


def test_scores_stretched_to_the_image_are_planned_for_blending():
    class Stretched(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(5, 2, 0)

        def forward(self, x):
            return F.interpolate(self.conv(x), size=x.shape[-2:], mode="bilinear")

    plan = plan_tiles(trace_geometry(Stretched(), CHANNELS), (101, 64), 50)
    assert not plan.exact
    assert_partition(plan)


def test_an_output_of_a_fixed_size_is_refused():
    class Fixed(nn.Module):
        def forward(self, x):
            return F.pad(x[..., :500, :], (0, 0, 0, 500 - x.shape[-2]))

    with pytest.raises(GeometryError, match="500×8"):
        plan_tiles(trace_geometry(Fixed(), CHANNELS, (300, 8)), (300, 8), 100)


def test_a_shift_by_the_size_is_named():
    class Shifted(nn.Module):
        def forward(self, x):
            part = x.shape[-2] // 30
            return F.pad(x, (0, 0, -part, part))

    plan = plan_tiles(trace_geometry(Shifted(), CHANNELS), (300, 8), 100)
    assert not plan.exact
    assert "size" in plan.reasons[0]


def test_a_network_that_branches_on_size_is_named():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv()

        def forward(self, x):
            return self.conv(x) if x.shape[-2] > 200 else x

    plan = plan_tiles(trace_geometry(Branching(), CHANNELS), (300, 8), 100)
    assert plan.reasons == ("the network takes other steps for a tile than for the whole image",)


# --- the plan itself ----------------------------------------------------------------------------------


def test_a_plan_of_gigapixels_is_made_tile_by_tile():
    plan = plan_tiles(GEOMETRIES[2], (1 << 20, 1 << 20), 1024, align=256)
    assert len(plan) == plan.count > 1_000_000
    last = plan[len(plan) - 1]
    assert last.index == len(plan) - 1
    assert last.read.rows.stop == last.write.rows.stop == 1 << 20
    assert next(iter(plan)).write.rows.start == 0
    before, after = plan[plan.columns.count * 7], plan[plan.columns.count * 8]
    assert before.write.rows.stop == after.write.rows.start
    assert before.read.rows.stop > after.read.rows.start


def test_a_plan_says_what_it_costs():
    plan = plan_tiles(GEOMETRIES[1], (300, 120), (80, 120))
    assert plan.image_size == plan.output_size == (300, 120)
    assert plan.tile_size[1] == 120
    assert plan.tile_size[0] % 2 == 0
    assert plan.halo[1] == (0, 0)
    assert plan.overlap_cost == pytest.approx(plan.count * plan.tile_size[0] / 300)


@pytest.mark.parametrize("index", [-1, 1])
def test_an_index_beyond_the_plan_is_refused(index):
    plan = plan_tiles(GEOMETRIES[1], (10, 10), 20)
    with pytest.raises(IndexError):
        plan[index]


@pytest.mark.parametrize(("tile", "align"), [(0, 1), ((5, -1), 1), (50, 0)])
def test_sizes_below_one_are_refused(tile, align):
    with pytest.raises(ConfigError, match="at least 1"):
        plan_tiles(GEOMETRIES[1], (10, 10), tile, align=align)


def test_an_image_too_small_for_the_network_is_refused():
    geometry = trace_geometry(nn.Conv2d(CHANNELS, 1, 9), CHANNELS)
    with pytest.raises(GeometryError, match="8×30"):
        plan_tiles(geometry, (8, 30), 20)
