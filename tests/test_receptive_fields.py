"""Traced geometry against impulse probes: one row of the image is changed, and some output rows show it."""

from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fullyconv.errors import GeometryError
from fullyconv.geometry import Interval
from fullyconv.models.unet import UNet
from fullyconv.receptive_fields import Geometry, trace_geometry
from fullyconv.receptive_fields._operations import (
    _BROADCASTING,
    _POINTWISE,
    MODULES,
    OPERATIONS,
)
from fullyconv.upsampling import UPSAMPLERS, max_pool

CHANNELS = 4


def convolution() -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)


class Does(nn.Module):
    """A network of one function, with parameters where it needs some."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.function(self, x)


def positive(model: nn.Module) -> nn.Module:
    """A copy in which nothing cancels out and no activation is dead."""
    model = copy.deepcopy(model).double().eval()
    for parameter in model.parameters():
        parameter.data.abs_().add_(0.01)
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU6):  # would be saturated
                setattr(parent, name, nn.ReLU())
    return model


def dependencies(
    model: nn.Module, size: tuple[int, int], axis: int = 0, channels: int = CHANNELS
) -> list[set[int]]:
    """For every output row (or column), the input rows it depends on: those whose change it shows."""
    model, image = positive(model), torch.rand(1, channels, *size, dtype=torch.float64)
    with torch.no_grad():
        before = model(image)
        found: list[set[int]] = [set() for _ in range(before.shape[2 + axis])]
        for i in range(size[axis]):
            changed = image.clone()
            changed.select(2 + axis, i).add_(1000)
            moved = (model(changed) != before).any(dim=(0, 1)).any(dim=1 - axis)
            for o in moved.nonzero():
                found[o].add(i)
    return found


def intervals(geometry: Geometry, size: tuple[int, int], axis: int = 0) -> list[Interval]:
    whole = [Interval(0, n) for n in geometry.output_size(size)]
    found = []
    for o in range(whole[axis].size):
        whole[axis] = Interval(o, o + 1)
        found.append(geometry.input_interval((whole[0], whole[1]), size)[axis])
    return found


def interval_of(found: set[int]) -> Interval:
    return Interval(min(found), max(found) + 1)


# --- random networks ----------------------------------------------------------------------------------


@st.composite
def layers(draw):
    kind = draw(st.sampled_from(["conv", "max", "avg", "transposed", "resize", "pad", "shuffle"]))
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, 1))
    if kind == "conv":
        dilation = draw(st.integers(1, 2))
        return nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, dilation)
    if kind == "max":
        return nn.MaxPool2d(kernel, stride, min(padding, kernel // 2), ceil_mode=draw(st.booleans()))
    if kind == "avg":
        return nn.AvgPool2d(kernel, stride, min(padding, kernel // 2), ceil_mode=draw(st.booleans()))
    if kind == "transposed":
        output_padding = draw(st.integers(0, stride - 1))
        return nn.ConvTranspose2d(CHANNELS, CHANNELS, kernel, stride, padding, output_padding)
    if kind == "resize":
        mode = draw(st.sampled_from(["nearest", "bilinear", "nearest-exact", "bicubic"]))
        return nn.Upsample(scale_factor=draw(st.sampled_from([2, 0.5])), mode=mode)
    if kind == "pad":
        return draw(st.sampled_from([nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d]))(padding + 1)
    return nn.Sequential(nn.Conv2d(CHANNELS, 4 * CHANNELS, 1), nn.PixelShuffle(2))


class Branching(nn.Module):
    """Two branches, cut to one size and added, then more layers."""

    def __init__(self, left, right, after):
        super().__init__()
        self.left, self.right, self.after = nn.Sequential(*left), nn.Sequential(*right), nn.Sequential(*after)

    def forward(self, x):
        left, right = self.left(x), self.right(x)
        height = min(left.shape[-2], right.shape[-2])
        width = min(left.shape[-1], right.shape[-1])
        start = (right.shape[-2] - height) // 2
        joined = left[..., :height, :width] + right[:, :, start : start + height, :width]
        return self.after(F.relu(joined))


networks = st.builds(
    Branching, st.lists(layers(), max_size=3), st.lists(layers(), max_size=2), st.lists(layers(), max_size=2)
)


@settings(max_examples=60, deadline=None)
@given(networks, st.integers(6, 24), st.integers(6, 24), st.integers(0, 1))
def test_random_networks_depend_on_nothing_beyond_their_intervals(model, height, width, axis):
    try:
        geometry = trace_geometry(model, CHANNELS, (height, width))
        found = dependencies(model, (height, width), axis)
    except (GeometryError, RuntimeError):
        assume(False)
    needed = intervals(geometry, (height, width), axis)
    assert len(needed) == len(found)
    for reads, interval in zip(found, needed, strict=True):
        assert reads <= set(range(*interval))
    assert not geometry.global_context


def dense(kernel, stride, padding):
    return nn.Conv2d(CHANNELS, CHANNELS, kernel + stride - 1, stride, min(padding, kernel - 1))


gapless = st.one_of(
    st.builds(dense, st.integers(1, 3), st.integers(1, 2), st.integers(0, 1)),
    st.just(nn.MaxPool2d(2, ceil_mode=True)),
    st.just(nn.Upsample(scale_factor=2, mode="bilinear")),
    st.just(nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, 2, 1)),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(gapless, min_size=1, max_size=4), st.integers(8, 24))
def test_random_chains_depend_on_all_of_their_intervals(chain, height):
    model = nn.Sequential(*chain)
    size = (height, 16)
    try:
        geometry = trace_geometry(model, CHANNELS, size)
    except GeometryError:
        assume(False)
    found = dependencies(model, size)
    assert [interval_of(reads) for reads in found] == intervals(geometry, size)


# --- every operation of the table ---------------------------------------------------------------------

OPERATION_SAMPLES = {
    "conv2d": lambda m, x: F.conv2d(x, m.conv.weight.to(x), None, 2, (2, 1), (2, 1)),
    "conv_transpose2d": lambda m, x: F.conv_transpose2d(
        x, m.conv.weight.to(x), None, 2, 1, (1, 0), 1, (1, 2)
    ),
    "max_pool2d": lambda m, x: torch.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max_pool2d_with_indices": lambda m, x: F.max_pool2d(x, 3, return_indices=True)[0],
    "avg_pool2d": lambda m, x: F.avg_pool2d(x, 2, ceil_mode=True),
    "lp_pool2d": lambda m, x: F.lp_pool2d(x, 1, 2),
    "max_unpool2d": lambda m, x: F.max_unpool2d(
        *F.max_pool2d(x, 2, return_indices=True), 2, output_size=x.shape[-2:]
    ),
    "adaptive_avg_pool2d": lambda m, x: x + F.adaptive_avg_pool2d(x, (1, None)),
    "adaptive_max_pool2d": lambda m, x: F.adaptive_max_pool2d(x, 3),
    "adaptive_max_pool2d_with_indices": lambda m, x: F.adaptive_max_pool2d(
        x, x.shape[-2:], return_indices=True
    )[0],
    "interpolate": lambda m, x: F.interpolate(x, size=(31, 17), mode="bilinear"),
    "upsample": lambda m, x: F.interpolate(x, scale_factor=(2, 3), mode="nearest"),
    "pixel_shuffle": lambda m, x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda m, x: F.pixel_unshuffle(x, 2),
    "unfold": lambda m, x: F.unfold(x, 3, padding=1).view(len(x), -1, *x.shape[-2:]),
    "pad": lambda m, x: F.pad(x, (1, 2, -1, 3), mode="constant", value=1.0),
    "__getitem__": lambda m, x: x[:, :, 1:-2, None, ::2].squeeze(3)[..., 1::3, :],
    "view": lambda m, x: x.view(len(x), 2, 2, *x.shape[-2:]).transpose(1, 2).reshape(x.shape),
    "reshape": lambda m, x: m.conv(x.reshape(len(x), CHANNELS, -1).reshape(x.shape)),
    "flatten": lambda m, x: m.conv(x.flatten(2).unflatten(2, x.shape[-2:])),
    "unflatten": lambda m, x: x.unflatten(1, (2, -1)).sum(1),
    "squeeze": lambda m, x: x[:, :1].squeeze(1).unsqueeze(1),
    "unsqueeze": lambda m, x: x.unsqueeze(0)[0],
    "view_as": lambda m, x: m.conv(x.flatten(2).view_as(x)),
    "reshape_as": lambda m, x: m.conv(x.flatten(2).reshape_as(x)),
    "permute": lambda m, x: m.conv(x.permute(0, 3, 1, 2).permute(0, 2, 3, 1)),
    "transpose": lambda m, x: m.conv(x.transpose(1, 3).transpose(3, 1)),
    "swapaxes": lambda m, x: x.swapaxes(1, 3).swapaxes(1, 3),
    **{
        name: lambda m, x, name=name: getattr(x, name)(dim=1, keepdim=True)
        for name in ("mean", "sum", "amax", "amin", "var", "std", "argmax", "logsumexp")
    },
    "max": lambda m, x: x.max(1, keepdim=True)[0],
    "min": lambda m, x: x.movedim(1, 1).min(1, keepdim=True).values,
    "softmax": lambda m, x: x.softmax(1),
    "log_softmax": lambda m, x: F.log_softmax(x, dim=1),
    "normalize": lambda m, x: F.normalize(x, dim=1),
    "chunk": lambda m, x: x.chunk(2, dim=1)[1],
    "split": lambda m, x: x.split([1, 3], dim=1)[1],
    "tensor_split": lambda m, x: x.tensor_split(2, dim=1)[0],
    "unbind": lambda m, x: x.unbind(1)[2].unsqueeze(1),
    "cat": lambda m, x: torch.cat([x, m.conv(x)], dim=1),
    "concat": lambda m, x: torch.concat([x, x], dim=1),
    "stack": lambda m, x: m.conv(torch.stack([x, x], dim=-1).sum(-1)),
    "linear": lambda m, x: F.linear(x.permute(0, 2, 3, 1), torch.ones(5, CHANNELS).to(x)).permute(0, 3, 1, 2),
    "layer_norm": lambda m, x: F.layer_norm(x.permute(0, 2, 3, 1), (CHANNELS,)).permute(0, 3, 1, 2),
    "batch_norm": lambda m, x: F.batch_norm(x, torch.zeros(CHANNELS).to(x), torch.ones(CHANNELS).to(x)),
    "instance_norm": lambda m, x: F.instance_norm(
        x, torch.zeros(CHANNELS).to(x), torch.ones(CHANNELS).to(x), use_input_stats=False
    ),
    "group_norm": lambda m, x: F.group_norm(x, 2),
}
MIXING = {"adaptive_avg_pool2d", "adaptive_max_pool2d", "group_norm", "min"}
QUIET = {"argmax", "max_unpool2d", "pad", "conv_transpose2d"}  # some outputs show no change


def test_every_operation_has_a_sample():
    assert set(OPERATION_SAMPLES) == set(OPERATIONS) - set(_POINTWISE) - set(_BROADCASTING)


@pytest.mark.parametrize("name", sorted(OPERATION_SAMPLES))
@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_operations_depend_on_nothing_beyond_their_intervals(name, axis):
    model, size = Does(OPERATION_SAMPLES[name], conv=convolution()), (12, 10)
    geometry = trace_geometry(model, CHANNELS, size)
    found = dependencies(model, size, axis)
    for reads, interval in zip(found, intervals(geometry, size, axis), strict=True):
        assert reads <= set(range(*interval))
        if name not in QUIET | MIXING:
            assert reads  # the probe probes
    assert bool(geometry.global_context) == (name in MIXING)


def called(name: str):
    """A function of this name, wherever torch keeps it."""
    for owner in (torch.Tensor, F, torch):
        for spelled in (name, f"{name}_"):
            if hasattr(owner, spelled):
                return getattr(owner, spelled)
    return None


SINGLE = {"data", "cuda"}  # a property; another machine


@pytest.mark.parametrize("name", sorted({*_POINTWISE, *_BROADCASTING} - SINGLE))
def test_pointwise_operations_keep_positions_apart(name):
    function = called(name)
    assert function is not None, "torch has no such operation"
    x = torch.rand(1, CHANNELS, 5, 6, dtype=torch.float64) * 0.5 + 0.25
    y = x.clone()
    y[..., 2, 3] = 0.9
    # Arguments of the first form that fits; tensors twice where two are compared.
    mask = x > 0.5
    forms = [
        (),
        (x,),
        (0.5,),
        (x, x),
        (0.1, 0.2),
        (mask, 0.5),
        (torch.float64,),
        (x.dtype,),
        (1, CHANNELS, 5, 6),
        (2,),
    ]
    outcome = None
    for form in forms:
        try:
            torch.manual_seed(0)
            a = function(x.clone(), *form)
            torch.manual_seed(0)
            b = function(y.clone(), *form)
        except (TypeError, RuntimeError, ValueError):
            continue
        if isinstance(a, torch.Tensor) and a.shape[-2:] == x.shape[-2:]:
            outcome = (a, b)
            break
    assert outcome is not None or name in {
        "__and__",
        "__or__",
        "__invert__",
        "where",
        "lerp",
        "prelu",
        "dropout1d",
        "feature_dropout",
    }
    if outcome is not None:
        changed = (outcome[0] != outcome[1]) & ~(outcome[0].isnan() & outcome[1].isnan())
        changed[..., 2, 3] = False
        assert not changed.any()


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_same_padding_of_even_kernels(axis):
    model = nn.Conv2d(CHANNELS, CHANNELS, (4, 2), padding="same", dilation=(1, 3))
    geometry = trace_geometry(model, CHANNELS, (12, 10))
    found = [interval_of(reads) for reads in dependencies(model, (12, 10), axis)]
    middle = slice(3, -3)  # near the border, the holes of a dilated kernel show
    assert found[middle] == intervals(geometry, (12, 10), axis)[middle]


@pytest.mark.parametrize("module", list(MODULES), ids=lambda module: module.__name__)
def test_modules_with_rules_depend_on_nothing_beyond_their_intervals(module):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = module(CHANNELS, 2)
            self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

        def forward(self, x):
            return self.conv(self.up(*max_pool(self.conv(x))))

    geometry = trace_geometry(Pooled(), CHANNELS, (12, 8))
    assert not geometry.global_context
    found = dependencies(Pooled(), (12, 8))
    for reads, interval in zip(found, intervals(geometry, (12, 8)), strict=True):
        assert reads <= set(range(*interval))


# --- whole networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("upsampling", ["up_convolution", *UPSAMPLERS])
@pytest.mark.parametrize("size", [(33, 16), (42, 19)], ids=["33", "42"])
def test_unets_depend_on_their_intervals(upsampling, size):
    model = UNet(2, channels=CHANNELS, widths=(2, 3, 4), upsampling=upsampling)
    geometry = trace_geometry(model, CHANNELS)
    assert geometry.stride == (4, 4)
    assert geometry.offset == (0, 0)
    assert geometry.output_stride == (1, 1)
    assert not geometry.global_context
    found = dependencies(model, size)
    needed = intervals(geometry, size)
    for reads, interval in zip(found, needed, strict=True):
        assert reads <= set(range(*interval))
    if upsampling in ("up_convolution", "nearest", "bilinear", "transposed"):
        assert [interval_of(reads) for reads in found] == needed


def test_the_published_unet():
    geometry = trace_geometry(UNet.published(2), 1)
    assert geometry.output_size((572, 604)) == (388, 420)
    assert geometry.offset == (92, 92)
    assert geometry.stride == (16, 16)
    assert geometry.input_interval((Interval(0, 388), Interval(0, 1)), (572, 572)) == ((0, 572), (0, 188))


def test_a_corner_of_an_unpadded_unet_depends_on_the_ends_of_its_interval():
    model, size = positive(UNet(2, channels=1, widths=(2,) * 5, padding="valid", norm=None)), (204, 188)
    assert trace_geometry(model, 1).input_interval((Interval(0, 1), Interval(0, 1)), size)[0] == (0, 188)
    image = torch.rand(1, 1, *size, dtype=torch.float64)
    within, beyond = image.clone(), image.clone()
    within[:, :, 187] += 1000
    beyond[:, :, 188] += 1000
    with torch.no_grad():
        corner = model(image)[..., 0, 0]
        assert not torch.equal(model(within)[..., 0, 0], corner)
        assert torch.equal(model(beyond)[..., 0, 0], corner)


def trunk(name: str) -> nn.Module:
    network = getattr(torchvision.models, name)(weights=None)
    return nn.Sequential(*list(network.children())[:-2]) if name.startswith("resnet") else network.features


@pytest.mark.parametrize(
    ("name", "field", "offset"),
    [("vgg16", 212, Fraction(31, 2)), ("resnet18", 435, 0), ("mobilenet_v2", 491, 0)],
)
def test_published_receptive_fields_of_backbones(name, field, offset):
    geometry = trace_geometry(trunk(name), 3)
    assert geometry.stride == (32, 32)
    assert geometry.output_stride == (32, 32)
    assert geometry.receptive_field == (field, field)
    assert geometry.offset == (offset, offset)
    assert not geometry.global_context


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "resnet18", "mobilenet_v2"])
def test_backbones_depend_on_the_ends_of_their_intervals_and_not_on_their_neighbours(name):
    model, size = positive(trunk(name)), (608, 32)
    output = 10
    geometry = trace_geometry(model, 3)
    start, stop = geometry.input_interval((Interval(output, output + 1), Interval(0, 1)), size)[0]
    assert start > 0
    assert stop < size[0]
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    shown = []
    with torch.no_grad():
        before = model(image)[:, :, output]
        for row in (start - 1, start, stop - 1, stop):
            changed = image.clone()
            changed[:, :, row] += 1000
            shown.append(not torch.equal(model(changed)[:, :, output], before))
    assert shown == [False, True, True, False]


# --- the whole image ----------------------------------------------------------------------------------


class Squeeze(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x):
        x = self.conv(x)
        gate = self.excite(self.pool(x).flatten(1)).sigmoid()
        return x * gate.view(*gate.shape, 1, 1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return tokens.transpose(1, 2).reshape(x.shape)


def scaled_attention(m, x):
    q = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(x.shape)


CONTEXTS = {
    "squeeze and excite": (Squeeze(), "pool"),
    "attention": (Attention(), "attention"),
    "scaled attention": (Does(scaled_attention), ""),
    "instance norm": (nn.Sequential(convolution(), nn.InstanceNorm2d(CHANNELS)), "1"),
    "group norm": (nn.Sequential(convolution(), nn.GroupNorm(2, CHANNELS)), "1"),
    "layer norm over space": (nn.LayerNorm([24, 20]), ""),
    "mean over space": (Does(lambda m, x: x - x.mean((2, 3), keepdim=True)), ""),
    "mean over rows, dropped": (Does(lambda m, x: x - x.mean(2)[:, :, None]), ""),
    "softmax over space": (Does(lambda m, x: x.flatten(2).softmax(-1).view(x.shape)), ""),
    "aligned corners": (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), ""),
    "pyramid pooling": (nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Upsample((24, 20))), "0"),
    "circular padding": (nn.Sequential(nn.Conv2d(CHANNELS, 2, 3, padding=1, padding_mode="circular")), "0"),
    "flip": (Does(lambda m, x: x + x.flip(2)), ""),
    "roll": (Does(lambda m, x: torch.roll(x, 1, 2)), ""),
    "coordinates": (Does(lambda m, x: x + torch.arange(x.shape[-1]).to(x)), ""),
    "assignment": (Does(lambda m, x: assigned(x)), ""),
    "cat over space": (Does(lambda m, x: torch.cat([x[..., 5:, :], x[..., :5, :]], 2)), ""),
    "linear over columns": (nn.Linear(20, 20), ""),
    "matrix product": (Does(lambda m, x: x @ torch.ones(20, 20).to(x)), ""),
}


def assigned(x):
    result = torch.zeros_like(x)
    result[..., :5, :] = x[..., -5:, :]
    return result


@pytest.mark.parametrize("name", sorted(CONTEXTS))
def test_what_depends_on_the_whole_image_is_named(name):
    model, layer = CONTEXTS[name]
    geometry = trace_geometry(model, CHANNELS, (24, 20))
    assert geometry.global_context[0].layer == layer
    size = (24, 20)
    assert geometry.input_interval((Interval(3, 4), Interval(3, 4)), size) == ((0, 24), (0, 20))
    assert str(geometry.global_context[0]) in str(geometry.table(size))


def test_the_first_layer_of_several_is_the_first():
    model = nn.Sequential(nn.InstanceNorm2d(CHANNELS), convolution(), Squeeze())
    assert [context.layer for context in trace_geometry(model, CHANNELS).global_context] == ["0", "2.pool"]


def test_the_local_path_beside_global_context():
    geometry = trace_geometry(Squeeze(), CHANNELS)
    assert geometry.receptive_field == (3, 3)
    assert geometry.stride == (1, 1)
    alone = trace_geometry(CONTEXTS["pyramid pooling"][0], CHANNELS, (24, 20))
    assert alone.receptive_field is None


@pytest.mark.parametrize("name", ["convnext_tiny", "shufflenet_v2_x0_5"])
def test_shuffled_and_permuted_channels_mix_no_positions(name):
    network = getattr(torchvision.models, name)(weights=None)
    model = network.features if name == "convnext_tiny" else nn.Sequential(*list(network.children())[:-1])
    assert not trace_geometry(model, 3).global_context


# --- the rest of the interface ------------------------------------------------------------------------


def test_tracing_leaves_the_network_as_it_was():
    model = nn.Sequential(convolution(), nn.BatchNorm2d(CHANNELS), nn.Dropout())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[2].eval()
    trace_geometry(model, CHANNELS)
    assert [module.training for module in model] == [True, True, False]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_who_computes_while_a_network_is_traced_is_not_watched():
    """As in prediction with torch, where the next image is planned while this one is computed."""
    watched, stored = [], []

    def look(network, x):
        watched.append(any(module._forward_hooks for module in model.modules()))
        stored.append(network.conv.weight.data_ptr())
        return network.conv(x)

    model = Does(look, conv=convolution())
    trace_geometry(model, CHANNELS)
    assert watched
    assert not any(watched)
    assert set(stored) == {model.conv.weight.data_ptr()}  # no weight is copied


@pytest.mark.parametrize(
    "wrap", [lambda x: {"aux": x[:, :, ::2], "out": x}, lambda x: (x, x[:, :, ::2]), lambda x: [x]]
)
def test_the_map_is_found_in_what_a_network_returns(wrap):
    geometry = trace_geometry(Does(lambda m, x: wrap(m.conv(x)), conv=convolution()), CHANNELS)
    assert geometry.receptive_field == (3, 3)
    assert geometry.output_size((9, 9)) == (9, 9)


def test_a_table_has_a_row_for_each_layer_that_moves_positions():
    model = nn.Sequential(convolution(), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True))
    table = trace_geometry(model, CHANNELS).table((7, 4))
    assert [(row.name, row.stride, row.offset, row.receptive_field, row.output_size) for row in table] == [
        ("0", (1, 1), (0, 0), (3, 3), (7, 4)),
        ("2", (2, 2), (Fraction(1, 2), Fraction(1, 2)), (4, 4), (4, 2)),
    ]
    assert len(table) == 2
    assert str(table).splitlines() == [
        "layer  stride  offset  receptive field  output size",
        "0           1       0                3          7×4",
        "2           2     1/2                4          4×2",
    ]


def test_axes_may_differ():
    geometry = trace_geometry(nn.Conv2d(CHANNELS, 1, (1, 5), (1, 2), (0, 2)), CHANNELS)
    assert geometry.stride == (1, 2)
    assert geometry.receptive_field == (1, 5)
    assert geometry.output_size((10, 20)) == (10, 10)
    assert "1×5" in str(geometry.table((10, 20)))


def test_a_layer_used_twice_has_two_rows():
    conv = convolution()
    table = trace_geometry(nn.Sequential(conv, conv), CHANNELS).table((8, 8))
    assert len({row.name for row in table}) == 2


def test_a_network_without_layers_is_the_identity():
    geometry = trace_geometry(nn.Identity(), CHANNELS)
    assert geometry.receptive_field == (1, 1)
    assert geometry.input_interval((Interval(2, 4), Interval(0, 1)), (9, 9)) == ((2, 4), (0, 1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "no rows and columns"),
        (nn.Conv2d(7, 1, 1), "channels"),
        (Does(lambda m, x: x if x.sum() > 0 else -x), "pixel values"),
        (Does(lambda m, x: None), "NoneType"),
    ],
    ids=["classifier", "channels", "values", "nothing"],
)
def test_what_cannot_be_traced_is_refused(model, message):
    if message == "no rows and columns":
        model(torch.zeros(1, CHANNELS, 256, 256))
    with pytest.raises(GeometryError, match=message):
        trace_geometry(model, CHANNELS)


def test_a_size_the_network_does_not_run_at_is_refused():
    geometry = trace_geometry(nn.Conv2d(CHANNELS, 1, 9), CHANNELS)
    with pytest.raises(GeometryError, match="8×30"):
        geometry.output_size((8, 30))


def test_unknown_operations_count_as_mixing():
    assert "cumsum" not in OPERATIONS
    geometry = trace_geometry(Does(lambda m, x: x.cumsum(2)), CHANNELS)
    assert [context.operation for context in geometry.global_context] == ["cumsum"]
