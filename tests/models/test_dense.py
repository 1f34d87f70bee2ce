"""A sliding classifier as a pixel classifier: where its scores lie, and the file that carries it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fullyconv.errors import ConfigError, ModelFileError, SurgeryError
from fullyconv.inference import predict
from fullyconv.models import DensePredictor, Normalization, load, read_header, save
from fullyconv.models.dense import LIBRARIES, spread
from fullyconv.surgery import convolutionalize

NORMALIZATION = Normalization((120.0,), (60.0,))


def small(**options):
    torch.manual_seed(0)
    options = {"library": "timm", "name": "test_convnext", "input_size": (32, 32), **options}
    return DensePredictor(["sky", "sea", "sand"], normalization=NORMALIZATION, **options).eval()


geometries = st.tuples(
    *[st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 5), st.integers(0, 6)) for _ in range(2)]
)


@settings(max_examples=60, deadline=None)
@given(geometries)
def test_scores_lie_at_the_centres_of_windows_with_straight_lines_between(axes):
    """Against numpy's interpolation, which also stays constant beyond the outermost points."""
    windows, strides, counts, _ = zip(*axes, strict=True)
    size = tuple(w + s * (n - 1) + rest % s for w, s, n, rest in axes)
    generator = torch.Generator().manual_seed(sum(size))
    cells = torch.randn(1, 2, *counts, dtype=torch.float64, generator=generator)
    expected = cells.numpy()
    for axis, (window, stride, count, length) in enumerate(
        zip(windows, strides, counts, size, strict=True), start=2
    ):
        centres = (window - 1) / 2 + stride * np.arange(count)
        expected = np.apply_along_axis(
            lambda v, c=centres, n=length: np.interp(np.arange(n), c, v), axis, expected
        )
    got = spread(cells, windows, strides, size).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_values_at_centres_that_are_pixels_are_exact():
    cells = torch.randn(1, 3, 4, 5)
    pixels = spread(cells, (31, 9), (8, 4), (31 + 24, 9 + 16))
    assert torch.equal(pixels[..., 15::8, 4::4][..., :4, :5], cells)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (31, 33), (70, 20)])
def test_an_image_smaller_than_a_window_lies_in_its_middle(size):
    model = small()
    image = torch.rand(1, 3, *size) * 255
    short = [max(0, 32 - length) for length in size]
    top, left = short[0] // 2, short[1] // 2
    padded = F.pad(image, (left, short[1] - left, top, short[0] - top), value=120.0)
    with torch.no_grad():
        whole = model(padded)[..., top : top + size[0], left : left + size[1]]
        torch.testing.assert_close(model(image), whole)


def test_the_scores_are_the_classifiers():
    model = small()
    classifier = LIBRARIES["timm"][1]("test_convnext", 3, 3).eval()
    classifier.load_state_dict(
        {k: v.flatten(1) if k == "head.fc.weight" else v for k, v in model.dense.state_dict().items()}
    )
    image = torch.rand(2, 3, 32, 32) * 255
    with torch.no_grad():
        scores = classifier((image - 120) / 60)
        torch.testing.assert_close(model(image), scores[..., None, None].expand(-1, -1, 32, 32))


@pytest.mark.parametrize("output_stride", [None, 8])
def test_a_file_brings_back_the_same_predictions(tmp_path, output_stride):
    model = small(output_stride=output_stride)
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.architecture == model.architecture
    assert again.stride == (output_stride or 32)
    image = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
    first, second = (predict(m, image, precision="f32", probabilities=True) for m in (model, again))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    np.testing.assert_array_equal(first.labels, first.probabilities.argmax(2))
    np.testing.assert_allclose(first.probabilities.sum(2), 1, atol=1e-5)


def test_tiles_give_the_whole_image():
    model = small(library="torchvision", name="squeezenet1_1", input_size=(64, 64))
    image = np.random.default_rng(0).integers(0, 256, (100, 700, 3), dtype=np.uint8)
    whole = predict(model, image, precision="f32", tile=None, probabilities=True)
    said = []
    progress = SimpleNamespace(say=said.append, advance=lambda *_: None)
    tiled = predict(model, image, precision="f32", tile=448, probabilities=True, progress=progress)
    assert said == []  # nothing about tiles that are approximate
    np.testing.assert_allclose(tiled.probabilities, whole.probabilities, atol=1e-5)


def test_the_dilated_network_keeps_the_scores_of_the_coarse_one():
    coarse, fine = small(), small(output_stride=16)
    fine.load_state_dict(coarse.state_dict())
    image = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            fine.dense(image)[..., ::2, ::2], coarse.dense(image), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "no_such_net"}, "no_such_net"),
        ({"name": "hf-hub:someone/something"}, "name="),
        ({"library": "os"}, "library"),
        ({"input_size": (0, 32)}, "input_size"),
    ],
)
def test_only_names_of_the_libraries_are_built(change, message):
    with pytest.raises(ConfigError, match=message):
        small(**change)


def test_torchvision_takes_three_channels():
    with pytest.raises(ConfigError, match="2 channels"):
        DensePredictor(3, 2, library="torchvision", name="squeezenet1_1", input_size=(64, 64))


def test_a_transformer_is_refused_by_the_name_of_its_layer():
    with pytest.raises(SurgeryError, match="attn"):
        small(name="test_vit", input_size=(160, 160))


def test_a_file_cannot_ask_for_what_is_not_in_the_library(tmp_path):
    path = tmp_path / "m.safetensors"
    save(small(), path)
    assert read_header(path).architecture.name == "test_convnext"
    data = path.read_bytes()
    assert json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    path.write_bytes(data.replace(b"test_convnext", b"test_conv_ext"))
    with pytest.raises(ModelFileError, match="test_conv_ext"):
        load(path)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_builds_without_memory(library):
    name = {"torchvision": "squeezenet1_1", "timm": "test_convnext"}[library]
    names, builder = LIBRARIES[library]
    assert name in names()
    with torch.device("meta"):
        dense = convolutionalize(builder(name, 5, 3), (64, 64))
    assert {tensor.device.type for tensor in dense.state_dict().values()} == {"meta"}
