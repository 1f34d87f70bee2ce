from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullyconv.backbones import Backbone, build_backbone
from fullyconv.errors import ConfigError, GeometryError
from fullyconv.models import Normalization, UNet, save
from fullyconv.models.unet import skip_crops

# ---- the published network (arXiv 1505.04597, figure 1 and section 3)


@pytest.fixture(scope="module")
def published() -> UNet:
    torch.manual_seed(0)
    return UNet.published(2)


def test_published_sizes(published: UNet) -> None:
    assert published.valid_output_size((572, 572)) == (388, 388)
    assert published.margin == 92
    assert published.stride == 16
    assert skip_crops(4) == (88, 40, 16, 4)


def test_published_layers(published: UNet) -> None:
    convolutions = [layer for layer in published.modules() if isinstance(layer, nn.Conv2d)]
    up_convolutions = [layer for layer in published.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert (
        len(convolutions) + len(up_convolutions) == 23
    )  # "In total the network has 23 convolutional layers"
    assert [layer.kernel_size for layer in convolutions].count((3, 3)) == 18
    assert sum(parameter.numel() for parameter in published.parameters()) == 31_030_658
    assert {layer.padding for layer in convolutions} == {(0, 0)}
    assert {layer.kernel_size for layer in up_convolutions} == {(2, 2)}
    assert not [layer for layer in published.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_published_dropout_ends_the_contracting_path(published: UNet) -> None:
    dropouts = [name for name, layer in published.named_modules() if isinstance(layer, nn.Dropout)]
    assert dropouts == ["encoder.3.dropout", "encoder.4.dropout"]
    assert published.encoder[4].dropout.p == 0.5


def test_published_start(published: UNet) -> None:
    """He's standard deviation √(2/N), N the incoming values of one neuron; biases zero."""
    for name, layer in published.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.weight.numel() > 10_000:
            assert layer.weight.std().item() == pytest.approx(
                math.sqrt(2 / (9 * layer.in_channels)), rel=0.02
            ), name
        if isinstance(layer, nn.ConvTranspose2d):
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / layer.in_channels), rel=0.02), (
                name
            )
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.bias is not None
            assert not layer.bias.any()
    assert published.head.weight.std().item() == pytest.approx(0.01, rel=0.3)


@pytest.mark.slow
def test_published_572_gives_388_and_the_crops_are_those_of_the_figure(published: UNet) -> None:
    crops = []
    hooks = [
        level.register_forward_hook(
            lambda level, inputs, output: crops.append((inputs[1].shape[-1], level.crop))
        )
        for level in published.decoder
    ]
    with torch.inference_mode():
        scores = published.eval()(torch.zeros(1, 1, 572, 572))
    for hook in hooks:
        hook.remove()
    assert scores.shape == (1, 2, 388, 388)
    assert crops == [(64, 4), (136, 16), (280, 40), (568, 88)]


# ---- unpadded networks of any depth


def brute_force_output(length: int, depth: int) -> int | None:
    """Follow a length through the network, as figure 1 does; None where something is not whole."""
    down = []
    for _ in range(depth):
        length -= 4
        down.append(length)
        if length <= 0 or length % 2:
            return None
        length //= 2
    length -= 4
    for skip in reversed(down):
        length *= 2
        if length <= 0 or (skip - length) % 2:
            return None
        length -= 4
    return length if length > 0 else None


@settings(max_examples=300, deadline=None)
@given(length=st.integers(1, 700), depth=st.integers(1, 5))
def test_output_size_is_that_of_following_the_size_through(length: int, depth: int) -> None:
    model = shape_only(depth)
    expected = brute_force_output(length, depth)
    if expected is None:
        with pytest.raises(GeometryError):
            model.valid_output_size((length, length))
        fitting = model.valid_input_size((1, 1))[0]
        assert model.valid_output_size((fitting, fitting))[0] >= 1
    else:
        assert model.valid_output_size((length, length)) == (expected, expected)


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 700), depth=st.integers(1, 5))
def test_input_size_is_the_smallest_that_gives_enough(length: int, depth: int) -> None:
    model = shape_only(depth)
    size = model.valid_input_size((length, 1))[0]
    outputs = [brute_force_output(candidate, depth) for candidate in range(1, size)]
    assert model.valid_output_size((size, size))[0] >= length
    assert all(output is None or output < length for output in outputs)


def shape_only(depth: int) -> UNet:
    with torch.device("meta"):
        return UNet(2, 1, widths=(1,) * (depth + 1), padding="valid")


@pytest.mark.parametrize("size", [(572, 571), (100, 188), (4, 4), (187, 188)])
def test_a_size_that_does_not_fit_is_an_error_with_one_that_does(size: tuple[int, int]) -> None:
    model = shape_only(4)
    with pytest.raises(GeometryError, match="such as") as caught:
        model(torch.zeros(1, 1, *size, device="meta"))
    suggested = caught.value.expected.rsplit(" ", 1)[1].split("×")
    model(torch.zeros(1, 1, *map(int, suggested), device="meta"))


