"""Packages of bioimage.io, for Fiji, ilastik and others: an ONNX model, its description, and a test.

The description is that of bioimageio.spec, model 0.5 (https://bioimage-io.github.io/spec-bioimage-io).
"""

from __future__ import annotations

import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import torch
from numpy.typing import NDArray

from fullyconv.engines import INPUT, OUTPUT, DeployedGraph, onnx_graph
from fullyconv.errors import ConfigError
from fullyconv.exports import _onnx
from fullyconv.exports._batches import Batches
from fullyconv.exports._comparison import Run
from fullyconv.exports._format import KEY, Write
from fullyconv.hub import model_card
from fullyconv.models import Averaged

DESCRIPTION, WEIGHTS, CARD = "rdf.yaml", "weights.onnx", "README.md"
_TESTS = {INPUT: "test_input.npy", OUTPUT: "test_output.npy"}
_FORMAT_VERSION = "0.5.3"
_FCN = {
    "text": "J. Long, E. Shelhamer, T. Darrell: Fully Convolutional Networks for Semantic Segmentation, 2015",
    "doi": "10.1109/CVPR.2015.7298965",
}
_UNET = {
    "text": "O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image "
    "Segmentation, 2015",
    "doi": "10.1007/978-3-319-24574-4_28",
}
# Kind of network -> the paper of its method.
_PAPERS = {"dense": _FCN, "fcn": _FCN, "unet": _UNET, "backbone_unet": _UNET}


def convert(graph: DeployedGraph, batches: Batches) -> Write:
    """Convert a graph to ONNX; the package's test is the smallest batch and the library's answer to it."""
    import onnx

    dtype = graph.model.normalization.dtype
    if dtype == "float16":
        raise ConfigError("images of float16", "a type that bioimage.io knows, such as float32", "")
    weights = onnx_graph(graph, batches.size, batch=True)
    opset = next(each.version for each in onnx.load_from_string(weights).opset_import if not each.domain)
    image = next(batches.samples())
    with torch.inference_mode():
        answer = graph(torch.from_numpy(image.astype(np.float32))).numpy()
    files = {
        WEIGHTS: weights,
        CARD: model_card(graph.model).encode(),
        _TESTS[INPUT]: _npy(image),
        _TESTS[OUTPUT]: _npy(answer),
    }

    def write(path: Path, text: str) -> None:
        description = _description(graph, batches, files, opset, json.loads(text))
        # JSON is YAML, and needs no package.
        contents = {DESCRIPTION: json.dumps(description, indent=2, ensure_ascii=False).encode(), **files}
        with ZipFile(path, "w", ZIP_STORED) as package:
            for name, data in contents.items():
                package.writestr(ZipInfo(name), data)  # of a fixed date: the same network, the same bytes

    return write


def open_exported(path: Path) -> tuple[Run, str]:
    """Return what runs a package's weights, and its metadata."""
    with ZipFile(path) as package:
        description = json.loads(package.read(DESCRIPTION))
        run = _onnx.runner(_onnx.session(package.read(WEIGHTS)))
    return run, json.dumps(description["config"][KEY])


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _description(
    graph: DeployedGraph, batches: Batches, files: dict[str, bytes], opset: int, metadata: dict[str, Any]
) -> dict[str, Any]:
    model, free = graph.model, batches.size is None
    digests = {name: sha256(data).hexdigest() for name, data in files.items()}
    dtype = model.normalization.dtype

    def tested(tensor: str) -> dict[str, str]:
        return {"source": _TESTS[tensor], "sha256": digests[_TESTS[tensor]]}

    def side(name: str, least: int) -> dict[str, Any]:
        size = {"min": least, "step": batches.step} if free else least
        return {"type": "space", "id": name, "size": size}

    def answered(name: str) -> dict[str, Any]:
        reference = {"tensor_id": INPUT, "axis_id": name, "offset": -2 * model.margin}
        return {"type": "space", "id": name, "size": reference}

    batch = {"type": "batch"}
    classes = {
        "type": "channel",
        "id": "channel",
        "channel_names": list(model.classes.names),
    }
    height, width = batches.least
    answer_axes = {
        "labels": [batch, answered("y"), answered("x")],
        "probabilities": [batch, answered("y"), answered("x"), classes],
        "scores": [batch, classes, answered("y"), answered("x")],
    }
    networks = model.networks if isinstance(model, Averaged) else (model,)
    kinds = dict.fromkeys(network.architecture.kind for network in networks)
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    values = {"type": metadata["output"]["dtype"], "values": list(range(len(model.classes)))}
    return {
        "type": "model",
        "format_version": _FORMAT_VERSION,
        "name": f"fullyconv {type(model).__name__}",
        "description": f"Gives each pixel one of {len(model.classes)} classes; normalises its images itself.",
        "documentation": {"source": CARD, "sha256": digests[CARD]},
        "tags": ["fullyconv", "semantic-segmentation", model.architecture.kind.replace("_", "-")],
        "cite": [_PAPERS[kind] for kind in kinds if kind in _PAPERS],
        "inputs": [
            {
                "id": INPUT,
                "axes": [
                    batch,
                    side("y", height),
                    side("x", width),
                    {
                        "type": "channel",
                        "id": "channel",
                        "channel_names": [f"channel{number}" for number in range(model.channels)],
                    },
                ],
                "data": {
                    "type": dtype,
                    "range": [int(limits.min), int(limits.max)] if limits else [None, None],
                },
                "test_tensor": tested(INPUT),
            }
        ],
        "outputs": [
            {
                "id": OUTPUT,
                "axes": answer_axes[graph.answer],
                "data": values if graph.answer == "labels" else {"type": "float32"},
                "test_tensor": tested(OUTPUT),
            }
        ],
        "weights": {
            "onnx": {"source": WEIGHTS, "sha256": digests[WEIGHTS], "opset_version": opset},
        },
        "config": {KEY: metadata},
    }
