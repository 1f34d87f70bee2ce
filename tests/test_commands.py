"""From a folder to masks by the verbs alone, as a user would."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from fullyconv import commands
from fullyconv.errors import ConfigError, DataError, InputError
from fullyconv.images import read_image, read_mask
from fullyconv.progress import Quiet


@pytest.fixture(scope="module")
def trained(made_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("verbs") / "run"
    result = commands.train(
        made_data, out=out, epochs=4, widths=(8, 16), batch=4, crop=48, precision="f32", progress=Quiet()
    )
    return result.model


def test_evaluate_gives_scores_beside_the_constant_predictor(trained, made_data):
    evaluation = commands.evaluate(trained, made_data, progress=Quiet())
    scores = evaluation.to_dict()
    assert scores["mean_iu"] > scores["constant_predictor"]["mean_iu"]
    assert (scores["images"], scores["split"]) == (12, "all")
    assert "constant" in str(evaluation)
    json.dumps(scores, allow_nan=False)


def test_int8_is_evaluated_beside_float32(trained, made_data, tmp_path, monkeypatch, capsys):
    pytest.importorskip("nncf", reason="an extra: int8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    evaluation = commands.evaluate(trained, made_data, precision="int8", boundaries=False)
    exact = commands.evaluate(trained, made_data, boundaries=False, progress=Quiet())
    change = evaluation.scores.mean_iu - exact.scores.mean_iu
    said = capsys.readouterr().err
    assert f"int8: mean IU {evaluation.scores.mean_iu:.4f}, {change:+.4f} against f32" in said
    assert "int8 agrees with f32 on" in said


def test_predict_writes_a_mask_and_an_overlay_of_the_image_s_size(trained, made_data, tmp_path):
    result = commands.predict(trained, made_data / "images", out=tmp_path, progress=Quiet())
    assert len(result.masks) == 12
    for mask, overlay in zip(result.masks, result.files["overlays"], strict=True):
        size = read_image(made_data / "images" / mask.name).shape[:2]
        values = read_mask(mask).values
        assert values.shape == size
        assert read_image(overlay).shape == (*size, 3)
        assert set(np.unique(values)) <= {0, 1}


@pytest.mark.parametrize("size", [(1, 1), (1, 77), (50, 3), (33, 64)])
def test_predict_takes_any_size(trained, tmp_path, size):
    PIL.Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(tmp_path / "a.png")
    result = commands.predict(trained, tmp_path / "a.png", out=tmp_path / "out", progress=Quiet())
    assert read_mask(result.masks[0]).values.shape == size


def test_predict_never_overwrites_unless_told(trained, made_data, tmp_path):
    image = made_data / "images" / "00.png"
    first = commands.predict(trained, image, out=tmp_path, progress=Quiet())
    first.masks[0].write_bytes(b"mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        commands.predict(trained, image, out=tmp_path, progress=Quiet())
    assert first.masks[0].read_bytes() == b"mine"
    commands.predict(trained, image, out=tmp_path, overwrite=True, progress=Quiet())
    assert read_mask(first.masks[0]).values.ndim == 2


def test_predict_writes_the_good_ones_and_names_the_bad(trained, made_data, tmp_path):
    shutil.copy(made_data / "images" / "00.png", tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    with pytest.raises(DataError) as caught:
        commands.predict(trained, tmp_path, out=tmp_path / "out", progress=Quiet())
    assert len(caught.value.problems) == 1
    assert "bad.png" in caught.value.problems[0]
    assert [path.name for path in (tmp_path / "out" / "masks").iterdir()] == ["good.png"]


def test_predict_refuses_two_images_of_one_name(trained, made_data, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        shutil.copy(made_data / "images" / "00.png", tmp_path / folder)
    with pytest.raises(ConfigError, match=r"several images named 00: \S*a/00.png, \S*b/00.png"):
        commands.predict(trained, tmp_path / "a", tmp_path / "b", out=tmp_path / "out", progress=Quiet())
    assert not (tmp_path / "out").exists()


def test_explain_geometry_lists_every_layer(trained):
    table = commands.explain_geometry(trained, size=(33, 40))
    rows = json.loads(json.dumps(table.to_dict()))["layers"]
    assert rows[-1]["output_size"] == [33, 40]
    assert rows[-1]["stride"] == [1, 1]
    assert "head" in str(table).splitlines()[-1]


def test_explanations_draw_pictures(made_data, tmp_path):
    matrix = commands.explain_matrix(out=tmp_path / "matrix.png")
    image = made_data / "images" / "00.png"
    upsampling = commands.explain_upsampling(image, out=tmp_path / "upsampling.png")
    for drawn in (matrix, upsampling):
        assert min(read_image(drawn.picture).shape[:2]) > 300
        assert str(drawn.picture) in str(drawn)
        assert drawn.to_dict() == {"picture": str(drawn.picture)}
    with pytest.raises(InputError, match="exists"):
        commands.explain_matrix(out=tmp_path / "matrix.png")


def test_doctor_answers():
    assert "torch" in str(commands.doctor())
    json.dumps(commands.doctor().to_dict())
