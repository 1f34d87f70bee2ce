"""From a network to OpenVINO's form of it, kept on disk since converting takes seconds."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullyconv.engines._graph import DeployedGraph, free_axes, require_equal, traced
from fullyconv.engines._runner import Answer, Size
from fullyconv.errors import ConfigError
from fullyconv.models import SegmentationModel
from fullyconv.models.segmentation import PixelType

CACHE_BYTES = 4 << 30  # beyond this the graphs that lay unused longest make room
_GRAPH = "graph.xml"
_FORM = 2  # raised whenever the same network converts to something else: older graphs are then not read


@cache
def openvino_core() -> Any:
    """Return OpenVINO's ``Core``: one for the life of the process.

    A Core's CPU plugin gives its thread a stack for signals, and unmaps it with itself. Of two that end in
    the order in which they began, the second puts the first one's stack back, which is gone: the next signal
    that Python handles, such as the end of a child process or Ctrl-C, is then a segmentation fault.
    """
    import openvino

    return openvino.Core()


def converted(graph: DeployedGraph, size: Size | None, *, batch: bool = False) -> Any:
    """Convert a graph to an ``openvino.Model`` that takes one window, 1×H×W×C, in the training images' type.

    Parameters
    ----------
    graph
        On the CPU.
    size
        (height, width) of the window; None for any from `least_side` on.
    batch
        Whether it takes any number of windows at once, N×H×W×C.

    Raises
    ------
    ConfigError
        OpenVINO has no form of it, or one that answers something else.
    """
    import openvino

    example = graph.example(size, 1 + batch)
    try:
        program = traced(graph, example, free_axes(size, batch=batch))
        with torch.no_grad():
            model = openvino.convert_model(program, extension=_extensions())
        height, width = size or (-1, -1)
        model.reshape({0: openvino.PartialShape([-1 if batch else 1, height, width, graph.model.channels])})
        if size is None:
            require_equal(_computing(model), graph, example)
        return _taking(model, graph.model.normalization.dtype)
    except Exception as error:  # converters raise what they like
        raise ConfigError(
            f"{type(graph.model).__name__} for windows of {_shown(size)}, which OpenVINO cannot run "
            f"({_first_line(error)})",
            "a network and a size that it can convert",
            "take --engine torch",
        ) from error


def _taking(model: Any, dtype: PixelType) -> Any:
    """Let a model of float32 input take pixels of another type: more than its converter knows."""
    from openvino import Type
    from openvino.preprocess import PrePostProcessor

    with_input = PrePostProcessor(model)
    with_input.input().tensor().set_element_type(Type(np.dtype(dtype)))
    return with_input.build()


def _computing(model: Any) -> Callable[[Tensor], Tensor]:
    """Return a model as a function of windows, exact to float32."""
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino_core().compile_model(model, "CPU", config)
    return lambda windows: torch.from_numpy(compiled(windows.numpy())[0])


def _extensions() -> list[Any]:
    """Return arithmetic on sizes as in Python: OpenVINO lacks some, and rounds quotients towards zero."""
    from openvino import opset15
    from openvino.frontend.pytorch import ConversionExtension

    def floor_divide(a: Any, b: Any) -> Any:
        return opset15.divide(opset15.subtract(a, opset15.floor_mod(a, b)), b)

    def binary(operation: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
        def convert(context: Any) -> Any:
            a, b = (opset15.convert(context.get_input(index), "i64") for index in (0, 1))
            return operation(a, b).outputs()

        return convert

    return [
        ConversionExtension("<built-in function mod>", binary(opset15.floor_mod)),
        ConversionExtension("<built-in function floordiv>", binary(floor_divide)),
        ConversionExtension(str(torch.sym_max), binary(opset15.maximum)),
    ]


def _shown(size: Size | None) -> str:
    return f"{size[0]}×{size[1]}" if size else "any size"


def _first_line(error: Exception) -> str:
    given = error.given if isinstance(error, ConfigError) else str(error)
    return next((line.strip() for line in given.splitlines() if line.strip()), type(error).__name__)


def default_cache() -> Path:
    """Return the user's folder for what can be made anew."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fullyconv"


def fingerprint(model: SegmentationModel, answer: Answer, *options: object) -> str | None:
    """Return a key for what a network's graph converts to, by its weights and all that shapes it.

    None for a network that no file describes: nothing but its code says what it does.
    """
    try:
        architecture = model.architecture.model_dump_json()
    except (ConfigError, AttributeError):
        return None
    packages = ("fullyconv", "torch", "torchvision", "timm", "openvino")
    digest = hashlib.blake2b(digest_size=20)
    shapes = (architecture, len(model.classes), model.channels, model.normalization, answer)
    digest.update(repr((_FORM, shapes, options, [version(name) for name in packages])).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def kept(folder: Path | None, make: Callable[[], Any]) -> Any:
    """Return the ``openvino.Model`` that lies in a folder, or make it and keep it there.

    A folder that cannot be read or written costs time, nothing else; without one nothing is kept.
    """
    if folder is None:
        return make()
    with suppress(RuntimeError, OSError):  # not there, or damaged
        model = openvino_core().read_model(folder / _GRAPH)
        os.utime(folder)
        return model
    model = make()
    with suppress(RuntimeError, OSError):
        _keep(model, folder)
    return model


def _keep(model: Any, folder: Path) -> None:
    import openvino

    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = folder.with_name(f".{secrets.token_hex(8)}.part")
    try:
        temporary.mkdir()
        openvino.save_model(model, temporary / _GRAPH, compress_to_fp16=False)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _make_room(folder.parent)


def _make_room(cache: Path) -> None:
    folders = sorted(
        (path for path in cache.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime
    )
    room = CACHE_BYTES
    for number, folder in enumerate(folders):
        room -= sum(file.stat().st_size for file in folder.iterdir())
        if room < 0 and number:  # the newest stays, however large
            shutil.rmtree(folder, ignore_errors=True)
