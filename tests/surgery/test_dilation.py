"""Dilation equals shift-and-stitch where nothing pads, and keeps the coarse scores everywhere."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullyconv.errors import ConfigError, SurgeryError
from fullyconv.surgery import DenseClassifier, convolutionalize, dilate, shift_and_stitch
from fullyconv.surgery.dilation import DILATIONS
from fullyconv.surgery.sliding import DilatedAvgPool2d

SIZE = 45


def trunk() -> list[nn.Module]:
    """45×45 -> 6×5×5, stride 8, without padding."""
    return [
        nn.Conv2d(3, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2, groups=2),
        nn.AvgPool2d(2),
    ]


class Functions(nn.Module):
    """The same kinds of layers as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.fc = nn.Linear(4 * 25, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(F.conv2d(x, self.kernels, stride=2)), 2)
        x = F.avg_pool2d(F.max_pool2d(x, 2, stride=1), 2)
        return self.fc(x.flatten(1))


class TwoScales(nn.Module):
    """Scores from two strides: the finer one is thinned out."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.deep = nn.Sequential(*trunk()[:4]), nn.Sequential(nn.Conv2d(4, 6, 2), nn.MaxPool2d(2))
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fine(x)
        return self.fc(torch.cat([x.mean((2, 3)), self.deep(x).amax((2, 3))], 1))


HEADS = {
    "flatten": lambda: nn.Sequential(*trunk(), nn.Flatten(), nn.Linear(150, 7), nn.ReLU(), nn.Linear(7, 5)),
    "global average": lambda: nn.Sequential(*trunk(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    "global maximum": lambda: nn.Sequential(*trunk(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    "irregular average": lambda: nn.Sequential(
        *trunk(), nn.AdaptiveAvgPool2d(3), nn.Conv2d(6, 6, 1), nn.Flatten(), nn.Linear(54, 5)
    ),
    "irregular maximum": lambda: nn.Sequential(
        *trunk(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(24, 5)
    ),
    "norm of the flattened": lambda: nn.Sequential(
        *trunk(), nn.Flatten(), nn.BatchNorm1d(150), nn.Linear(150, 5)
    ),
    "with a rest": lambda: nn.Sequential(
        *trunk(), nn.AdaptiveMaxPool2d(5), nn.Conv2d(6, 6, 2, stride=2), nn.Flatten(), nn.Linear(24, 5)
    ),
    "functions": Functions,
    "two scales": TwoScales,
}


def dense_of(classifier: nn.Module, size: int | tuple[int, int] = SIZE) -> DenseClassifier:
    for part in classifier.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
    return convolutionalize(classifier.double().eval(), size, channels=3)


@pytest.mark.parametrize("output_stride", [8, 4, 2, 1])
@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
@torch.no_grad()
def test_dilation_equals_shift_and_stitch_without_padding(make, output_stride) -> None:
    torch.manual_seed(0)
    dense = dense_of(make())
    assert dense.stride == (8, 8)
    image = torch.randn(2, 3, 66, 60, dtype=torch.double)
    finer = dilate(dense, output_stride)
    assert finer.stride == (output_stride, output_stride)
    scores = finer(image)
    torch.testing.assert_close(scores, shift_and_stitch(dense, image, output_stride), rtol=0, atol=1e-12)
    times = 8 // output_stride
    rows, columns = dense(image).shape[2:]
    torch.testing.assert_close(scores[..., ::times, ::times][..., :rows, :columns], dense(image))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_dilation_equals_shift_and_stitch_for_random_trunks(data) -> None:
    layers: list[nn.Module] = []
    for _ in range(data.draw(st.integers(1, 4))):
        kernel, dilation = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
        stride = data.draw(st.sampled_from([1, 2, 2]))
        kinds = [
            nn.Conv2d(3, 3, kernel, stride, dilation=dilation, groups=data.draw(st.sampled_from([1, 3]))),
            nn.MaxPool2d(kernel, stride, dilation=dilation),
            nn.AvgPool2d(kernel, stride),
        ]
        layers += [data.draw(st.sampled_from(kinds)), nn.Softplus()]
    classifier = nn.Sequential(nn.Conv2d(3, 3, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    size = data.draw(st.integers(50, 60)), data.draw(st.integers(50, 60))
    dense = convolutionalize(classifier.eval(), size)
    output_stride = data.draw(st.sampled_from([s for s in (1, 2, 4, 8, 16) if dense.stride[0] % s == 0]))
    image = torch.randn(
        1, 3, *(extent + data.draw(st.integers(0, 17)) for extent in size), dtype=torch.double
    )
    with torch.no_grad():
        finer = dilate(dense, output_stride)(image)
        torch.testing.assert_close(finer, shift_and_stitch(dense, image, output_stride), rtol=0, atol=1e-10)


PADDED = {
    "same padding": lambda: [nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)],
    "padding by name": lambda: [
        nn.MaxPool2d(2),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 6, 3, padding="same"),
        nn.MaxPool2d(2),
    ],
    "reflected": lambda: [
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, 2, 1, padding_mode="replicate"),
    ],
    "averages": lambda: [
        nn.AvgPool2d(3, 2, 1),
        nn.Conv2d(3, 6, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1),
    ],
    "rounded up": lambda: [
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(3, 6, 1),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, ceil_mode=True),
    ],
}


@pytest.mark.parametrize("output_stride", [4, 1])
@pytest.mark.parametrize("make", PADDED.values(), ids=PADDED)
@torch.no_grad()
def test_the_coarse_scores_are_among_the_finer_ones_with_padding(make, output_stride) -> None:
    torch.manual_seed(0)
    dense = dense_of(nn.Sequential(*make(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)), 48)
    image = torch.randn(1, 3, 64, 88, dtype=torch.double)
    coarse, fine = dense(image), dilate(dense, output_stride)(image)
    times = 8 // output_stride
    kept = fine[..., ::times, ::times][..., : coarse.shape[2], : coarse.shape[3]]
    # Replicated borders repeat other values when values lie further apart.
    tolerance = 1.0 if make is PADDED["reflected"] else 1e-12
    torch.testing.assert_close(kept, coarse, rtol=0, atol=tolerance)
    assert fine.isfinite().all()


def test_weights_are_shared_and_the_dense_network_is_left_as_it_was() -> None:
    dense = dense_of(HEADS["flatten"]())
    image = torch.randn(1, 3, SIZE, SIZE, dtype=torch.double)
    before = dense(image)
    finer = dilate(dense, 2)
    assert {name: value.data_ptr() for name, value in finer.named_parameters()} == {
        name: value.data_ptr() for name, value in dense.named_parameters()
    }
    assert set(finer.state_dict()) == set(dense.state_dict())
    torch.testing.assert_close(dense(image), before, rtol=0, atol=0)
    again = copy.deepcopy(finer).train()
    again(torch.randn(2, 3, SIZE, SIZE, dtype=torch.double)).sum().backward()
    assert all(parameter.grad is not None for parameter in again.parameters())


def test_a_dilated_network_can_be_dilated_further() -> None:
    dense = dense_of(HEADS["global average"]())
    image = torch.randn(1, 3, 60, 60, dtype=torch.double)
    torch.testing.assert_close(dilate(dilate(dense, 4), 2)(image), dilate(dense, 2)(image))


@pytest.mark.parametrize("output_stride", [0, -1, 3, 16])
def test_a_stride_that_does_not_divide_is_an_error(output_stride) -> None:
    dense = dense_of(HEADS["flatten"]())
    for function in (dilate, lambda d, s: shift_and_stitch(d, torch.zeros(1, 3, 60, 60).double(), s)):
        with pytest.raises(ConfigError, match=r"stride 8×8.*output_stride=4"):
            function(dense, output_stride)


class Shuffled(nn.Module):
    """Space to depth: four neighbours become channels."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, 2)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.PixelUnshuffle(2), "layer `1`"),
        (Shuffled(), "pixel_unshuffle"),
        (nn.Sequential(nn.MaxPool2d(2), nn.ZeroPad2d(1)), r"layer `1\.1`"),
        (nn.AvgPool2d(2, divisor_override=3), "layer `1`"),
    ],
)
def test_layers_that_cannot_be_dilated_are_named(layer, name) -> None:
    channels = layer(torch.zeros(1, 3, 8, 8)).shape[1]
    classifier = nn.Sequential(
        nn.Conv2d(3, 3, 1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)
    )
    dense = dense_of(classifier, 16)
    with pytest.raises(SurgeryError, match=name):
        dilate(dense, 1)


