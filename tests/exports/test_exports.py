"""The contract every format keeps, swept over `FORMATS` and over every kind of network that ships."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_networks import CLASSES, NETWORKS, built

from fullyconv import cli, exports
from fullyconv.engines import compile_model, least_side
from fullyconv.errors import ConfigError, InputError, MachineError
from fullyconv.exports import FORMATS, Comparison, export
from fullyconv.models import KINDS, DensePredictor, Normalization, SegmentationModel, UNet, save


def pixels(model: SegmentationModel, count: int, size: tuple[int, int]) -> np.ndarray:
    dtype = np.dtype(model.normalization.dtype)
    values = np.random.default_rng(1).integers(0, 256, (count, *size, model.channels))
    return values.astype(dtype)


def scores_of(model: SegmentationModel, batch: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.from_numpy(batch.astype(np.float32)).permute(0, 3, 1, 2)).numpy()


def assert_labels(answer: np.ndarray, scores: np.ndarray) -> None:
    ranked = np.sort(scores, 1)
    clear = ranked[:, -1] - ranked[:, -2] > 1e-3 * np.abs(scores).max()
    assert answer.dtype == np.uint8
    assert clear.mean() > 0.9
    assert np.array_equal(answer[clear], scores.argmax(1)[clear])


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_kind_of_network_is_swept() -> None:
    assert {built(kind).architecture.kind for kind in NETWORKS} == KINDS.keys()
    strides = {built(kind).architecture.stride for kind in NETWORKS if kind.startswith("fcn")}
    assert strides == {32, 16, 8, 4}


# A package of bioimage.io holds an ONNX model, so one network shows what it adds.
SWEPT = [(name, kind) for name in FORMATS for kind in NETWORKS if name != "bioimageio" or kind == "unet"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), SWEPT)
def test_an_exported_network_is_the_network(name: str, kind: str, tmp_path: Path) -> None:
    """At sizes and numbers of images that `export` itself did not try."""
    form, model = FORMATS[name], built(kind)
    fixed = model.valid_input_size((98, 77)) if form.bounded else None
    # By scores: where every label is of one class, arg-max hides all that differs.
    made = export(model, tmp_path / f"m{form.suffix}", size=fixed, answer="scores")
    assert made.format == name
    assert all(comparison.agrees for comparison in made.comparisons)
    run, text = form.open(made.path)
    assert json.loads(text) == made.metadata
    assert tuple(made.metadata["classes"]) == CLASSES.names
    batches = [(1, fixed)] if fixed else [(5, (131, 164)), (1, (least_side(model) + 3, 141))]
    for count, size in batches:
        batch = pixels(model, count, size if fixed else model.valid_input_size(size))
        answer, expected = run(batch), scores_of(model, batch)
        assert expected.std() > 0.01
        assert answer.shape == expected.shape
        assert np.abs(answer - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["unet", "unet as published", "unet on a backbone", "fcn-8s", "dense classifier"]
)
def test_programs_that_plan_memory_take_any_size_up_to_a_largest(kind: str, tmp_path: Path) -> None:
    model = built(kind)
    made = export(model, tmp_path / "m.pte", answer="scores")
    taken = made.metadata["input"]
    least, step, most = taken["height"].values()
    count = taken["batch"]["most"]
    assert step == (model.stride if model.margin else 1)
    assert most == 512
    assert f"batch up to {count}, height from {least} " in str(made)
    run, _ = FORMATS["executorch"].open(made.path)
    # Every remainder of the stride, which is what borders and cuts depend on.
    shapes = [(1, least + more, most - step - more) for more in range(model.stride)]
    shapes += [(1, 139, 503), (count, least + 71, least + 5), (count, most, least)]
    for number, *size in shapes:
        batch = pixels(model, number, model.valid_input_size(tuple(size)))
        answer, expected = run(batch), scores_of(model, batch)
        assert answer.shape == expected.shape
        assert np.abs(answer - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("name", FORMATS)
def test_images_of_each_type_go_in_as_they_are(name: str, dtype: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UNet(3, 1, widths=(4, 6), normalization=Normalization((100.0,), (50.0,), dtype)).eval()
    torch.nn.init.normal_(model.head.weight)  # spread the scores, so that labels vary
    made = export(model, tmp_path / f"m{FORMATS[name].suffix}", size=(19, 22))
    known = FORMATS[name].dtypes
    taken = dtype if not known or dtype in known else "float32"
    assert made.metadata["input"]["dtype"] == taken
    assert made.comparisons[0].classes == 3
    batch = pixels(model, 1, (19, 22)).astype(taken)
    assert_labels(FORMATS[name].open(made.path)[0](batch), scores_of(model, batch))


@pytest.mark.parametrize("answer", ["probabilities", "scores"])
def test_other_answers_are_compared_by_value(answer: str, tmp_path: Path) -> None:
    model = built()
    made = export(model, tmp_path / "m.pt2", answer=answer, size=(33, 30))
    batch = pixels(model, 2, (33, 30))
    expected = scores_of(model, batch)
    if answer == "probabilities":
        expected = torch.from_numpy(expected).softmax(1).permute(0, 2, 3, 1).numpy()
    given = FORMATS["torch-export"].open(made.path)[0](batch)
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)
    assert [comparison.differing for comparison in made.comparisons] == [None] * 3
    assert "differs by at most" in str(made)
    assert made.metadata["output"]["answer"] == answer


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    import onnx

    model = built("unet as published")
    made = export(model, tmp_path / "m.onnx", to="onnx")
    props = onnx.load(made.path).metadata_props
    said = json.loads(next(prop.value for prop in props if prop.key == "fullyconv"))
    assert said == made.metadata
    side = model.valid_input_size((64, 64))[0]
    assert said["input"]["height"] == {"least": side, "step": model.stride}
    assert said["normalization"] == {"mean": [100.0, 120.0], "std": [50.0, 60.0]}
    assert said["output"]["margin"] == model.margin > 0
    assert [tuple(each["shape"]) for each in said["comparisons"]] == [each.shape for each in made.comparisons]
    assert {each["differing"] for each in said["comparisons"]} == {0}
    graph = onnx.load(made.path).graph
    axes = [axis.dim_param or axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", "height", "width", 2]
    assert json.loads(json.dumps(made.to_dict()))["format"] == "onnx"


def test_the_network_is_left_as_it_is(tmp_path: Path) -> None:
    model = built().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export(model, tmp_path / "m.pt2", size=(16, 16))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_one_that_answers_something_else_is_refused_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = built(), built()
    for network in (model, other):
        torch.nn.init.normal_(network.head.weight)  # spread the scores, so that labels vary
    form = FORMATS["torch-export"]

    def convert(graph: Any, batches: Any) -> Any:
        graph = type(graph).copied(other, graph.answer)
        return form.convert(graph, batches)

    monkeypatch.setitem(FORMATS, "torch-export", replace(form, convert=convert))
    with pytest.raises(ConfigError, match=r"not equal to its own.*labels differ"):
        export(model, tmp_path / "m.pt2", size=(16, 16))
    assert written(tmp_path) == []


def test_what_does_not_go_with_free_sizes_says_so_and_goes_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS["torch-export"]

    def convert(graph: Any, batches: Any) -> Any:
        if batches.size is None:
            raise RuntimeError("Guard failed: height % 32 == 5\nand more")
        return form.convert(graph, batches)

    monkeypatch.setitem(FORMATS, "torch-export", replace(form, convert=convert))
    model = built("fcn-8s")
    with pytest.raises(
        ConfigError, match=r"FCN with timm:test_resnet .*any size.*\(Guard failed: .* == 5\).*--size 512 512"
    ):
        export(model, tmp_path / "m.pt2")
    assert written(tmp_path) == []
    assert "96×81 pixels" in str(export(model, tmp_path / "m.pt2", size=(96, 81)))


Wrong = Callable[[Path], Any]

WRONG: dict[str, tuple[Wrong, type[Exception], str]] = {
    "suffix": (lambda f: export(built(), f / "m.bin"), ConfigError, "one of onnx, openvino"),
    "suffix of another": (lambda f: export(built(), f / "m.pt2", to="onnx"), ConfigError, "m.onnx"),
    "format": (lambda f: export(built(), f / "m.onnx", to="tflite"), ConfigError, "'tflite'"),
    "answer": (lambda f: export(built(), f / "m.onnx", answer="masks"), ConfigError, "'labels'"),
    "empty": (lambda f: export(built(), f / "m.pt2", size=(0, 5)), ConfigError, "from 1 on"),
    "unfit": (
        lambda f: export(built("unet as published"), f / "m.pt2", size=(70, 70)),
        ConfigError,
        "such as 72×72",
    ),
    "folder": (lambda f: export(built(), f / "no" / "m.pt2"), InputError, "mkdir -p"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_before_anything_is_made(case: str, tmp_path: Path) -> None:
    call, error, said = WRONG[case]
    with pytest.raises(error, match=said):
        call(tmp_path)
    assert written(tmp_path) == []


def test_a_missing_package_is_the_machine_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports._export, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"executorch takes.*fullyconv\[executorch\]"):
        export(built(), tmp_path / "m.pte", size=(16, 16))


def test_two_files_appear_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"m\.bin already exists"):
        export(built(), tmp_path / "m.xml", size=(16, 16))
    assert written(tmp_path) == ["m.bin"]
    made = export(built(), tmp_path / "m.xml", size=(16, 16), overwrite=True)
    assert written(tmp_path) == ["m.bin", "m.xml"]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    form = FORMATS["openvino"]

    def failing(path: Path) -> Any:
        raise RuntimeError("cannot be read")

    monkeypatch.setitem(FORMATS, "openvino", replace(form, open=failing))
    with pytest.raises(ConfigError, match="cannot be read"):
        export(built("unet"), tmp_path / "m.xml", size=(24, 24), overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert form.open(made.path)[0](pixels(built(), 1, (16, 16))).shape == (1, 16, 16)


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return caught.value.code or 0


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "m.safetensors", tmp_path / "m.pt2"
    save(built(), model)
    command = ["export", str(model), "--to", "torch-export", "--out", str(out), "--size", "24", "17"]
    assert exit_code(command) == 0
    assert "1×24×17×2: all 408 labels are equal, 1 class(es) among them" in capsys.readouterr().out
    assert exit_code(command) == 2
    assert "already exists" in capsys.readouterr().err
    assert exit_code([*command, "--overwrite", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["file"], said["input"]["height"], said["input"]["batch"]) == (str(out), 24, "any")


@pytest.mark.parametrize(
    ("differing", "difference", "agrees"), [(0, 0.0, True), (3, 0.009, True), (3, 0.011, False)]
)
def test_labels_may_differ_where_scores_tie(differing: int, difference: float, agrees: bool) -> None:
    comparison = Comparison((1, 9, 9, 3), 81, 2, differing, difference, 10.0)
    assert comparison.agrees is agrees
    assert ("81 labels" in str(comparison)) is (differing == 0) or "3 of 81 labels differ" in str(comparison)


@pytest.mark.slow
def test_a_classifier_s_graph_of_free_sizes_is_made_beyond_its_window() -> None:
    """Smaller images are padded: a graph made of such a one would pad all."""
    torch.manual_seed(0)
    model = DensePredictor(3, library="torchvision", name="squeezenet1_1", input_size=(128, 128)).eval()
    runner = compile_model(model, engine="onnx", answer="scores")
    for size in ((80, 90), (150, 170)):
        batch = pixels(model, 1, size)
        expected = scores_of(model, batch)[0]
        assert np.abs(next(runner.run([batch[0]])) - expected).max() <= 1e-4 * np.abs(expected).max()
