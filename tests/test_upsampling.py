"""One contract, swept over the table of upsamplers; then what is special about each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullyconv.errors import ConfigError, GeometryError
from fullyconv.upsampling import UPSAMPLERS, Upsampler, bilinear_kernel, max_pool

EVERY = sorted(UPSAMPLERS)
SMOOTH = [name for name in EVERY if name != "unpooling"]  # unpooling leaves holes
LINEAR = ["bilinear", "transposed", "transposed_fixed"]
FIXED = {"nearest", "bilinear", "bicubic", "transposed_fixed", "unpooling"}

sizes = st.integers(1, 9)
factors = st.integers(1, 5)


def build(name: str, channels: int, factor: int) -> Upsampler:
    torch.manual_seed(0)
    return UPSAMPLERS[name](channels, factor)


def places(features: Tensor, factor: int) -> Tensor:
    """Indices of a pooling that found each value at a random place of its window."""
    height, width = features.shape[-2:]
    generator = torch.Generator().manual_seed(1)
    row, column = torch.randint(0, factor, (2, *features.shape), generator=generator)
    rows = torch.arange(height)[:, None] * factor + row
    return rows * (width * factor) + torch.arange(width) * factor + column


def interior(upsampler: Upsampler, result: Tensor) -> Tensor:
    margin = upsampler.reach * upsampler.factor
    return result[..., margin : result.shape[-2] - margin, margin : result.shape[-1] - margin]


# The contract


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=20, deadline=None)
@given(height=sizes, width=sizes, factor=factors, channels=st.integers(1, 3), count=st.integers(1, 2))
def test_exactly_factor_times_any_size(name, height, width, factor, channels, count):
    features = torch.randn(count, channels, height, width)
    result = build(name, channels, factor)(features, indices=places(features, factor))
    assert result.shape == (count, channels, height * factor, width * factor)
    assert result.isfinite().all()
    if factor == 1 and name != "content_aware":  # which still takes means
        torch.testing.assert_close(result, features)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("name", EVERY)
def test_gradient_reaches_input_and_every_trainable_parameter(name, factor):
    upsampler = build(name, 2, factor)
    features = torch.randn(1, 2, 6, 5, requires_grad=True)
    # Squares, because a plain sum does not see where a mean's weights go.
    upsampler(features, indices=places(features, factor)).square().sum().backward()
    assert features.grad is not None
    assert (features.grad != 0).all()
    trainable = [parameter for parameter in upsampler.parameters() if parameter.requires_grad]
    assert bool(trainable) == (name not in FIXED)
    for parameter in trainable:
        assert parameter.grad is not None
        assert parameter.grad.any()


@pytest.mark.parametrize("factor", [2, 3, 8])
@pytest.mark.parametrize("name", SMOOTH)
def test_constant_stays_constant_in_the_interior(name, factor):
    upsampler = build(name, 2, factor)
    result = interior(upsampler, upsampler(torch.full((1, 2, 7, 6), -3.25)))
    assert result.numel()
    torch.testing.assert_close(result, torch.full_like(result, -3.25))


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("name", LINEAR)
def test_ramp_stays_a_ramp_in_the_interior(name, factor):
    upsampler = build(name, 1, factor)
    rows, columns = torch.arange(6.0)[:, None], torch.arange(7.0)
    fine_rows = (torch.arange(6.0 * factor)[:, None] + 0.5) / factor - 0.5
    fine_columns = (torch.arange(7.0 * factor) + 0.5) / factor - 0.5
    result = interior(upsampler, upsampler((2 * rows - columns)[None, None]))
    expected = interior(upsampler, (2 * fine_rows - fine_columns)[None, None])
    torch.testing.assert_close(result, expected)


def test_bicubic_bends_a_ramp_by_as_much_as_it_says():
    upsampler = build("bicubic", 1, 64)
    result = interior(upsampler, upsampler(torch.arange(8.0).expand(1, 1, 8, 8)))
    positions = (torch.arange(8 * 64) + 0.5) / 64 - 0.5
    expected = interior(upsampler, positions.expand(1, 1, 8 * 64, 8 * 64))
    assert (result - expected).abs().max() == pytest.approx(0.048, abs=1e-3)


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
@pytest.mark.parametrize("name", SMOOTH)
def test_an_impulse_keeps_its_centre_of_mass(name, factor):
    upsampler = build(name, 1, factor)
    impulse = torch.zeros(1, 1, 9, 11)
    impulse[0, 0, 4, 6] = 1
    result = upsampler(impulse).detach()[0, 0]
    centre = torch.stack(
        [
            (result.sum(1) * torch.arange(9.0 * factor)).sum() / result.sum(),
            (result.sum(0) * torch.arange(11.0 * factor)).sum() / result.sum(),
        ]
    )
    expected = torch.tensor([4.0, 6.0]) * factor + (factor - 1) / 2
    # The weights of the content-aware one depend on what it sees, a little even at the start.
    torch.testing.assert_close(centre, expected, atol=0.02 if name == "content_aware" else 1e-4, rtol=0)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=10, deadline=None)
@given(factor=st.integers(1, 4), row=st.integers(0, 8), column=st.integers(0, 6))
def test_reads_nothing_beyond_its_reach(name, factor, row, column):
    upsampler = build(name, 1, factor)
    for parameter in upsampler.parameters():  # as after training: nothing is zero by chance
        nn.init.normal_(parameter)
    features = torch.randn(1, 1, 9, 7, requires_grad=True)
    result = upsampler(features, indices=places(features, factor))
    window = result[..., row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
    (read,) = torch.autograd.grad(window.square().sum(), features)
    seen = read[0, 0].nonzero()
    distance = (seen - torch.tensor([row, column])).abs().max()
    assert distance <= upsampler.reach
    if factor > 1 and 2 <= row <= 6 and 2 <= column <= 4:
        assert distance == upsampler.reach  # and states no more than it reads


@pytest.mark.parametrize("name", EVERY)
def test_channels_last_gives_the_same(name):
    upsampler = build(name, 4, 2)
    features = torch.randn(2, 4, 5, 6)
    indices = places(features, 2)
    expected = upsampler(features, indices=indices)
    upsampler = upsampler.to(memory_format=torch.channels_last)
    result = upsampler(features.contiguous(memory_format=torch.channels_last), indices=indices)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_is_close(name):
    upsampler = build(name, 4, 2)
    features = torch.randn(1, 4, 6, 5).bfloat16().float()
    indices = places(features, 2)
    expected = upsampler(features, indices=indices)
    result = upsampler.bfloat16()(features.bfloat16(), indices=indices)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("name", EVERY)
def test_exports_for_any_size(name):
    upsampler = build(name, 3, 2)
    features = torch.randn(2, 3, 5, 7)
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(
        upsampler, (features, places(features, 2)), dynamic_shapes=(free, free)
    ).module()
    other = torch.randn(3, 3, 8, 4)
    torch.testing.assert_close(
        exported(other, places(other, 2)), upsampler(other, places(other, 2)), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("name", SMOOTH)
def test_indices_are_left_alone_by_those_that_need_none(name):
    upsampler = build(name, 2, 2)
    features = torch.randn(1, 2, 4, 4)
    assert not upsampler.needs_indices
    assert torch.equal(upsampler(features), upsampler(features, indices=places(features, 2)))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("channels", "factor"), [(0, 2), (3, 0)])
def test_refuses_sizes_below_one(name, channels, factor):
    with pytest.raises(ConfigError, match="from 1 up"):
        UPSAMPLERS[name](channels, factor)


# Each one


def reference_kernel(size: int) -> np.ndarray:
    """The definition in the FCN reference: weights fall linearly from the centre."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    kernel = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            kernel[row, column] = (1 - abs(row - center) / factor) * (1 - abs(column - center) / factor)
    return kernel


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8, 16, 32])
def test_bilinear_kernel_is_that_of_the_reference(factor):
    kernel = bilinear_kernel(factor)
    assert kernel.shape == (2 * factor - factor % 2,) * 2
    np.testing.assert_allclose(kernel.numpy(), reference_kernel(kernel.shape[0]), rtol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8, 32])
