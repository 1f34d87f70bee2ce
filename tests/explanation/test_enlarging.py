"""The figure of all upsamplers: one panel each, of what the upsampler really makes."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fullyconv.errors import GeometryError, MachineError
from fullyconv.explanation.enlarging import upsampling_figure
from fullyconv.upsampling import UPSAMPLERS


def picture(height=48, width=64, channels=3, dtype=np.uint8):
    """Smooth bands, each channel in another direction."""
    rows, columns = np.mgrid[:height, :width]
    bands = [np.sin(rows / (7 + k) + columns / (9 - k)) for k in range(channels)]
    return (np.stack(bands, axis=-1) * 100 + 128).astype(dtype)


def panels(figure):
    """Title -> the picture drawn under it."""
    return {
        axes.get_title(loc="left").split()[0]: axes.get_images()[0].get_array()
        for axes in figure.axes
        if axes.get_title(loc="left")
    }


def difference(figure, name):
    (title,) = [
        each for each in (axes.get_title(loc="left") for axes in figure.axes) if each.split()[:1] == [name]
    ]
    return int(title.split("±")[1])


def test_one_panel_for_each_upsampler_beside_the_original():
    image = picture()
    drawn = panels(upsampling_figure(image, steps=1))
    assert set(drawn) == {"original", *UPSAMPLERS}
    assert all(each.shape == (48, 64, 3) for each in drawn.values())
    np.testing.assert_allclose(drawn["original"], image / 255, atol=1e-6)


def test_panels_are_what_the_upsamplers_make():
    image = picture()
    drawn = panels(upsampling_figure(image, steps=0))
    coarse = F.avg_pool2d(torch.from_numpy(image.transpose(2, 0, 1))[None] / 255, 8)
    for name in ("nearest", "bilinear"):
        expected = F.interpolate(coarse, scale_factor=8.0, mode=name)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(drawn[name], expected, atol=1e-5)
    np.testing.assert_allclose(drawn["subpixel"], drawn["nearest"], atol=1e-5)
    np.testing.assert_allclose(drawn["transposed"], drawn["transposed_fixed"], atol=1e-5)
    assert (np.count_nonzero(drawn["unpooling"], axis=(0, 1)) == 48 * 64 / 64).all()


def test_fitting_brings_the_learned_ones_closer():
    image = picture()
    before, after = upsampling_figure(image, steps=0), upsampling_figure(image, steps=30)
    for name in ("transposed", "subpixel", "content_aware"):
        assert difference(after, name) < difference(before, name)
    assert difference(after, "bilinear") == difference(before, "bilinear")


def test_the_same_every_time_and_leaves_the_random_state():
    image = picture(16, 24)
    torch.manual_seed(1)
    first = panels(upsampling_figure(image, steps=2))
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    second = panels(upsampling_figure(image, steps=2))
    assert torch.equal(torch.rand(1), expected)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize(
    ("shape", "dtype", "drawn"),
    [
        ((20, 30), np.uint8, (16, 24)),
        ((9, 600, 1), np.uint16, (8, 256)),
        ((300, 200, 4), np.float32, (256, 168)),
        ((8, 8, 3), np.uint8, (8, 8)),
    ],
)
def test_any_size_channels_and_dtype(shape, dtype, drawn):
    image = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    figure = upsampling_figure(image, steps=0)
    assert panels(figure)["nearest"].shape == (*drawn, 3)
    figure.savefig(io.BytesIO(), dpi=30)


def test_refuses_what_it_cannot_shrink():
    with pytest.raises(GeometryError, match="7×20"):
        upsampling_figure(picture(7, 20))


def test_says_what_to_install_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MachineError, match="pip install"):
        upsampling_figure(picture())
