"""The ONNX Runtime engine: one file that many other programs run, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fullyconv.engines._graph import DeployedGraph, free_axes, least_side, quiet_export, require_equal
from fullyconv.engines._runner import Precision, RunOptions, Size, finished, read_ahead, require_fit
from fullyconv.engines._torch import answer_in_torch
from fullyconv.errors import ConfigError, FullyconvError, MachineError
from fullyconv.models import SegmentationModel

INPUT = "images"  # names of what goes in and comes out
OUTPUT = "answer"


class ONNXEngine:
    """A `Runner` in ONNX Runtime, on the CPU, float32.

    Parameters
    ----------
    model
        Left as it is.
    options
        Of windows of any size, those with a side below `least_side` go through torch.
        Nothing is kept in ``cache``.

    Raises
    ------
    ConfigError
        The precision is not f32, or the network has no form in ONNX.
    MachineError
        The parts of the extra ``onnx`` are not installed.
    """

    engine = "onnx"
    workers = 1
    in_flight = 2

    def __init__(self, model: SegmentationModel, options: RunOptions) -> None:
        if options.precision != "f32":
            raise ConfigError(
                f"{options.precision} with the onnx engine",
                "f32",
                "take --engine openvino, or --precision f32",
            )
        self.precision: Precision = options.precision
        self.answer, self.notes = options.answer, options.notes
        self._model, self._size = model, options.size
        deployed = DeployedGraph.copied(model, options.answer)
        graph = onnx_graph(deployed, options.size)
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads or 0
        settings.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        if options.size is None:
            require_equal(self._answer_batch, deployed, deployed.example(None))

    def run(self, windows: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Answer windows, in the order given; see `Runner.run`."""
        for window in read_ahead(windows, self.in_flight - 1):
            require_fit(window, self._model, self._size)
            if self._size is None and min(window.shape[:2]) < least_side(self._model):
                yield answer_in_torch(self._model, self.answer, window)
            else:
                yield finished(self._compute(window), self._model, self.answer)

    def close(self) -> None:
        """Let go of the session."""
        self._session = None

    def _answer_batch(self, windows: Tensor) -> Tensor:
        pixels = windows[0].numpy().astype(self._model.normalization.dtype)
        return torch.from_numpy(self._compute(pixels))[None]

    def _compute(self, window: NDArray[Any]) -> NDArray[Any]:
        pixels = np.ascontiguousarray(window)[None]
        try:
            answer: NDArray[Any] = self._session.run([OUTPUT], {INPUT: pixels})[0][0]
        except RuntimeError as error:
            raise FullyconvError(
                f"ONNX Runtime failed to compute a window ({error})",
                "an answer",
                "take smaller windows (--tile), or --engine torch",
            ) from error
        return answer


def onnx_graph(graph: DeployedGraph, size: Size | None, *, batch: bool = False) -> bytes:
    """Return a graph as the bytes of an ONNX model; its input holds pixels of the training images' type.

    Parameters
    ----------
    graph
        On the CPU.
    size
        (height, width) of its windows; None for any from `least_side` on.
    batch
        Whether it takes any number of windows at once, N×H×W×C.

    Raises
    ------
    ConfigError
        The network has no form in ONNX.
    MachineError
        The parts of the extra ``onnx`` are not installed.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise MachineError(
            f"no {', '.join(missing)}", "the parts that ONNX takes", "pip install 'fullyconv[onnx]'"
        )
    example = graph.example(size, 1 + batch).to(getattr(torch, graph.model.normalization.dtype))
    try:
        with torch.no_grad(), quiet_export():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                dynamic_shapes=free_axes(size, batch=batch),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as error:  # exporters raise what they like
        raise ConfigError(
            f"{type(graph.model).__name__}, which has no form in ONNX ({str(error).splitlines()[0]})",
            "a network that torch.onnx exports",
            "take --engine openvino or --engine torch",
        ) from error
    assert program is not None
    return bytes(program.model_proto.SerializeToString())
