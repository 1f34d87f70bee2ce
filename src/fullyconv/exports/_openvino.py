"""OpenVINO's own form: a graph in XML beside its weights."""

from __future__ import annotations

from pathlib import Path

from fullyconv.engines import INPUT, OUTPUT, DeployedGraph, converted, openvino_core
from fullyconv.exports._batches import Batches
from fullyconv.exports._comparison import Run
from fullyconv.exports._format import KEY, Write


def convert(graph: DeployedGraph, batches: Batches) -> Write:
    """Convert a graph to a model that takes pixels of the training images' type."""
    import openvino

    model = converted(graph, batches.size, batch=True)
    model.input(0).set_names({INPUT})
    model.output(0).set_names({OUTPUT})

    def write(path: Path, text: str) -> None:
        model.set_rt_info(text, KEY)
        openvino.save_model(model, path, compress_to_fp16=False)

    return write


def open_exported(path: Path) -> tuple[Run, str]:
    """Return what runs a file, and its metadata."""
    core = openvino_core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled(batch)[OUTPUT].copy(), str(model.get_rt_info(KEY).astype(str))
