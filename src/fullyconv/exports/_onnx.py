"""ONNX models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fullyconv.engines import INPUT, OUTPUT, DeployedGraph, onnx_graph
from fullyconv.errors import ConfigError
from fullyconv.exports._batches import Batches
from fullyconv.exports._comparison import Run
from fullyconv.exports._format import KEY, Write

_MOST_BYTES = 2**31 - 1  # of a message of protocol buffers
_AXES = ("batch", "height", "width")


def convert(graph: DeployedGraph, batches: Batches) -> Write:
    """Convert a graph to a model with named axes that takes pixels of the training images' type."""
    import onnx

    weights = sum(tensor.nbytes for tensor in graph.state_dict().values())
    if weights > _MOST_BYTES:
        raise ConfigError(f"{weights / 2**30:.1f} GiB of weights", "less than 2 GiB, as ONNX holds", "")
    model = onnx.load_from_string(onnx_graph(graph, batches.size, batch=True))
    _name_axes(model)

    def write(path: Path, text: str) -> None:
        onnx.helper.set_model_props(model, {KEY: text})
        path.write_bytes(model.SerializeToString())

    return write


def _name_axes(model: Any) -> None:
    """Give the free axes of a model's input the names that people expect, wherever they appear."""
    axes = model.graph.input[0].type.tensor_type.shape.dim[:3]
    names = {axis.dim_param: name for axis, name in zip(axes, _AXES, strict=True) if axis.dim_param}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]


def open_exported(path: Path) -> tuple[Run, str]:
    """Return what runs a file, and its metadata."""
    opened = session(path)
    return runner(opened), opened.get_modelmeta().custom_metadata_map[KEY]


def session(model: Path | bytes) -> Any:
    """Return a session of ONNX Runtime on the CPU that says nothing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def runner(session: Any) -> Run:
    """Return what runs a session."""
    return lambda batch: session.run([OUTPUT], {INPUT: batch})[0]
