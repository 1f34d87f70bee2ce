"""Heatmaps as a picture and as files."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fullyconv.errors import InputError, MachineError
from fullyconv.explanation import heatmap_figure, heatmaps, save_heatmaps
from fullyconv.images import read_image
from fullyconv.surgery import convolutionalize


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 12))
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    names = [f"animal {k}" for k in range(12)]
    return heatmaps(convolutionalize(net.eval(), (13, 13), class_names=names), image, top=5)


def test_the_figure_names_every_class_it_draws(result):
    figure = heatmap_figure(result)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    for k in result.chosen:
        assert result.class_names[k] in titles
    assert "image" in titles
    assert "best of all 12" in titles
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    entries = [text.get_text() for text in legend.get_texts()]
    frequent = np.bincount(result.labels.ravel()).argmax()
    assert entries[0].startswith(result.class_names[frequent])
    assert any("probability" in axes.get_ylabel() for axes in figure.axes)  # the colour bar


def test_long_names_are_wrapped_and_no_others_are_not_listed(result):
    named = replace(result, class_names=tuple(f"a retriever of bay {k}" for k in range(12)))
    tall = replace(named, image=np.zeros((90, 30, 3), np.uint8), labels=np.zeros((90, 30), np.uint8))
    figure = heatmap_figure(replace(tall, maps=np.zeros((5, 90, 30), np.float32)))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert sum("\n" in title for title in titles) == 5
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == ["a retriever of bay 0 100%"]


def test_all_maps_share_one_scale_and_hold_the_values(result):
    figure = heatmap_figure(result)
    drawn = [axes.images[1] for axes in figure.axes if len(axes.images) == 2]
    assert len(drawn) == 5
    for panel, values in zip(drawn, result.maps, strict=True):
        np.testing.assert_array_equal(panel.get_array(), values)
        assert panel.get_clim() == (0, pytest.approx(float(result.maps.max())))


def test_one_class_and_a_narrow_image_can_be_drawn(result):
    dense = convolutionalize(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), (5, 5)
    )
    figure = heatmap_figure(heatmaps(dense, np.zeros((90, 5, 1), np.float32), classes=[1]))
    figure.canvas.draw()


def test_files_hold_the_values(result, tmp_path):
    picture, scores, maps, labels = save_heatmaps(result, tmp_path / "new" / "folder")
    assert read_image(picture).shape[2] in (3, 4)
    for path, values in ((scores, result.scores), (maps, result.maps), (labels, result.labels)):
        np.testing.assert_array_equal(np.load(path, allow_pickle=False), values)


def test_nothing_is_overwritten_unless_told(result, tmp_path):
    (tmp_path / "maps.npy").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"maps\.npy exists"):
        save_heatmaps(result, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["maps.npy"]
    save_heatmaps(result, tmp_path, overwrite=True)
    assert np.load(tmp_path / "maps.npy").shape == result.maps.shape


def test_without_matplotlib_the_way_out_is_named(result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MachineError, match=r"fullyconv\[plot\]"):
        save_heatmaps(result, tmp_path)
    assert not list(tmp_path.iterdir())
