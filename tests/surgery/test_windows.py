"""The comparison with windows finds what differs, and says why."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fullyconv.errors import GeometryError
from fullyconv.surgery import WindowsReport, compare_with_windows, convolutionalize


def classifier_of(*, padding: int = 0, gate: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, stride=2, padding=padding),
        nn.ReLU(),
        gate or nn.Identity(),
        nn.MaxPool2d(2),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, 5)).double().eval()


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


IMAGE = torch.randn(1, 3, 33, 24, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def test_an_unpadded_classifier_equals_its_windows_and_its_crops() -> None:
    classifier = classifier_of()
    report = compare_with_windows(convolutionalize(classifier, 17), classifier, IMAGE, repeats=0)
    assert (report.cells, report.stride, report.windows) == ((5, 2), (4, 4), 10)
    assert report.head_difference.shape == report.crop_difference.shape == (5, 2)
    assert report.head_difference.max() < 1e-14
    assert report.crop_difference.max() < 1e-14
    assert report.area_ratio == pytest.approx(10 * 17 * 17 / (33 * 24))
    assert report.padded_layers == ()
    assert "float error: no layer pads" in str(report)
    assert math.isnan(report.dense_seconds)
    assert "faster" not in str(report)


def test_differences_are_those_of_running_the_classifier_window_by_window() -> None:
    classifier = classifier_of(padding=1)
    dense = convolutionalize(classifier, 16)
    report = compare_with_windows(dense, classifier, IMAGE[..., :32, :], batch_size=3, repeats=0)
    with torch.no_grad():
        scores, features = dense(IMAGE[..., :32, :]), classifier[:4](IMAGE[..., :32, :])
        for i in range(report.cells[0]):
            for j in range(report.cells[1]):
                crop = classifier(IMAGE[..., 4 * i : 4 * i + 16, 4 * j : 4 * j + 16])
                window = classifier[4:](features[..., i : i + 4, j : j + 4])
                assert report.crop_difference[i, j] == pytest.approx(
                    float((scores[0, :, i, j] - crop).abs().max())
                )
                assert float((scores[0, :, i, j] - window).abs().max()) < 1e-14
    assert report.head_difference.max() < 1e-14
    assert report.crop_difference.max() > 1e-3
    assert report.padded_layers == ("0",)
    assert "zeros beyond a crop's border are read by 1 layer, first `0`" in str(report)
    # The first window has a border of the image above and left of it, as its crop has.
    assert report.crop_difference[0, 0] < report.crop_difference.max()


def test_cells_whose_window_leaves_the_image_are_not_compared_to_crops() -> None:
    classifier = classifier_of()  # 18 rows give the map of 17
    dense = convolutionalize(classifier, 18)
    report = compare_with_windows(dense, classifier, IMAGE[..., :21, :18], repeats=0)
    assert report.cells == (2, 1)
    assert np.isnan(report.crop_difference[1, 0])
    assert report.windows == 1
    assert report.head_difference.max() < 1e-14


def test_global_context_is_named() -> None:
    classifier = classifier_of(gate=Gate())
    dense = convolutionalize(classifier, 17)
    report = compare_with_windows(dense, classifier, IMAGE, repeats=0)
    assert dense.global_context == ("2",)
    assert report.head_difference.max() < 1e-14
    assert report.crop_difference.max() > 1e-6
    assert "the whole image is seen by 1 layer, first `2`" in str(report)


def test_a_dense_network_with_other_weights_is_found_out() -> None:
    classifier = classifier_of()
    dense = convolutionalize(classifier_of(), 17)
    with torch.no_grad():
        dense.get_parameter("5.bias")[2] += 0.5
    report = compare_with_windows(dense, classifier, IMAGE, repeats=0)
    np.testing.assert_allclose(report.head_difference, 0.5)
    np.testing.assert_allclose(report.crop_difference, 0.5)


class SizedView(nn.Module):
    """Its head takes the number of images from the trunk's input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        x = self.conv(x.view(count, 3, 1, height, width).squeeze(2))
        return self.fc(x.view(count, -1)) * self.scale + torch.ones(5)


def test_the_head_runs_on_more_windows_than_there_are_images() -> None:
    classifier = SizedView().eval()
    report = compare_with_windows(
        convolutionalize(classifier, 8), classifier, torch.randn(3, 12, 9), repeats=0
    )
    assert report.cells == (5, 2)
    assert report.head_difference.max() < 1e-5
    assert report.crop_difference.max() < 1e-5


def test_modes_are_put_back() -> None:
    classifier = nn.Sequential(classifier_of(), nn.Dropout())
    dense = convolutionalize(classifier.train(), 17)
    classifier[0].eval()
    modes = [part.training for net in (classifier, dense) for part in net.modules()]
    report = compare_with_windows(dense, classifier, IMAGE, repeats=0)
    assert [part.training for net in (classifier, dense) for part in net.modules()] == modes
    assert report.crop_difference.max() < 1e-14  # dropout was off


@pytest.mark.parametrize("image", [torch.zeros(2, 3, 20, 20), torch.zeros(20, 20), torch.zeros(1, 3, 20, 16)])
def test_not_one_image_or_one_too_small_is_an_error(image) -> None:
    classifier = classifier_of()
    with pytest.raises(GeometryError):
        compare_with_windows(convolutionalize(classifier, 17), classifier, image.double())


def test_the_timing_is_explained() -> None:
    classifier = classifier_of()
    report = compare_with_windows(convolutionalize(classifier, 17), classifier, IMAGE, repeats=2)
    assert min(report.dense_seconds, report.windows_seconds, report.dense_trunk_seconds) > 0
    assert report.speed_up == report.windows_seconds / report.dense_seconds
    text = str(report)
    assert "33×24 image, windows of 17×17 every 4×4: 5×2×5 scores" in text
    assert "10 crops in batches of 36" in text
    assert f"{report.speed_up:.1f} times faster, median of 2 pairs" in text
    assert f"limits: the windows hold {report.area_ratio:.2f} times the image's pixels" in text
    assert isinstance(report, WindowsReport)


def operations(network: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Multiplications and additions, counted on tensors without values."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.to("meta")(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


@pytest.mark.slow
def test_vgg16_on_384_by_384_takes_a_tenth_of_the_arithmetic_of_36_crops() -> None:
    import torchvision

    classifier = torchvision.models.vgg16(weights=None, init_weights=False).eval()
    dense = convolutionalize(classifier, 224)
    report = compare_with_windows(dense, classifier, torch.randn(1, 3, 384, 384), repeats=0)
    assert (report.cells, report.classes, report.windows) == ((6, 6), 1000, 36)
    assert report.area_ratio == 12.25
    assert report.head_difference.max() < 1e-6
    # Counted: how much sooner it is done, about 11 times, is for benchmarks/vgg16.py to say.
    at_once = operations(dense, (1, 3, 384, 384))
    assert (
        operations(classifier, (36, 3, 224, 224))
        > 10 * at_once
        > 10 * operations(classifier, (1, 3, 224, 224))
    )