def test_an_unpadded_network_sees_the_same_anywhere() -> None:
    """Shifting the image by the stride shifts the scores: there is no border to feel."""
    model = UNet(2, 1, widths=(4, 8, 8), padding="valid", norm=None).double().eval()
    image = torch.rand(1, 1, 76, 80, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(image)[..., 4:, 8:], model(image[..., 4:, 8:]))


# ---- same padding


def test_scores_do_not_see_what_lies_beyond_the_skip() -> None:
    """Odd sizes are cropped, not padded: an even image that repeats nothing new agrees far from its end."""
    torch.manual_seed(0)
    model = UNet(2, 1, widths=(4, 8, 8)).eval()
    image = torch.rand(1, 1, 65, 65)
    longer = torch.cat([image, torch.rand(1, 1, 3, 65)], dim=2)
    with torch.no_grad():
        torch.testing.assert_close(model(image)[..., :32, :], model(longer)[..., :32, :])


def test_one_pixel_of_instance_norm_is_its_bias() -> None:
    model = UNet(2, 1, widths=(4, 8), norm="instance").train()
    assert torch.isfinite(model(torch.rand(1, 1, 1, 1))).all()


def test_size_functions_of_a_padded_network_change_nothing() -> None:
    model = UNet(2, 1, widths=(4, 8))
    assert model.valid_output_size((3, 5)) == model.valid_input_size((3, 5)) == (3, 5)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_auxiliary_scores_lie_where_the_scores_lie(
    padding: Literal["same", "valid"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every layer a mean of what it sees, each level gives a ramp back, at the same place on average."""
    monkeypatch.setattr("fullyconv.models._layers.F.max_pool2d", nn.functional.avg_pool2d)
    model = UNet(2, 1, widths=(1, 1, 1, 1), padding=padding, norm=None, deep_supervision=True).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            one = "upsample" in name
            parameter.fill_(0 if name.endswith("bias") else 1 if one else 1 / parameter[0].numel())
    height, width = model.valid_input_size((192, 192))
    ramp = torch.arange(float(width), dtype=torch.float64).expand(1, 1, height, width)
    for image in (ramp, ramp.mT.contiguous()):
        main, *others = model.train()(image)
        assert len(others) == 2
        middle = [slice(length // 2 - 8, length // 2 + 8) for length in main.shape[-2:]]
        for scores in others:
            assert (scores - main)[..., *middle].mean().item() == pytest.approx(0, abs=1e-9)


def test_auxiliary_scores_only_in_training() -> None:
    model = UNet(3, 1, widths=(4, 8, 8, 8), deep_supervision=True)
    outputs = model.train()(torch.rand(2, 1, 21, 30))
    assert isinstance(outputs, tuple)
    assert [output.shape for output in outputs] == [(2, 3, 21, 30)] * 3
    assert isinstance(model.eval()(torch.rand(2, 1, 21, 30)), Tensor)


# ---- on a backbone


@pytest.mark.parametrize(
    ("encoder", "skips"),
    [
        ("timm:test_resnet", (3, 32, 32, 48, 192)),
        ("timm:test_convnext", (3, 3, 24, 32, 48)),  # begins at stride 4
        ("squeezenet1_1", (3, 64, 128, 256)),
    ],
)
def test_levels_are_the_backbones_maps_and_the_image_where_there_are_none(
    encoder: str, skips: tuple[int, ...]
) -> None:
    model = UNet(2, encoder=encoder).eval()
    assert model.backbone is not None
    assert model.stride == model.backbone.strides[-1] == 2 ** len(skips)
    assert model.architecture.widths == (16, 32, 64, 128, 256)[: len(skips)]
    assert [level.block.conv1.in_channels for level in model.decoder] == [
        skip + width for skip, width in zip(skips, model.architecture.widths, strict=True)
    ]
    for size in [(1, 1), (33, 70), (64, 32)]:
        assert model(torch.rand(1, 3, *size)).shape == (1, 2, *size)


def test_the_image_is_joined_averaged_to_the_size() -> None:
    model = UNet(2, encoder="timm:test_convnext").eval()
    image = torch.rand(1, 3, 40, 64)
    features, indices = model.encoder(image)
    padded = nn.functional.pad(image, (0, 0, 0, 24))
    assert torch.equal(features[0], padded)
    torch.testing.assert_close(features[1][:, :, 3, 5], padded[:, :, 6:8, 10:12].mean((2, 3)))
    assert [tuple(each.shape[2:]) for each in features] == [(64 >> k, 64 >> k) for k in range(6)]
    assert indices == [None] * 5


def test_what_lies_beyond_the_end_is_the_mean() -> None:
    """The image is padded after it is normalised: to end in its mean already changes nothing."""
    normalization = Normalization((90.0,), (40.0,))
    model = UNet(2, 1, encoder="timm:test_resnet", normalization=normalization).eval()
    image = torch.rand(1, 1, 50, 64) * 255
    longer = torch.cat([image, torch.full((1, 1, 14, 64), 90.0)], 2)
    with torch.no_grad():
        torch.testing.assert_close(model(image), model(longer)[:, :, :50])


def test_a_backbones_normalisation_is_taken_unless_another_is_given() -> None:
    backbone = build_backbone("timm:test_resnet")
    assert backbone.normalization is not None
    assert UNet(2, encoder=backbone).normalization.mean == backbone.normalization[0]
    own = Normalization((1.0,), (2.0,))
    assert UNet(2, encoder=backbone, normalization=own).normalization == own.per_channel(3)


def test_a_network_of_ones_own_is_an_encoder_but_no_file(tmp_path: Path) -> None:
    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 5, 3, stride=2, padding=1)
            self.second = nn.Conv2d(5, 7, 3, stride=2, padding=1)

        def forward(self, image: Tensor) -> list[Tensor]:
            first = self.first(image)
            return [first, self.second(first)]

    model = UNet(2, 1, encoder=Backbone(Trunk(), image_channels=1), widths=(4, 6)).eval()
    assert model(torch.rand(1, 1, 21, 30)).shape == (1, 2, 21, 30)
    with pytest.raises(ConfigError, match="encoder"):
        save(model, tmp_path / "m.safetensors")


def test_a_frozen_backbone_keeps_weights_and_statistics() -> None:
    model = UNet(2, 1, encoder="timm:test_resnet", freeze_batch_norm=True).train()
    assert model.backbone is not None
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert model.decoder[0].block.norm1.training
    model.freeze_backbone()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    model.train()(torch.rand(2, 1, 64, 64)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in model.backbone.state_dict().items())
    model.freeze_backbone(False)
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())
    assert not any(norm.training for norm in norms)
    with pytest.raises(ConfigError, match="its own encoder"):
        UNet(2, 1, widths=(4, 8)).freeze_backbone()


def test_real_weights_are_read_from_a_file(shared_data: Path) -> None:
    file = shared_data / "weights" / "squeezenet1_1_imagenet.safetensors"
    first, second = (UNet(2, encoder="squeezenet1_1", weights=file) for _ in range(2))
    assert first.backbone is not None
    assert second.backbone is not None
    for name, tensor in first.backbone.state_dict().items():
        assert torch.equal(tensor, second.backbone.state_dict()[name]), name
    assert first.normalization.mean == pytest.approx((123.675, 116.28, 103.53))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"padding": "valid"}, "padding='same'"),
        ({"widths": (4, 8)}, "5 widths"),
        ({"widths": (4, 8, 0, 8, 8)}, "widths"),
        ({"norm": "layer"}, "norm"),
        ({"encoder": "resnet17"}, "resnet1"),
        ({"encoder": None, "weights": "imagenet"}, "own encoder"),
        ({"encoder": build_backbone("timm:test_resnet", channels=2)}, "2 channels"),
        ({"dropout": -0.1}, "dropout"),
    ],
    ids=str,
)
def test_options_that_do_not_go_with_a_backbone_are_named(options: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        UNet(**{"classes": 2, "encoder": "timm:test_resnet", **options})  # type: ignore[arg-type]  # options by name


# ---- options


@pytest.mark.parametrize(
    "options",
    [
        {"widths": (8,)},
        {"widths": ()},
        {"widths": (8, 0)},
        {"widths": (8, 1 << 20)},
        {"widths": (8.5, 16)},
        {"padding": "reflect"},
        {"norm": "layer"},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": float("nan")},
        {"upsampling": "magic"},
        {"padding": "valid", "upsampling": "bilinear"},
        {"padding": "valid", "upsampling": "unpooling"},
        {"channels": 0},
        {"classes": 1},
    ],
    ids=str,
)
def test_a_wrong_option_is_named(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        UNet(**{"classes": 2, "channels": 1, "widths": (4, 8), **options})  # type: ignore[arg-type]  # options by name


def test_nearest_goes_with_an_unpadded_network() -> None:
    model = UNet(2, 1, widths=(4, 8), padding="valid", upsampling="nearest").eval()
    assert model(torch.zeros(1, 1, 20, 20)).shape == (1, 2, 4, 4)


def test_parameter_names_are_those_of_the_parts() -> None:
    names = set(UNet(2, 1, widths=(4, 8), norm="batch", upsampling="subpixel").state_dict())
    assert {
        "encoder.0.conv1.weight",
        "encoder.1.norm2.running_mean",
        "decoder.0.upsample.reduce.weight",
        "decoder.0.upsample.upsampler.conv.weight",
        "decoder.0.block.conv2.weight",
        "head.weight",
        "head.bias",
    } <= names


def test_compiled_is_equal_at_every_size() -> None:
    model = UNet(2, 1, widths=(4, 8, 8)).eval()
    compiled = torch.compile(model, backend="aot_eager", dynamic=True, fullgraph=True)
    for size in [(33, 50), (34, 51), (16, 64)]:
        image = torch.rand(1, 1, *size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(image), model(image))


def test_one_image_can_be_learned_by_heart() -> None:
    torch.manual_seed(0)
    model = UNet(2, 1, widths=(8, 16)).train()
    image = torch.rand(1, 1, 24, 24) * 255
    labels = (image[:, 0] > 128).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(image), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(image).argmax(1) == labels).float().mean() > 0.97
