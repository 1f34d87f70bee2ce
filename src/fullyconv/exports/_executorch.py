"""Programs of ExecuTorch, for phones and small devices; on CPUs XNNPACK computes."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fullyconv.engines import DeployedGraph, traced
from fullyconv.exports._batches import MOST, Batches, Size
from fullyconv.exports._comparison import Run
from fullyconv.exports._format import KEY, Write


class _PlainPadding(TorchFunctionMode):
    """Pads by what ExecuTorch's programs of free sizes know.

    They know no padding by less than nothing: that is a cut. Padding by a free amount is padding by the most
    that it can be, and a cut. Repeated borders they take for a map in another memory order, which they then
    refuse to cut: those rows and columns are picked.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        mode = kwargs.get("mode", "constant")
        if function is not F.pad or mode not in ("constant", "replicate") or len(args) != 2:
            return function(*args, **kwargs)
        pad = partial(_with_value, value=kwargs.get("value")) if mode == "constant" else _repeated
        features, amounts = args
        for axis, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), 1):
            if before != 0 or after != 0:
                features = pad(features, -axis, before, after)
        return features


def _with_value(features: Tensor, axis: int, before: int, after: int, value: float | None) -> Tensor:
    from executorch.exir.sym_util import eval_upper_bound

    length = features.shape[axis] + before + after
    # Of free amounts the example decides whether they are more than nothing; see `_example_size`.
    most = (before if before > 0 else 0, eval_upper_bound(after) if after > 0 else 0)
    features = F.pad(features, (*(0, 0) * (-axis - 1), *most), value=value)
    return features.narrow(axis, -before if before < 0 else 0, length)


def _repeated(features: Tensor, axis: int, before: int, after: int) -> Tensor:
    length = features.shape[axis]
    places = torch.arange(length + before + after) - before
    return features.index_select(axis, places.clamp(0, length - 1))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ExecuTorch's parts from warning each other, and users, that they are experimental."""
    logger = logging.getLogger("torch.utils._pytree")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def convert(graph: DeployedGraph, batches: Batches) -> Write:
    """Lower a graph to a program that plans its memory for the largest images."""
    axes = _bounded_axes(batches)
    example = graph.example(*_example_size(batches)).to(getattr(torch, batches.dtype))
    with _quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeProgramManager, to_edge_transform_and_lower

        with _PlainPadding():
            program = traced(graph, example, axes)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).exported_program()

    def write(path: Path, text: str) -> None:
        with _quiet():
            # The last step alone: lowering takes a minute where sizes are free, and knows no text.
            made = EdgeProgramManager(copy.deepcopy(lowered), {KEY: text}).to_executorch()
        path.write_bytes(made.buffer)

    return write


def _bounded_axes(batches: Batches) -> tuple[dict[int, Any]] | None:
    """Return what tells torch's exporter which images N×H×W×C may come; None for those of one size."""
    if batches.size is not None:
        return None
    most = (MOST, *batches.most)
    return ({axis: torch.export.Dim.AUTO(max=most[axis]) for axis in range(3)},)


def _example_size(batches: Batches) -> tuple[Size, int]:
    """Return the size and number of the images to trace: of free sizes such that every map's is odd.

    What is cut from a map is then more than nothing, and so is what an image is padded by.
    """
    if batches.size is not None:
        return batches.size, 1
    stride = batches.model.stride
    side = -(-max(batches.least) // stride) * stride + 1
    height, width = batches.model.valid_input_size((side, side + stride))
    return (height, width), 2


def open_exported(path: Path) -> tuple[Run, str]:
    """Return what runs a file, and its metadata."""
    with _quiet():
        from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    forward, about = program.load_method("forward"), program.load_method(KEY)
    # Its answer lies in memory that its next run writes again.
    return lambda batch: forward.execute([torch.from_numpy(batch)])[0].numpy().copy(), about.execute([])[0]