@pytest.mark.parametrize("name", ["transposed", "transposed_fixed"])
def test_transposed_convolution_starts_as_bilinear_interpolation(name, factor):
    upsampler = build(name, 3, factor)
    features = torch.randn(2, 3, 5, 4)
    expected = F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        interior(upsampler, upsampler(features)), interior(upsampler, expected), atol=1e-5, rtol=1e-5
    )


def test_transposed_convolution_keeps_the_largest_channel_at_the_border():
    features = torch.rand(1, 5, 4, 4)
    shares = build("transposed_fixed", 1, 4)(torch.ones(1, 1, 4, 4))
    repeated = F.interpolate(features, scale_factor=4.0, mode="bilinear")
    torch.testing.assert_close(build("transposed_fixed", 5, 4)(features), repeated * shares)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_subpixel_starts_as_nearest(factor):
    features = torch.randn(2, 3, 4, 5)
    expected = F.interpolate(features, scale_factor=float(factor), mode="nearest")
    torch.testing.assert_close(build("subpixel", 3, factor)(features), expected)


def test_subpixel_filters_are_equal_within_a_channel_at_the_start():
    weight = build("subpixel", 3, 4).conv.weight
    assert torch.equal(weight, weight[::16].repeat_interleave(16, dim=0))


def test_subpixel_deals_the_channels_out_row_by_row():
    upsampler = build("subpixel", 1, 2)
    with torch.no_grad():
        upsampler.conv.weight.zero_()
        upsampler.conv.weight[:, 0, 1, 1] = torch.arange(4.0)
    expected = torch.tensor([[0.0, 1, 0, 1], [2, 3, 2, 3]])
    assert torch.equal(upsampler(torch.ones(1, 1, 1, 2))[0, 0], expected)