def test_every_dilation_of_the_table_is_swept() -> None:
    swept: set[type[nn.Module]] = set()
    for make in HEADS.values():
        dense = dense_of(make())
        swept |= {type(layer) for net in (dense, dilate(dense, 4)) for layer in net.modules()}
    assert not set(DILATIONS) - swept


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_average_pooling_with_dilation_one_is_torchs_own(data) -> None:
    kernel, stride = (tuple(data.draw(st.integers(1, 4)) for _ in range(2)) for _ in range(2))
    padding = tuple(data.draw(st.integers(0, extent // 2)) for extent in kernel)
    include = data.draw(st.booleans())
    x = torch.randn(2, 3, *(data.draw(st.integers(4, 9)) for _ in range(2)), dtype=torch.double)
    own = DilatedAvgPool2d(kernel, stride, padding, count_include_pad=include)
    torch.testing.assert_close(own(x), F.avg_pool2d(x, kernel, stride, padding, count_include_pad=include))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["alexnet", "resnet18", "googlenet", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5"]
)
@torch.no_grad()
def test_classifiers_of_torchvision_keep_their_scores_when_dilated(name) -> None:
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    dense = dense_of(torchvision.models.get_model(name, weights=None, **options), 224)
    image = torch.randn(1, 3, 256, 256, dtype=torch.double)
    coarse = dense(image)
    fine = dilate(dense, 8)(image)[..., ::4, ::4]
    torch.testing.assert_close(fine[..., : coarse.shape[2], : coarse.shape[3]], coarse)
