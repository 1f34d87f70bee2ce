"""Both directions between fully connected layers and convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fullyconv.errors import GeometryError, MachineError, SurgeryError
from fullyconv.surgery.linear import conv_to_linear, linear_to_conv

pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(channels=st.integers(1, 4), classes=st.integers(1, 5), feature=pairs, extra=pairs, bias=st.booleans())
def test_the_convolution_gives_the_layer_on_every_window(
    channels: int, classes: int, feature: tuple[int, int], extra: tuple[int, int], bias: bool
) -> None:
    height, width = feature
    linear = nn.Linear(channels * height * width, classes, bias, dtype=torch.float64)
    conv = linear_to_conv(linear, feature)
    maps = torch.randn(2, channels, height + extra[0] - 1, width + extra[1] - 1, dtype=torch.float64)
    scores = conv(maps)
    assert scores.shape == (2, classes, *extra)
    for row, column in np.ndindex(*extra):
        window = maps[:, :, row : row + height, column : column + width]
        torch.testing.assert_close(scores[:, :, row, column], linear(window.flatten(1)))


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 2),
    kernel=pairs,
    stride=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    mode=st.sampled_from(["zeros", "replicate"]),
    bias=st.booleans(),
)
def test_the_layer_gives_the_convolution(
    groups: int, kernel: Any, stride: Any, padding: Any, dilation: int, mode: str, bias: bool
) -> None:
    conv = nn.Conv2d(
        2, 4, kernel, stride, padding, dilation, groups, bias, padding_mode=mode, dtype=torch.float64
    )
    x = torch.randn(3, 2, 8, 7, dtype=torch.float64)
    linear = conv_to_linear(conv, (8, 7))
    torch.testing.assert_close(linear(x.flatten(1)), conv(x).flatten(1))


@settings(max_examples=30, deadline=None)
@given(channels=st.integers(1, 3), classes=st.integers(1, 4), kernel=pairs, bias=st.booleans())
def test_the_directions_undo_each_other_where_the_kernel_covers_the_input(
    channels: int, classes: int, kernel: tuple[int, int], bias: bool
) -> None:
    conv = nn.Conv2d(channels, classes, kernel, bias=bias)
    again = linear_to_conv(conv_to_linear(conv, kernel), kernel)
    assert repr(again) == repr(conv)
    assert_same_state(again, conv)

    linear = nn.Linear(channels * kernel[0] * kernel[1], classes, bias)
    returned = conv_to_linear(linear_to_conv(linear, kernel), kernel)
    assert repr(returned) == repr(linear)
    assert_same_state(returned, linear)


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    state, expected = one.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name])


def test_the_convolution_shares_the_layers_memory_and_draws_no_random_numbers() -> None:
    linear = nn.Linear(18, 5)
    before = torch.random.get_rng_state()
    conv = linear_to_conv(linear, (3, 3))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert conv.weight.data_ptr() == linear.weight.data_ptr()
    assert conv.bias is not None
    assert conv.bias.data_ptr() == linear.bias.data_ptr()
    with torch.no_grad():
        conv.weight[4, 1, 2, 2] = 7
    assert linear.weight[4, 17] == 7


def test_a_weight_that_cannot_be_viewed_is_copied() -> None:
    linear = nn.Linear(18, 5)
    linear.weight = nn.Parameter(torch.randn(18, 5).T)
    conv = linear_to_conv(linear, (3, 3))
    torch.testing.assert_close(conv(torch.ones(1, 2, 3, 3)).flatten(), linear(torch.ones(18)))


@pytest.mark.parametrize("convert", [linear_to_conv, conv_to_linear])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_mode_dtype_and_frozen_weights_survive(convert: Any, dtype: torch.dtype) -> None:
    layer = nn.Linear(8, 2) if convert is linear_to_conv else nn.Conv2d(2, 2, 2)
    layer = layer.to(dtype).eval()
    layer.weight.requires_grad_(False)
    converted = convert(layer, (2, 2))
    assert converted.weight.dtype == converted.bias.dtype == dtype
    assert not converted.training
    assert not converted.weight.requires_grad
    assert converted.bias.requires_grad
    assert torch.equal(converted.weight.flatten(), layer.weight.flatten())


def test_the_converted_layer_can_be_trained() -> None:
    conv = linear_to_conv(nn.Linear(8, 2), (2, 2))
    conv(torch.ones(1, 2, 3, 3)).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.shape == (2, 2, 2, 2)


def test_inputs_that_are_no_whole_channels_are_refused_with_the_sizes_that_fit() -> None:
    with pytest.raises(SurgeryError, match=r"6×6.*7×7 of 512 channels.*1×1 of 25088 channels"):
        linear_to_conv(nn.Linear(512 * 7 * 7, 10, device="meta"), (6, 6))


@pytest.mark.parametrize("size", [(0, 4), (3,), (1, 2, 3), 2])
def test_feature_sizes_that_are_no_height_and_width_are_refused(size: Any) -> None:
    with pytest.raises(GeometryError, match="height, width"):
        linear_to_conv(nn.Linear(4, 4), size)


class Scaling(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 1, 1), nn.Bilinear(2, 2, 2), Scaling(4, 4)])
def test_other_layers_are_refused_by_name(layer: Any) -> None:
    with pytest.raises(SurgeryError, match=type(layer).__name__):
        linear_to_conv(layer, (2, 2))


def test_lazy_layers_are_refused() -> None:
    with pytest.raises(SurgeryError, match="run the network once"):
        linear_to_conv(nn.LazyLinear(3), (1, 1))


def test_a_dense_matrix_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(MachineError, match="conv_matrix, which stores no zeros"):
        conv_to_linear(nn.Conv2d(8, 8, 3, padding=1), (64, 64))
