"""The examples of docs/how-to/export.md run where fullyconv is not, and label as the library does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from fullyconv.exports import export
from fullyconv.models import Normalization, SegmentationModel, UNet

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "export.md"
BLOCKED = "import sys; sys.modules['fullyconv'] = None\n"  # importing it is an error from now on
FILES = {
    "onnxruntime": ("model.onnx", "onnx.png"),
    "openvino": ("model.xml", "openvino.png"),
    "torch.export": ("model.pt2", "torch.png"),
    "executorch": ("model.pte", "executorch.png"),
}


def examples() -> dict[str, str]:
    """The blocks of the page that need no fullyconv, by the runtime that they load."""
    blocks = [part.partition("```")[0] for part in PAGE.read_text("utf-8").split("```python\n")[1:]]
    return {name: next(block for block in blocks if name in block) for name in FILES}


def network() -> SegmentationModel:
    torch.manual_seed(0)
    normalization = Normalization((100.0,), (50.0,))
    model = UNet(("background", "Zelle"), widths=(4, 8), normalization=normalization).eval()
    torch.nn.init.normal_(model.head.weight)  # spread the scores, so that labels vary
    return model


@pytest.mark.parametrize("runtime", FILES)
def test_an_example_runs_without_the_library(runtime: str, tmp_path: Path) -> None:
    name, picture = FILES[runtime]
    example = examples()[runtime]
    assert len([line for line in example.splitlines() if line]) <= 15
    model = network()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    export(model, tmp_path / name, size=(80, 80))
    (tmp_path / "new").mkdir()
    PIL.Image.fromarray(pixels).save(tmp_path / "new" / "new-00.png")
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "Zelle: " in done.stdout
    with torch.inference_mode():
        expected = model(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())[0].argmax(0).numpy()
    labels = np.asarray(PIL.Image.open(tmp_path / picture))
    assert 0 < labels.mean() < 1
    assert (labels == expected).mean() > 0.999
