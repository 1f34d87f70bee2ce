"""Every convolutional classifier of torchvision, and a fixed sample of timm's, becomes dense.

Random weights and statistics, small images. The whole of timm is in ``benchmarks/coverage.py``.
"""

import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from fullyconv.errors import SurgeryError
from fullyconv.surgery import compare_with_windows, convolutionalize

NAMES = torchvision.models.list_models(module=torchvision.models)
CONVOLUTIONAL = [name for name in NAMES if "vit" not in name and "swin" not in name]
TRANSFORMERS = [name for name in NAMES if name not in CONVOLUTIONAL]
QUICK = (
    "alexnet",
    "convnext_tiny",
    "googlenet",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "squeezenet1_1",
)

TIMM = (
    "test_byobnet", "gernet_s", "repvgg_a0", "convmixer_768_32", "convnext_atto", "convnextv2_atto",
    "cs3darknet_focus_s", "dla46x_c", "efficientnet_b0", "tf_efficientnetv2_b0", "fasternet_t0",
    "ghostnet_050",
    "hrnet_w18_small", "inception_next_atto", "lcnet_035", "mambaout_femto", "mobilenetv4_conv_small_035",
    "nf_regnet_b0", "poolformer_s12", "regnety_002", "repvit_m1", "resnest14d", "resnetv2_18", "rexnet_100",
    "skresnet18", "starnet_s050", "ese_vovnet19b_slim_dw",
)  # fmt: skip
QUICK_TIMM = (
    "test_byobnet",
    "convnextv2_atto",
    "mambaout_femto",
    "resnest14d",
    "starnet_s050",
    "tf_efficientnetv2_b0",
)
TIMM_TRANSFORMERS = (
    "test_vit",
    "swin_tiny_patch4_window7_224",
    "efficientvit_b0",
    "levit_128s",
    "caformer_s18",
)


def build(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name not in NAMES:
            return timm.create_model(name)
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, weights=None, **options)


def filled(name: str) -> nn.Module:
    """A classifier with weights and statistics as after training, made without its own slow start values."""
    with pytest.MonkeyPatch.context() as patch:
        for initialise in [each for each in vars(nn.init) if each.endswith("_") and each[0] != "_"]:
            patch.setattr(nn.init, initialise, lambda tensor, *_, **__: tensor)
        model = build(name)
    noise = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))  # prime: no two rows alike
    with torch.no_grad():
        for parameter in model.parameters():
            values = parameter.view(-1)
            for start in range(0, len(values), len(noise)):
                part = values[start : start + len(noise)]
                part.copy_(noise[: len(part)])
            parameter.mul_(0.02 if parameter.dim() < 2 else parameter[0].numel() ** -0.5)
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.copy_(noise[: len(part.running_mean)] * 0.1)
                part.running_var.copy_(noise[: len(part.running_var)].abs() + 0.5)
            if isinstance(part, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
                for weight in [] if part.weight is None else [part.weight]:
                    weight.add_(1.0)
    return model.eval()


def slow_unless(quick: tuple[str, ...], names) -> list:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", slow_unless(QUICK, CONVOLUTIONAL) + slow_unless(QUICK_TIMM, TIMM))
def test_dense_equals_the_classifier_and_its_head_on_every_window(name) -> None:
    classifier = filled(name)
    size = 299 if name == "inception_v3" else 96  # its auxiliary head wants no less
    dense = convolutionalize(classifier, size)
    image = torch.randn(1, 3, size + 32, size)
    with torch.no_grad():
        expected, scores = classifier(image[..., :size, :]), dense(image[..., :size, :])
    scale = float(expected.abs().max())
    assert 0 < scale < float("inf")
    assert scores.shape == (*expected.shape, 1, 1)
    assert float((scores[..., 0, 0] - expected).abs().max()) < 1e-4 * scale
    report = compare_with_windows(dense, classifier, image, repeats=0)
    assert report.cells[0] >= 2
    assert np.nanmax(report.head_difference) < 1e-4 * report.score_scale
    assert np.isfinite(report.crop_difference[0, 0])
    # Not on a crop: all of these pad.
    assert report.padded_layers
    dense.load_state_dict(classifier.state_dict(), strict=name not in ("googlenet", "inception_v3"))


@pytest.mark.parametrize("name", [*TRANSFORMERS, *TIMM_TRANSFORMERS])
def test_transformers_are_refused_by_the_name_of_a_layer(name) -> None:
    with torch.device("meta"):
        classifier = build(name)
    with pytest.raises(SurgeryError, match=r"layer `[\w.]+` \(\w+\) mixes all positions"):
        convolutionalize(classifier, 256 if "256" in name else 224)


def test_auxiliary_heads_are_dense_in_train_mode() -> None:
    dense = convolutionalize(filled("googlenet"), 224).train()
    with torch.no_grad():
        outputs = dense(torch.randn(2, 3, 256, 224))
    assert outputs.logits.shape == (2, 1000, 2, 1)
    assert outputs.aux_logits1.shape == (2, 1000, 3, 1)  # stride 16


def test_squeezenet_loses_only_its_pooling() -> None:
    dense = convolutionalize(filled("squeezenet1_1"), 224)
    original = filled("squeezenet1_1")
    names = {name for name, _ in original.named_modules() if name}
    added = {name: layer for name, layer in dense.named_modules() if name and name not in names}
    assert [type(layer) for layer in added.values()] == [nn.AvgPool2d]
    assert names - {name for name, _ in dense.named_modules()} == {"classifier.3"}
