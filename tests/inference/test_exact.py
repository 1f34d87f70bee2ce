"""Exact tiles on every architecture: the scores of tiles put together are those of the whole image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fullyconv.errors import ConfigError
from fullyconv.inference.tiles import plan_tiles
from fullyconv.models import FCN, DensePredictor, Normalization, UNet
from fullyconv.receptive_fields import trace_geometry

CLASSES = 3
NORMALIZATION = Normalization((120.0,), (60.0,))
FAMILIES = ("resnet18", "squeezenet1_1", "mobilenet_v2", "timm:regnetx_002")  # of no global context
NETWORKS = {
    **{
        f"fcn-{stride}s {name}": lambda name=name, stride=stride: FCN(
            name, CLASSES, stride, normalization=NORMALIZATION
        )
        for name in FAMILIES
        for stride in ((32, 16, 8, 4) if name == "resnet18" else (8,))
        if not (name == "squeezenet1_1" and stride > 16)
    },
    "fcn-8s vgg11": lambda: FCN("vgg11", CLASSES, 8, normalization=NORMALIZATION),
    "fcn-32s alexnet as published": lambda: FCN(
        "alexnet", CLASSES, 32, alignment="paper", normalization=NORMALIZATION
    ),
    "u-net": lambda: UNet(CLASSES, widths=(4, 8, 8, 16), normalization=NORMALIZATION),
    "u-net without normalisation": lambda: UNet(
        CLASSES, widths=(4, 8, 8), norm=None, upsampling="bilinear", normalization=NORMALIZATION
    ),
    "u-net resnet18": lambda: UNet(CLASSES, encoder="resnet18", normalization=NORMALIZATION),
    "u-net mobilenet": lambda: UNet(CLASSES, encoder="mobilenet_v2", normalization=NORMALIZATION),
    "dense squeezenet": lambda: DensePredictor(
        CLASSES, library="torchvision", name="squeezenet1_1", input_size=(224, 224),
        normalization=NORMALIZATION,
    ),
    "dense resnet18, dilated": lambda: DensePredictor(
        CLASSES, library="torchvision", name="resnet18", input_size=(64, 64), output_stride=16,
        normalization=NORMALIZATION,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A network whose branches all count (those that start at zero are moved away from it), its geometry."""
    torch.manual_seed(0)
    model = NETWORKS[request.param]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return model, trace_geometry(model, 3)


def scores(model, image):
    with torch.inference_mode():
        return model(image)[0]


def draw_image(height, width):
    """Bright squares on noise, in raw units."""
    rng = np.random.default_rng(height * 1000 + width)
    coarse = rng.integers(0, 200, (-(-height // 40), -(-width // 40), 3))
    image = np.kron(coarse, np.ones((40, 40, 1)))[:height, :width] + rng.integers(0, 56, (height, width, 3))
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))


def check(model, geometry, size, tile):
    """Compare; return how many tiles there were."""
    plan = plan_tiles(geometry, size, tile)
    assert plan.exact, plan.reasons
    image = draw_image(*size)
    whole = scores(model, image)
    tiled = torch.full_like(whole, torch.nan)
    for part in plan:
        answer = scores(model, image[(..., *part.read.slices)])
        tiled[(..., *part.write.slices)] = answer[(..., *part.inside.slices)]
    assert (whole - tiled).abs().max() <= 1e-4 * max(1.0, whole.abs().max())
    best = whole.topk(2, dim=0).values
    assert not ((whole.argmax(0) != tiled.argmax(0)) & (best[0] - best[1] > 1e-3)).any()
    return plan.count


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(st.integers(1, 700), st.integers(1, 120), st.booleans(), st.integers(0, 120))
def test_tiles_equal_the_whole(network, long, short, tall, spare):
    model, geometry = network
    size = (long, short) if tall else (short, long)
    check(model, geometry, size, least_tile(geometry, size) + spare)


def least_tile(geometry, size):
    """The smallest tile there can be, as errors name it."""
    tile = 16
    while True:
        try:
            plan_tiles(geometry, size, tile)
            return tile
        except ConfigError as error:
            tile = int(error.expected.split()[2].rstrip(":"))


@pytest.mark.slow
def test_two_tiles_equal_the_whole(network):
    model, geometry = network
    assert check(model, geometry, (700, 90), 670) == 2
