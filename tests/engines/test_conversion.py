"""Every kind of network converts rightly, and what was converted is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from fullyconv.engines import Answer, DeployedGraph, RunOptions, compile_model
from fullyconv.engines import _conversion as module
from fullyconv.engines import _openvino as engine_module
from fullyconv.engines._conversion import fingerprint, kept
from fullyconv.engines._graph import least_side, require_equal
from fullyconv.engines._openvino import openvino_graph
from fullyconv.errors import ConfigError
from fullyconv.models import FCN, DensePredictor, Normalization, SegmentationModel, UNet

NORMALIZATION = Normalization(mean=(100.0, 120.0), std=(50.0, 60.0))

KINDS: dict[str, Callable[[], SegmentationModel]] = {
    "unet": lambda: UNet(3, 2, widths=(4, 8, 8, 16), normalization=NORMALIZATION),
    "unet, valid": lambda: UNet(2, 2, widths=(4, 8, 8), padding="valid", normalization=NORMALIZATION),
    "unet, unpooling": lambda: UNet(
        3, 2, widths=(4, 8, 8), upsampling="unpooling", normalization=NORMALIZATION
    ),
    "unet, content-aware": lambda: UNet(
        3, 2, widths=(4, 8), norm="group", upsampling="content_aware", normalization=NORMALIZATION
    ),
    "unet on resnet": lambda: UNet(3, 2, encoder="timm:test_resnet", normalization=NORMALIZATION),
    "fcn": lambda: FCN("timm:test_efficientnet", 3, 8, channels=2, normalization=NORMALIZATION),
    "fcn, layer norm": lambda: FCN("timm:test_convnext", 3, 16, channels=2, normalization=NORMALIZATION),
    "dense": lambda: DensePredictor(
        3, 2, library="timm", name="test_convnext", input_size=(32, 32), normalization=NORMALIZATION
    ),
}


def built(kind: str) -> SegmentationModel:
    torch.manual_seed(0)
    model = KINDS[kind]().eval()
    for parameter in model.parameters():
        if not parameter.any():  # such as score layers, which start at zero, where nothing can be seen
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def small() -> SegmentationModel:
    torch.manual_seed(0)
    return UNet(3, 2, widths=(4, 6), normalization=NORMALIZATION).eval()


def assert_equal(model: SegmentationModel, size: tuple[int, int] | None, windows: list[np.ndarray]) -> None:
    options = RunOptions(size, answer="scores")
    runner = engine_module.OpenVINOEngine(model, options)
    with closing(runner):
        for window, given in zip(windows, runner.run(windows), strict=True):
            with torch.inference_mode():
                scores = model(torch.from_numpy(window).permute(2, 0, 1)[None].float())[0].numpy()
            assert given.shape == scores.shape
            assert np.abs(given - scores).max() <= 1e-4 * np.abs(scores).max(), window.shape


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_of_free_sizes_is_the_network_at_every_size(kind: str) -> None:
    model, random = built(kind), np.random.default_rng(0)
    side = least_side(model)
    sizes = [(side, side), (side + 1, side), (side - 1, side + 40), (3, 70)]
    sizes += [tuple(map(int, random.integers(side, side + 100, 2))) for _ in range(6)]
    fitting = [model.valid_input_size(size) for size in sizes]
    assert_equal(model, None, [random.integers(0, 256, (*size, 2)).astype(np.uint8) for size in fitting])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_of_one_size_is_the_network(kind: str) -> None:
    model, random = built(kind), np.random.default_rng(0)
    size = model.valid_input_size((37, 66))
    assert_equal(model, size, [random.integers(0, 256, (*size, 2)).astype(np.uint8) for _ in range(2)])


@pytest.mark.parametrize("answer", ["scores", "labels"])
def test_a_conversion_that_answers_something_else_is_refused(answer: Answer) -> None:
    normalization = Normalization((100.0, 120.0), (50.0, 60.0), "float32")
    graph = DeployedGraph(UNet(3, 2, widths=(4, 6), normalization=normalization).eval(), answer)
    example = graph.example(None)
    model = module.converted(graph, None)
    require_equal(module._computing(model), graph, example)
    other = copy.deepcopy(graph)  # what was converted shares the memory of the weights
    torch.nn.init.normal_(other.model.head.weight)
    with pytest.raises(ConfigError, match="differ from torch"):
        require_equal(module._computing(model), other, example)


def test_a_constant_that_is_right_at_one_size_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = DeployedGraph(small(), "scores")
    example = graph.example(None)
    model = module.converted(graph, None)
    scores = UNet.scores

    def as_if_exported(self: UNet, images: torch.Tensor) -> torch.Tensor:
        return scores(self, images) * images.shape[-2] / example.shape[1]

    monkeypatch.setattr(UNet, "scores", as_if_exported)
    with pytest.raises(ConfigError, match="differ from torch"):
        require_equal(module._computing(model), graph, example)


def test_an_equal_network_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions((64, 64), cache=tmp_path / "cache")
    openvino_graph(small(), options)
    monkeypatch.setattr(engine_module, "converted", None)
    again = openvino_graph(small(), RunOptions((64, 64), "bf16", cache=tmp_path / "cache"))
    assert list(again.input(0).shape) == [1, 64, 64, 2]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_key_tells_networks_and_graphs_apart() -> None:
    other_weights, other_mean = small(), small()
    torch.nn.init.normal_(other_weights.head.bias)
    other_mean.normalization = Normalization((1.0, 2.0), (50.0, 60.0))
    keys = [
        fingerprint(small(), "labels", None),
        fingerprint(small(), "labels", (64, 64)),
        fingerprint(small(), "labels", None, "fitted to other windows"),
        fingerprint(small(), "scores", None),
        fingerprint(other_weights, "labels", None),
        fingerprint(other_mean, "labels", None),
    ]
    assert len({*keys}) == len(keys)
    assert fingerprint(small(), "labels", None) == keys[0]


def test_a_network_that_no_file_describes_is_not_kept(tmp_path: Path) -> None:
    import timm

    own = FCN(timm.create_model("test_resnet", features_only=True), 2, 8).eval()
    assert fingerprint(own, "labels", None) is None


class Plain(SegmentationModel):
    """As somebody may write one who needs no file of it."""

    stride = 1

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([-images, images], 1)


def test_a_network_that_says_nothing_of_its_architecture_is_converted_but_not_kept(tmp_path: Path) -> None:
    window = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64, 1)
    model = Plain(2, 1, Normalization()).eval()
    with closing(compile_model(model, engine="openvino", cache=tmp_path)) as runner:
        (labels,) = runner.run([window])
    assert np.array_equal(labels, window[..., 0] > 0)
    assert not list(tmp_path.iterdir())


def test_a_converted_network_is_not_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions((64, 64), cache=tmp_path / "cache")
    openvino_graph(small(), options)
    monkeypatch.setattr(DeployedGraph, "copied", None)
    openvino_graph(small(), options)


def test_a_damaged_or_unwritable_cache_costs_time_only(tmp_path: Path) -> None:
    graph = module.converted(DeployedGraph(small(), "labels"), (64, 64))
    folder = tmp_path / "cache" / "key"
    kept(folder, lambda: graph)
    (folder / "graph.xml").write_text("<net")
    assert kept(folder, lambda: graph) is graph
    assert kept(folder, lambda: None) is not None  # mended
    (tmp_path / "file").write_text("")
    assert kept(tmp_path / "file" / "key", lambda: graph) is graph


def test_the_cache_keeps_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = module.converted(DeployedGraph(small(), "labels"), (64, 64))
    monkeypatch.setattr(module, "CACHE_BYTES", 0)
    for key in ("first", "second"):
        kept(tmp_path / "cache" / key, lambda: graph)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["second"]


def test_the_cache_is_where_the_user_s_caches_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.default_cache() == tmp_path / "fullyconv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module.default_cache() == tmp_path / ".cache" / "fullyconv"
