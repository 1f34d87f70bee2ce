"""The contract every kind of network keeps, swept over small ones; a new kind adds lines to the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fullyconv.models import FCN, KINDS, DensePredictor, Normalization, SegmentationModel, UNet, load, save
from fullyconv.receptive_fields import trace_geometry
from fullyconv.upsampling import UPSAMPLERS

NORMALIZATION = Normalization(mean=(100.0, 120.0), std=(50.0, 60.0))

Builder = Callable[..., SegmentationModel]

CASES: dict[str, Builder] = {
    "dense": lambda: DensePredictor(
        3, 2, library="timm", name="test_convnext", input_size=(32, 32), normalization=NORMALIZATION
    ),
    "unet": lambda: UNet(3, 2, widths=(4, 8, 16), normalization=NORMALIZATION),
    "unet, one level": lambda: UNet(2, 2, widths=(4, 6), normalization=NORMALIZATION),
    "unet, group": lambda: UNet(3, 2, widths=(4, 12, 16), norm="group", normalization=NORMALIZATION),
    "unet, instance": lambda: UNet(3, 2, widths=(4, 8, 16), norm="instance", normalization=NORMALIZATION),
    "unet, no norm": lambda: UNet(3, 2, widths=(4, 8), norm=None, dropout=0.3, normalization=NORMALIZATION),
    "unet, deep": lambda: UNet(3, 2, widths=(4, 4, 8, 8), deep_supervision=True, normalization=NORMALIZATION),
    "unet, valid": lambda: UNet(
        2, 2, widths=(4, 8, 8), padding="valid", norm=None, normalization=NORMALIZATION
    ),
    "unet, valid, deep": lambda: UNet(
        2, 2, widths=(4, 8, 8), padding="valid", deep_supervision=True, normalization=NORMALIZATION
    ),
    **{
        f"unet, {name}": lambda name=name: UNet(
            3, 2, widths=(4, 8, 8), upsampling=name, normalization=NORMALIZATION
        )
        for name in UPSAMPLERS
    },
}


def fcn(backbone: str, stride: int, **options: Any) -> SegmentationModel:
    return stirred(FCN(backbone, 3, stride, channels=2, normalization=NORMALIZATION, **options))


def unet(encoder: str, **options: Any) -> SegmentationModel:
    return stirred(UNet(3, 2, encoder=encoder, normalization=NORMALIZATION, **options))


def stirred(model: SegmentationModel) -> SegmentationModel:
    for parameter in model.parameters():
        if not parameter.any():  # such as score layers, which start at zero, where nothing can be seen
            torch.nn.init.normal_(parameter, std=0.1)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # the means below would leave a ReLU nothing to pass
            torch.nn.init.constant_(layer.bias, 2)
    return model


CASES |= {
    "fcn, 16s": lambda: fcn("squeezenet1_1", 16),
    "fcn, 4s": lambda: fcn("squeezenet1_1", 4),
    "fcn, batch norm": lambda: fcn("timm:test_efficientnet", 8),
    "fcn, frozen": lambda: fcn("timm:test_resnet", 8, freeze_batch_norm=True),
    "fcn, layer norm": lambda: fcn("timm:test_convnext", 16),
    **{f"fcn, {name}": lambda name=name: fcn("squeezenet1_1", 8, upsampling=name) for name in UPSAMPLERS},
}

CASES |= {
    "unet on regnet": lambda: unet("timm:test_byobnet", upsampling="bilinear", dropout=0.2),
    "unet on frozen": lambda: unet("timm:test_resnet", freeze_batch_norm=True, widths=(4, 4, 8, 8, 8)),
    "unet on stride 4": lambda: unet("timm:test_convnext", norm=None, deep_supervision=True),
    "unet unpooling on resnet": lambda: unet("timm:test_resnet", upsampling="unpooling"),
    "unet on ceil-mode poolings": lambda: unet("squeezenet1_1"),
    "unet on efficientnet": lambda: unet("timm:test_efficientnet", upsampling="subpixel"),
}

SIZES = [(1, 1), (1, 9), (2, 3), (7, 5), (16, 16), (17, 33)]


@pytest.fixture(params=CASES, ids=str)
def model(request: pytest.FixtureRequest) -> SegmentationModel:
    torch.manual_seed(0)
    model = CASES[request.param]().eval()
    # Batch statistics that are not the start values, so that losing them would be seen.
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model


def sizes(model: SegmentationModel) -> list[tuple[int, int]]:
    if isinstance(model, UNet):
        return sorted({model.valid_input_size(size) for size in SIZES})
    return SIZES


def images(size: tuple[int, int], count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return torch.rand(count, 2, *size, generator=generator) * 255


def test_every_kind_is_swept() -> None:
    assert {CASES[name]().architecture.kind for name in CASES} == KINDS.keys()


def test_scores_have_the_images_size_less_the_margin(model: SegmentationModel) -> None:
    for height, width in sizes(model):
        with torch.no_grad():
            scores = model(images((height, width)))
        expected = (2, len(model.classes), height - 2 * model.margin, width - 2 * model.margin)
        assert scores.shape == expected
        assert torch.isfinite(scores).all()


def test_each_image_is_scored_alone(model: SegmentationModel) -> None:
    batch = images(sizes(model)[-1], count=3)
    with torch.no_grad():
        torch.testing.assert_close(model(batch)[1:2], model(batch[1:2]), atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_trainable_parameter(model: SegmentationModel) -> None:
    outputs = model.train()(images(sizes(model)[-1]))
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    assert len({output.shape for output in outputs}) == 1
    sum(output.square().sum() for output in outputs).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_saved_and_loaded_is_bit_equal(model: SegmentationModel, tmp_path: Path) -> None:
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert type(again) is type(model)
    assert not again.training
    for attribute in (
        "architecture",
        "classes",
        "channels",
        "normalization",
        "provenance",
        "stride",
        "margin",
    ):
        assert getattr(again, attribute) == getattr(model, attribute)
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    for size in sizes(model):
        with torch.no_grad():
            assert torch.equal(model(images(size)), again(images(size)))
    save(again, tmp_path / "again.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_bf16_is_close(model: SegmentationModel) -> None:
    batch = images(sizes(model)[-1])
    with torch.no_grad():
        full = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(batch)
    assert (half.float() - full).abs().mean() <= 0.03 * full.std() + 1e-4


def test_channels_last_changes_nothing(model: SegmentationModel) -> None:
    batch = images(sizes(model)[-1])
    with torch.no_grad():
        plain = model(batch)
        model = model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(
            model(batch.contiguous(memory_format=torch.channels_last)), plain, atol=1e-5, rtol=1e-4
        )


def test_stride_and_margin_are_those_of_the_layers(model: SegmentationModel) -> None:
    geometry = trace_geometry(model, model.channels, model_size(model, 64, 64))
    if geometry.global_context:
        pytest.skip("some layer mixes all positions, so that no output position lies over an input position")
    assert geometry.stride == (model.stride, model.stride)
    assert geometry.output_stride == (1, 1)
    assert geometry.offset == (model.margin, model.margin)


def test_exported_with_free_sizes_is_equal(model: SegmentationModel) -> None:
    free = torch.export.Dim.AUTO
    # A traced program takes no size at which a level has a single row or column, unless it was traced so.
    first, *others = (model_size(model, *size) for size in [(37, 50), (38, 61), (64, 35)])
    program = torch.export.export(model, (images(first),), dynamic_shapes=({0: free, 2: free, 3: free},))
    exported = program.module()
    for size in (first, *others):
        with torch.no_grad():
            torch.testing.assert_close(
                exported(images(size, 3)), model(images(size, 3)), atol=1e-5, rtol=1e-4
            )


def model_size(model: SegmentationModel, height: int, width: int) -> tuple[int, int]:
    if isinstance(model, DensePredictor):  # so that there are two windows or more along each axis
        return height + model.architecture.input_size[0], width + model.architecture.input_size[1]
    return model.valid_input_size((height, width)) if isinstance(model, UNet) else (height, width)
