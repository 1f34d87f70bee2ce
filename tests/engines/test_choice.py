"""Which engine and precision are taken, and what is said of it."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from fullyconv.engines import _choice as module
from fullyconv.engines import choose_precision, compile_model, label_agreement
from fullyconv.errors import ConfigError, MachineError
from fullyconv.models import Normalization, UNet

SIZES = [(64, 72), (70, 66)]


@pytest.fixture(scope="module")
def model() -> UNet:
    torch.manual_seed(0)
    model = UNet(3, 3, widths=(4, 8), normalization=Normalization((100.0,), (50.0,))).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture(scope="module")
def window() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 72, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pick_device", lambda: torch.device("cpu"))


def test_openvino_is_taken_on_a_cpu(model: UNet, tmp_path: Path) -> None:
    with closing(compile_model(model, size=(64, 72), cache=tmp_path)) as runner:
        assert (runner.engine, runner.notes) == ("openvino", ())


def test_torch_is_taken_on_a_gpu(model: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pick_device", lambda: torch.device("cuda"))
    with closing(compile_model(model)) as runner:
        assert (runner.engine, runner.notes) == ("torch", ())


def test_without_openvino_torch_is_taken_with_a_hint(model: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "openvino" else found(name))
    with closing(compile_model(model)) as runner:
        assert runner.engine == "torch"
        assert "pip install openvino" in runner.notes[0]


def test_what_openvino_cannot_run_torch_runs(model: UNet, tmp_path: Path) -> None:
    deep = UNet(2, 3, widths=(4, 4, 4, 4, 4)).eval()  # OpenVINO pools no map of a single row
    with closing(compile_model(deep, size=(3, 40), cache=tmp_path)) as runner:
        assert runner.engine == "torch"
        assert "UNet for windows of 3×40, which OpenVINO cannot run" in runner.notes[0]
        assert next(iter(runner.run([np.zeros((3, 40, 3), np.uint8)]))).shape == (3, 40)
    with pytest.raises(ConfigError, match="take --engine torch"):
        compile_model(deep, size=(3, 40), engine="openvino", cache=tmp_path)


def test_an_unknown_engine_is_refused_with_the_known(model: UNet) -> None:
    with pytest.raises(ConfigError, match="one of auto, openvino, torch"):
        compile_model(model, engine="tensorflow")


def test_torch_has_no_int8(model: UNet) -> None:
    with pytest.raises(ConfigError, match="--engine openvino"):
        compile_model(model, engine="torch", precision="int8")


@pytest.mark.parametrize(("least", "precision"), [(0.0, "bf16"), (1.01, "f32")])
def test_bfloat16_is_taken_only_where_the_labels_agree(
    model: UNet, window: np.ndarray, least: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_native_bf16", lambda: True)
    monkeypatch.setattr(module, "AGREEMENT", least)
    choice = choose_precision(model, window, engine="torch")
    assert choice.precision == precision
    assert choice.agreement is not None
    assert 0.5 < choice.agreement <= 1
    assert str(choice).startswith(f"precision: {precision}; bf16 agrees with f32 on ")


def test_precisions_are_compared_on_the_graph_that_predicts(
    model: UNet, window: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_native_bf16", lambda: True)
    choose_precision(model, window, engine="openvino", cache=tmp_path)
    (converted,) = tmp_path.iterdir()
    with closing(compile_model(model, engine="openvino", cache=tmp_path)):
        assert list(tmp_path.iterdir()) == [converted]
    choose_precision(model, window[:3], engine="openvino", cache=tmp_path)  # too small for it
    assert len(list(tmp_path.iterdir())) == 2


def test_the_agreement_is_the_share_of_equal_labels(
    model: UNet, window: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_native_bf16", lambda: True)
    choice = choose_precision(model, window, engine="torch")
    labels = []
    for precision in ("f32", "bf16"):
        with closing(compile_model(model, engine="torch", precision=precision)) as runner:
            labels.append(next(iter(runner.run([window]))))
    assert choice.agreement == (labels[0] == labels[1]).mean()


def test_agreement_counts_pixels_whatever_the_runners_answer(model: UNet) -> None:
    windows = [np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]
    other = copy.deepcopy(model)
    torch.nn.init.normal_(other.head.weight)

    def labels(network: UNet) -> list[np.ndarray]:
        with closing(compile_model(network, engine="torch")) as runner:
            return list(runner.run(windows))

    same = [a == b for a, b in zip(labels(model), labels(other), strict=True)]
    share = sum(each.sum() for each in same) / sum(each.size for each in same)
    for answers in (("labels", "scores"), ("probabilities", "labels")):
        with (
            closing(compile_model(model, engine="torch", answer=answers[0])) as first,
            closing(compile_model(other, engine="torch", answer=answers[1])) as second,
        ):
            assert label_agreement(first, second, windows) == share


def test_int8_is_fitted_to_the_windows_and_says_how_well(
    model: UNet, window: np.ndarray, tmp_path: Path
) -> None:
    windows = [np.roll(window, 5 * shift, 1) for shift in range(5)]
    with closing(
        compile_model(model, size=(64, 72), precision="int8", calibration=windows, cache=tmp_path)
    ) as runner:
        assert (runner.engine, runner.precision) == ("openvino", "int8")
        assert runner.notes[0].startswith("int8 agrees with f32 on ")
        assert runner.notes[0].endswith("of labels of 1 held-out windows")
        with closing(compile_model(model, engine="torch")) as exact:
            agreement = label_agreement(exact, runner, windows)
    assert 0.9 < agreement < 1  # not float32 under another name


@pytest.mark.parametrize("count", [0, 1])
def test_int8_needs_windows(model: UNet, window: np.ndarray, count: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="some dozens"):
        compile_model(model, precision="int8", calibration=[window] * count, cache=tmp_path, size=(64, 72))


@pytest.mark.parametrize(
    ("engine", "part"), [("openvino", "nncf"), ("openvino", "openvino"), ("onnx", "onnx")]
)
def test_a_missing_part_is_named(
    model: UNet, window: np.ndarray, engine: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    for name in ("_openvino", "_int8", "_onnx"):
        home = importlib.import_module(f"fullyconv.engines.{name}")
        monkeypatch.setattr(home, "find_spec", lambda name: None if name == part else found(name))
    precision = "int8" if part == "nncf" else "f32"
    with pytest.raises(MachineError, match=f"no {part}.*pip install"):
        compile_model(model, engine=engine, precision=precision, calibration=[window] * 4)


def test_without_native_bfloat16_nothing_is_measured(
    model: UNet, window: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_native_bf16", lambda: False)
    monkeypatch.delattr(module, "compile_model")
    choice = choose_precision(model, window)
    assert (choice.precision, choice.agreement) == ("f32", None)
    assert str(choice) == "precision: f32; this processor has no bfloat16"


PROGRAM = """
import sys
import fullyconv.engines
import nncf
import openvino
import openvino.tools.ovc
sent = [name for name in sys.modules if name.startswith("openvino_telemetry.")]
assert not sent, sent
"""


def test_nothing_is_reported_to_the_makers_of_the_engines(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    assert not (tmp_path / "intel").exists()
