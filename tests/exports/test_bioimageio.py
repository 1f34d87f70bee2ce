"""Packages of bioimage.io are valid by that project's own reader, offline, and their test passes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnxruntime
import pytest
from exported_networks import CLASSES, built

from fullyconv.errors import ConfigError
from fullyconv.exports import export
from fullyconv.models import Normalization, UNet

# Ends with the status; run apart, since that reader leaves files open.
VALIDATE = """
import socket, sys

def connect(*_):
    raise OSError("this test has no network")

socket.socket.connect = connect
from bioimageio.spec import load_description

description = load_description(sys.argv[1], format_version="latest")
print(description.validation_summary)
print(description.type, description.validation_summary.status)
"""


@pytest.mark.parametrize("kind", ["unet as published", "unet"])
def test_a_package_is_valid_and_its_test_passes(kind: str, tmp_path: Path) -> None:
    options = {} if kind == "unet as published" else {"answer": "scores", "size": (33, 40)}
    model = built(kind)
    path = export(model, tmp_path / "m.zip", **options).path
    command = [sys.executable, "-c", VALIDATE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.split()[-2:] == ["model", "valid-format"], done.stdout
    with ZipFile(path) as package:
        assert package.testzip() is None
        said = json.loads(package.read("rdf.yaml"))
        given, expected = (
            np.load(io.BytesIO(package.read(said[side][0]["test_tensor"]["source"])))
            for side in ("inputs", "outputs")
        )
        session = onnxruntime.InferenceSession(package.read("weights.onnx"))
    answer = session.run([said["outputs"][0]["id"]], {said["inputs"][0]["id"]: given})[0]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert answer.dtype == expected.dtype
    assert said["config"]["fullyconv"]["classes"] == list(CLASSES.names)
    assert [paper["doi"] for paper in said["cite"]] == ["10.1007/978-3-319-24574-4_28"]
    y = said["inputs"][0]["axes"][1]["size"]
    if kind == "unet":
        assert y == 33
    else:
        assert y == {"min": given.shape[1], "step": model.stride}
        assert said["outputs"][0]["axes"][1]["size"]["offset"] == -2 * model.margin


def test_a_type_that_it_does_not_know_is_refused(tmp_path: Path) -> None:
    model = UNet(2, 1, widths=(4, 6), normalization=Normalization(dtype="float16")).eval()
    with pytest.raises(ConfigError, match="images of float16"):
        export(model, tmp_path / "m.zip", size=(16, 16))
    assert list(tmp_path.iterdir()) == []