@settings(max_examples=30, deadline=None)
@given(height=sizes, width=sizes, factor=st.integers(1, 4))
def test_unpooling_puts_the_maxima_back(height, width, factor):
    features = torch.rand(2, 3, height, width) + 0.1
    pooled, indices = max_pool(features, factor)
    back = build("unpooling", 3, factor)(pooled, indices=indices)
    cropped = back[..., :height, :width]
    # Every value lies where it came from, and nothing lies outside the map that was pooled.
    assert torch.equal(cropped, torch.where(cropped > 0, features, 0.0))
    assert torch.equal(torch.sort(back[back > 0]).values, torch.sort(pooled.flatten()).values)
    assert back.sum() == pytest.approx(cropped.sum().item())
    assert torch.equal(max_pool(back, factor)[0], pooled)


@pytest.mark.parametrize("factor", [2, 3])
def test_unpooling_equals_torch_with_torch_indices(factor):
    features = torch.randn(2, 3, 4 * factor, 5 * factor)
    pooled, indices = F.max_pool2d(features, factor, return_indices=True)
    ours = max_pool(features, factor)
    assert torch.equal(ours[0], pooled)
    assert torch.equal(ours[1], indices)
    expected = nn.MaxUnpool2d(factor)(pooled, indices)
    assert torch.equal(build("unpooling", 3, factor)(pooled, indices=indices), expected)


def test_unpooling_asks_for_its_indices():
    upsampler = build("unpooling", 2, 2)
    features = torch.randn(1, 2, 3, 3)
    assert upsampler.needs_indices
    with pytest.raises(ConfigError, match="max_pool"):
        upsampler(features)
    with pytest.raises(GeometryError, match="same shape"):
        upsampler(features, indices=torch.zeros(1, 2, 3, 4, dtype=torch.int64))


def brute_force_reassembly(features: np.ndarray, weights: np.ndarray, factor: int) -> np.ndarray:
    """Equation 4 of the CARAFE paper by loops: weights are (25, h·f, w·f)."""
    channels, height, width = features.shape
    result = np.zeros((channels, height * factor, width * factor))
    for row in range(height * factor):
        for column in range(width * factor):
            for n in range(-2, 3):
                for m in range(-2, 3):
                    source = (row // factor + n, column // factor + m)
                    if 0 <= source[0] < height and 0 <= source[1] < width:
                        weight = weights[(n + 2) * 5 + m + 2, row, column]
                        result[:, row, column] += weight * features[:, source[0], source[1]]
    return result


@pytest.mark.parametrize("factor", [2, 3])
def test_content_aware_is_the_reassembly_of_the_paper(factor):
    upsampler = build("content_aware", 2, factor)
    for parameter in upsampler.parameters():
        nn.init.normal_(parameter, std=0.3)
    features = torch.randn(1, 2, 4, 3)
    with torch.no_grad():
        scores = upsampler.encode(upsampler.compress(features))
        weights = F.pixel_shuffle(scores, factor).softmax(dim=1)
        result = upsampler(features)[0]
    expected = brute_force_reassembly(features[0].numpy(), weights[0].numpy(), factor)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
