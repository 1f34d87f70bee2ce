"""FCN: published crops, scores in their place, upgrades that change nothing, tiles that equal the whole."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullyconv.backbones import build_backbone
from fullyconv.errors import ConfigError, GeometryError
from fullyconv.geometry import Affine
from fullyconv.inference.tiles import plan_tiles
from fullyconv.models import FCN, Normalization, load, save, upgrade
from fullyconv.models._ladder import Grid, Step
from fullyconv.receptive_fields import trace_geometry
from fullyconv.upsampling import UPSAMPLERS

EXACT = ("transposed", "transposed_fixed", "bilinear")


class Little(nn.Module):
    """A trunk of strides 2 to 16; ``kernel`` 3 puts positions on pixels, 2 between them."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel, widths = kernel, (3, 4, 5, 6, 7)
        self.layers = nn.Sequential(
            *(
                nn.Conv2d(inputs, outputs, kernel, stride=2, padding=(kernel - 1) // 2)
                for inputs, outputs in pairwise(widths)
            )
        )
        self.channels, self.strides = widths[1:], (2, 4, 8, 16)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = layer(x).tanh()
            maps.append(x)
        return maps


class LittleVGG(nn.Module):
    """VGG's form: five poolings, fully connected layers on 7×7 cells."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in [(3, 4), (4, 4), (4, 6), (6, 6), (6, 8)]:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(8 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5)
        )


def little(stride: int, kernel: int = 3, **options: Any) -> FCN:
    torch.manual_seed(0)
    return stirred(FCN(Little(kernel), 3, stride, **options))


def stirred(model: FCN) -> FCN:
    """Give the head, which starts at zero, weights that show."""
    for parameter in model.head.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def images(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 4 - 2


# The published networks


@pytest.mark.parametrize(
    ("backbone", "stride", "crops", "kernels"),
    [
        ("vgg16", 32, [19], [64]),
        ("vgg16", 16, [-5, 27], [4, 32]),
        ("vgg16", 8, [-5, -9, 31], [4, 4, 16]),
        ("alexnet", 32, [18], [63]),
    ],
)
def test_crops_and_kernels_are_those_published(
    backbone: str, stride: int, crops: list[int], kernels: list[int]
) -> None:
    # Of voc-fcn32s, voc-fcn16s, voc-fcn8s and voc-fcn-alexnet of the reference; below zero, it is the skip.
    with torch.device("meta"):
        model = FCN(backbone, 21, stride, alignment="paper")
        assert [step.crop for step in model.head.step.values()] == crops
        assert [
            (
                step.enlarge.weight if isinstance(step.enlarge, nn.ConvTranspose2d) else step.enlarge.kernel
            ).shape[-1]
            for step in model.head.step.values()
        ] == kernels
        for size in [(1, 1), (1, 500), (32, 33), (37, 64), (383, 499), (500, 375)]:
            assert model(torch.empty(1, 3, *size)).shape == (1, 21, *size)


def test_published_alignment_on_a_classifier_of_ones_own() -> None:
    torch.manual_seed(0)
    model = stirred(FCN(LittleVGG(), 3, 8, alignment="paper"))
    geometry = trace_geometry(model, 3, (64, 64))
    assert (geometry.offset, geometry.output_stride) == ((0, 0), (1, 1))
    for size in [(1, 1), (7, 40), (33, 32)]:
        scores = model(images(*size))
        assert scores.shape == (2, 3, *size)
        # Every pixel is scored by something: none is left at what padding gives.
        assert (scores != 0).any(1).all()


def test_published_alignment_needs_fully_connected_layers() -> None:
    with pytest.raises(ConfigError, match="without fully connected layers"):
        FCN("squeezenet1_1", 3, 16, alignment="paper", fully_connected=False)
    with pytest.raises(ConfigError, match="alignment 'same'"):
        FCN(build_backbone("squeezenet1_1"), 3, 16, alignment="paper")


def test_fully_connected_layers_go_with_same_alignment_too() -> None:
    torch.manual_seed(0)
    model = stirred(FCN(LittleVGG(), 3, 8, fully_connected=True))
    assert model(images(33, 40)).shape == (2, 3, 33, 40)
    assert model.head.score["32"].in_channels == 12


# Sizes and places


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 41), width=st.integers(1, 41), kernel=st.sampled_from([2, 3]))
def test_scores_have_the_images_size(height: int, width: int, kernel: int) -> None:
    with torch.no_grad():
        assert little(4, kernel)(images(height, width)).shape == (2, 3, height, width)


@pytest.mark.parametrize("name", ["squeezenet1_1", "alexnet", "timm:convnext_atto", "timm:test_efficientnet"])
@torch.no_grad()
def test_tiny_images(name: str) -> None:
    model = stirred(FCN(name, 2, 8))
    for size in [(1, 1), (1, 40), (17, 3)]:
        scores = model(images(*size))
        assert scores.shape == (2, 2, *size)
        assert torch.isfinite(scores).all()


@pytest.mark.parametrize("upsampling", UPSAMPLERS)
@pytest.mark.parametrize("kernel", [2, 3])
def test_positions_agree_with_geometry(upsampling: str, kernel: int) -> None:
    model = little(4, kernel, upsampling=upsampling)
    geometry = trace_geometry(model, 3)
    assert geometry.stride == (model.stride, model.stride)
    assert geometry.output_stride == (1, 1)
    assert geometry.offset == (0, 0)
    assert geometry.output_size((37, 21)) == (37, 21)


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("offset", [Fraction(1, 2), Fraction(5, 2)])
def test_unpooling_puts_scores_where_the_finer_map_is_strongest(offset: Fraction, repeat: bool) -> None:
    step = Step(3, Grid(Affine(Fraction(2), offset), 6), Grid(Affine(), 12), "unpooling", repeat=repeat)
    scores, finer = torch.rand(1, 3, 6, 6) + 1, torch.rand(1, 5, 12, 12)
    found = step(scores, finer)
    first = int(offset - Fraction(1, 2))  # where the first coarse window begins on the fine grid
    before = step.crop + first
    inside = found[..., before : before + 12 - first, before : before + 12 - first]
    windows = range(0, 12 - first, 2)
    for row, column in product(windows, windows):
        window = inside[..., row : row + 2, column : column + 2].flatten(2)
        seen = finer.mean(1)[..., first + row :, first + column :][..., :2, :2].flatten()
        expected = torch.zeros(1, 3, 4)
        expected[..., seen.argmax()] = scores[..., row // 2, column // 2]
        assert torch.equal(window, expected)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "bilinear", "bicubic", "subpixel"])
@pytest.mark.parametrize("offset", [Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3)])
def test_a_step_keeps_a_ramp_in_its_place(upsampling: str, offset: Fraction) -> None:
    # Values that say where they are must, on the finer grid, still say where they are.
    coarse = Grid(Affine(Fraction(2), offset), 12)
    step = Step(1, coarse, Grid(Affine(), 24), upsampling, repeat=True)
    ramp = torch.tensor([float(coarse.place(i)) for i in range(12)]).expand(1, 1, 12, 12)
    with torch.no_grad():
        found = step(ramp)[0, 0, 12, step.crop : step.crop + 24]
    assert found.shape == (24,)
    error = (found - torch.arange(24))[8:16]
    # Nearest and sub-pixel (which starts as that) are right in the mean, bicubic as far as its kernel is.
    if upsampling in ("nearest", "subpixel"):
        assert abs(error.mean()) < 1e-5
    else:
        assert error.abs().max() < (0.2 if upsampling == "bicubic" else 1e-5)


def test_bilinear_steps_repeat_the_border() -> None:
    grid, image = Grid(Affine(Fraction(8), Fraction(7, 2)), 4), Grid(Affine(), 32)
    step = Step(2, grid, image, "transposed", repeat=True)
    with torch.no_grad():
        scores = step(torch.ones(1, 2, 4, 4))[..., step.crop : step.crop + 32, step.crop : step.crop + 32]
    torch.testing.assert_close(scores, torch.ones(1, 2, 32, 32))


@pytest.mark.parametrize(
    ("coarse", "complaint"),
    [
        (Affine(Fraction(2), Fraction(1, 3)), "a crop of"),
        (Affine(Fraction(2), Fraction(1, 4)), "a crop of"),
        (Affine(Fraction(3, 2)), "one divides the other"),
    ],
)
def test_a_fractional_crop_is_an_error(coarse: Affine, complaint: str) -> None:
    with pytest.raises(GeometryError, match=complaint):
        Step(1, Grid(coarse, 8), Grid(Affine(), 16), "transposed", repeat=True)


@pytest.mark.parametrize("stride", [4, 16])
@pytest.mark.parametrize("kernel", [2, 3])
def test_tiles_equal_the_whole(stride: int, kernel: int) -> None:
    model, size = little(stride, kernel), (150, 61)
    plan = plan_tiles(trace_geometry(model, 3), size, 112)
    assert plan.exact
    assert plan.count > 1
    image = images(*size)
    with torch.no_grad():
        whole, tiled = model(image), torch.full((2, 3, *size), torch.nan)
        for tile in plan:
            read, write, inside = ((..., *part.slices) for part in (tile.read, tile.write, tile.inside))
            tiled[write] = model(image[read])[inside]
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_tiles_equal_the_whole_on_a_real_backbone() -> None:
    torch.manual_seed(0)
    model, size = stirred(FCN("squeezenet1_1", 3, 4)), (40, 717)
    plan = plan_tiles(trace_geometry(model, 3), size, (40, 480))
    assert plan.exact
    assert plan.count > 1
    image = images(*size) * 60
    with torch.no_grad():
        whole = model(image)
        for tile in plan:
            read, write, inside = ((..., *part.slices) for part in (tile.read, tile.write, tile.inside))
            assert (model(image[read])[inside] - whole[write]).abs().max() <= 1e-4 * whole.abs().max()


# Upgrades


@pytest.mark.parametrize("upsampling", EXACT)
@pytest.mark.parametrize("kernel", [2, 3])
@torch.no_grad()
def test_an_upgrade_changes_no_score(upsampling: str, kernel: int) -> None:
    model = little(16, kernel, upsampling=upsampling)
    for finest in (8, 4, 2):
        finer = upgrade(model)
        assert finer.finest == finest
        for size in [(1, 1), (16, 48), (37, 50)]:
            torch.testing.assert_close(finer(images(*size)), model(images(*size)), atol=1e-5, rtol=1e-5)
        model = stirred(finer)  # as training would: the next upgrade starts from other weights


@torch.no_grad()
def test_an_upgrade_keeps_every_weight_and_copies_it() -> None:
    model = little(16)
    finer = upgrade(model)
    kept = finer.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(kept[name], value), name
        assert kept[name].data_ptr() != value.data_ptr(), name
    new = kept.keys() - model.state_dict().keys()
    assert new == {"head.score.8.weight", "head.score.8.bias", "head.step.8.enlarge.weight"}
    assert not kept["head.score.8.weight"].any()
    assert finer.normalization == model.normalization
    assert not finer.training


def test_an_upgrade_learns_the_new_skip() -> None:
    finer = upgrade(little(16)).train()
    finer(images(32, 32)).square().sum().backward()
    assert finer.head.score["8"].weight.grad.abs().max() > 0
    assert finer.head.step["8"].enlarge.weight.grad.abs().max() > 0


def test_an_upgrade_of_a_published_network_is_close_only() -> None:
    torch.manual_seed(0)
    model = stirred(FCN(LittleVGG(), 3, 32, alignment="paper"))
    with torch.no_grad():
        before, after = model(images(70, 90)), upgrade(model)(images(70, 90))
    assert 0 < (after - before).abs().max() <= 0.2 * (before.max() - before.min())


def test_no_upgrade_beyond_the_finest_map() -> None:
    with pytest.raises(ConfigError, match="an FCN-2s"):
        upgrade(little(2))


# Starts


def test_score_layers_start_at_zero_and_steps_bilinear() -> None:
    model = FCN(Little(3), 3, 4)
    assert set(model.head.score) == {"16", "8", "4"}
    assert not any(parameter.any() for parameter in model.head.score.parameters())
    assert not model(images(20, 20)).any()
    learned = [name for name, step in model.head.step.items() if any(True for _ in step.parameters())]
    assert learned == ["8", "4"]
    kernel = model.head.step["8"].enlarge.weight
    expected = torch.tensor([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]])
    for row, column in np.ndindex(3, 3):
        assert torch.equal(kernel[row, column].detach(), expected * (row == column))


def test_normalization_is_that_of_the_weights() -> None:
    model = FCN("squeezenet1_1", 2, 16)
    assert model.normalization.mean == pytest.approx((123.675, 116.28, 103.53))
    given = Normalization((1.0,), (2.0,), "uint16")
    assert FCN("squeezenet1_1", 2, 16, normalization=given).normalization.dtype == "uint16"
    assert FCN(Little(3), 2, 4).normalization.std == (1.0, 1.0, 1.0)


# Training from trained weights


def norms(model: FCN) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.backbone.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize(("frozen", "expected"), [(True, True), (False, False), (None, False)])
def test_batch_norm_is_frozen_where_asked(frozen: bool | None, expected: bool) -> None:
    model = FCN("timm:test_resnet", 2, 8, freeze_batch_norm=frozen).eval().train()
    assert model.training
    assert model.head.training
    assert {layer.training for layer in norms(model)} == {not expected}
    before = norms(model)[0].running_mean.clone()
    model(images(64, 64)[:1])
    assert torch.equal(norms(model)[0].running_mean, before) == expected


def test_weights_freeze_batch_norm_by_default(tmp_path: Path) -> None:
    torch.save(build_backbone("timm:test_resnet").trunk.state_dict(), tmp_path / "w.pth")
    model = FCN("timm:test_resnet", 2, 8, weights=tmp_path / "w.pth")
    assert model.architecture.freeze_batch_norm
    assert not any(layer.training for layer in norms(model))


def test_frozen_batch_norm_takes_one_image_of_one_cell() -> None:
    model = FCN("timm:test_resnet", 2, 8, freeze_batch_norm=True).train()
    assert model(images(5, 5)[:1]).shape == (1, 2, 5, 5)


def test_a_frozen_backbone_stays_as_it_is_until_freed() -> None:
    model = FCN("timm:test_resnet", 2, 8).train()
    model.freeze_backbone()
    model.train()
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert not any(part.training for part in model.backbone.modules())
    assert all(parameter.requires_grad for parameter in model.head.score.parameters())
    model.freeze_backbone(False)
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(layer.training for layer in norms(model))


def test_fixed_steps_stay_fixed() -> None:
    model = little(16)
    assert {name.split(".")[1] for name, _ in model.head.named_parameters()} == {"16"}
    model = FCN(Little(3), 3, 4, upsampling="transposed_fixed")
    assert not [name for name, _ in model.head.named_parameters() if name.startswith("step")]


def test_other_classes_get_a_new_head_on_the_same_backbone() -> None:
    model = little(4)
    other = model.with_classes(["sky", "road", "tree", "car"])
    assert other.classes.names == ("sky", "road", "tree", "car")
    for (name, ours), theirs in zip(
        other.backbone.state_dict().items(), model.backbone.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert not any(parameter.any() for parameter in other.head.score.parameters())


# Files and faults


def test_a_backbone_of_ones_own_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"torch\.save\(model\.state_dict\(\), FILE\)"):
        save(little(4), tmp_path / "model.safetensors")


def test_saved_and_loaded_with_all_options(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = stirred(
        FCN("timm:test_efficientnet", 3, 16, channels=1, upsampling="subpixel", freeze_batch_norm=True)
    )
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.architecture == model.architecture
    x = images(40, 33)[:, :1]
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert not any(layer.training for layer in norms(again.train()))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"stride": 32}, "strides 2, 4, 8, 16"),
        ({"stride": 3}, "pass stride="),
        ({"upsampling": "unpooled"}, "upsampling='unpooled'"),
        ({"alignment": "middle"}, "one of same, paper"),
        ({"channels": 0}, "0 channels"),
    ],
)
def test_options_that_do_not_go(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        FCN("squeezenet1_1", 3, **options)


def test_channels_of_a_given_backbone_must_agree() -> None:
    with pytest.raises(ConfigError, match="3 channels"):
        FCN(build_backbone("squeezenet1_1"), 3, 4, channels=1)
