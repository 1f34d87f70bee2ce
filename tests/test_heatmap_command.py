"""The verbs heatmap and convert, from files to files."""

import json

import numpy as np
import pytest
from safetensors.torch import save_file

from fullyconv import cli, commands
from fullyconv.errors import ConfigError
from fullyconv.images import read_mask, write_image
from fullyconv.models import load
from fullyconv.models.dense import build_classifier


@pytest.fixture
def files(tmp_path):
    """A photograph, weights of an own classifier of three classes, and their names."""
    write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    save_file(build_classifier("timm", "test_convnext", 3).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "names.txt").write_text("cat\n\ndog\nnewt\n", "utf-8")
    return tmp_path


OWN = {"classifier": "timm/test_convnext", "input_size": 64}


def test_heatmap_writes_panels_and_raw_values(files):
    result = commands.heatmap(
        files / "a.png",
        **OWN,
        weights=str(files / "w.safetensors"),
        names=files / "names.txt",
        classes="newt, Cat",
        out=files / "heat",
    )
    assert [path.name for path in result.files] == ["heatmaps.png", "scores.npy", "maps.npy", "labels.npy"]
    assert np.load(files / "heat" / "maps.npy").shape == (2, 70, 90)
    assert result.to_dict()["chosen"] == ["newt", "cat"]
    json.dumps(result.to_dict(), allow_nan=False)
    assert "heatmaps.png" in str(result)


def test_convert_writes_what_predict_and_heatmap_take(files):
    converted = commands.convert(
        "timm/test_convnext",
        out=files / "m.safetensors",
        weights=str(files / "w.safetensors"),
        input_size=64,
        names=files / "names.txt",
    )
    assert converted.to_dict()["stride"] == 32
    assert "timm/test_convnext: 3 classes, 64×64 windows every 32 pixels" in str(converted)
    assert load(files / "m.safetensors").classes.names == ("cat", "dog", "newt")
    predicted = commands.predict(files / "m.safetensors", files / "a.png", out=files / "out", precision="f32")
    mask = read_mask(predicted.masks[0]).values
    assert mask.shape == (70, 90)
    seen = commands.heatmap(
        files / "a.png",
        classifier=str(files / "m.safetensors"),
        out=files / "heat",
        shorter_side=70,
    )
    assert (seen.heatmaps.labels == mask).mean() > 0.999


def test_errors_exit_with_2_and_name_the_nearest(files, capsys):
    arguments = ["heatmap", str(files / "a.png"), "--classifier", "timm/test_convnext", "--weights"]
    for weights, option, value, said in (
        ("none", "--classes", "tigr", "tiger"),
        ("none", "--names", str(files / "no.txt"), "no.txt"),
        (str(files / "no.pt"), "--top", "3", "no.pt"),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main([*arguments, weights, option, value, "--out", str(files / "heat")])
        assert caught.value.code == 2
        assert said in capsys.readouterr().err


def test_convert_does_not_overwrite(files):
    (files / "m.safetensors").write_bytes(b"mine")
    with pytest.raises(Exception, match="exists"):
        commands.convert("timm/test_convnext", out=files / "m.safetensors", weights="none")
    with pytest.raises(ConfigError, match="nothing_like_it"):
        commands.convert("nothing_like_it", out=files / "n.safetensors")
    assert (files / "m.safetensors").read_bytes() == b"mine"
