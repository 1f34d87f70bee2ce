"""Running a network on windows of an image: raw pixels in, labels, probabilities or scores out."""

import sys

from fullyconv.engines._choice import (
    AGREEMENT,
    ENGINES,
    PrecisionChoice,
    choose_precision,
    compile_model,
    label_agreement,
)
from fullyconv.engines._conversion import converted, openvino_core
from fullyconv.engines._graph import DeployedGraph, free_axes, least_side, traced
from fullyconv.engines._onnx import INPUT, OUTPUT, onnx_graph
from fullyconv.engines._runner import Answer, Precision, Runner, RunOptions
from fullyconv.engines._torch import pick_device

__all__ = [
    "AGREEMENT",
    "ENGINES",
    "INPUT",
    "OUTPUT",
    "Answer",
    "DeployedGraph",
    "Precision",
    "PrecisionChoice",
    "RunOptions",
    "Runner",
    "choose_precision",
    "compile_model",
    "converted",
    "free_axes",
    "label_agreement",
    "least_side",
    "onnx_graph",
    "openvino_core",
    "pick_device",
    "traced",
]

# When they are imported, OpenVINO and nncf report that to their makers over the network, from a fork of this
# process, unless the package that does so is missing. Nobody asked the user.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is what keeps a module from being imported
