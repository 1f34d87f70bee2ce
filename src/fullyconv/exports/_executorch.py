"""Programs of ExecuTorch, for phones and small devices; on CPUs XNNPACK computes."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fullyconv.engines import DeployedGraph, traced
from fullyconv.exports._batches import MOST, Batches
from fullyconv.exports._comparison import Run
from fullyconv.exports._format import KEY, Write


class _Cuts(TorchFunctionMode):
    """Cuts where a network pads by less than nothing, which ExecuTorch does not know."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not F.pad or kwargs.get("mode", "constant") != "constant" or len(args) != 2:
            return function(*args, **kwargs)
        features, amounts = args
        for axis, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), 1):
            length = features.shape[-axis]
            start, end = max(0, -before), length - max(0, -after)
            features = features.narrow(-axis, start, end - start)
        added = [max(0, amount) for amount in amounts]
        return function(features, added, **kwargs) if any(added) else features


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
    count, height, width = batches.shapes()[1 if axes else 0]
    example = graph.example((height, width), count).to(getattr(torch, batches.dtype))
    with _Cuts():
        program = traced(graph, example, axes)

    def write(path: Path, text: str) -> None:
        with _quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            lowered = to_edge_transform_and_lower(
                copy.deepcopy(program),  # which lowering changes
                partitioner=[XnnpackPartitioner()],
                constant_methods={KEY: text},
            ).to_executorch()
        path.write_bytes(lowered.buffer)

    return write


def _bounded_axes(batches: Batches) -> tuple[dict[int, Any]] | None:
    """Return what tells torch's exporter which images N×H×W×C may come; None for those of one size."""
    if batches.size is not None:
        return None
    step = batches.step
    axes: dict[int, Any] = {0: torch.export.Dim("count", min=1, max=MOST)}
    for axis, least, most in zip((1, 2), batches.least, batches.most, strict=True):
        # In multiples: of other sizes its dialect does not know the arithmetic.
        steps = torch.export.Dim(f"steps{axis}", min=least // step, max=most // step)
        axes[axis] = step * steps + least % step if least % step else step * steps
    return (axes,)


def open_exported(path: Path) -> tuple[Run, str]:
    """Return what runs a file, and its metadata."""
    with _quiet():
        from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    forward, about = program.load_method("forward"), program.load_method(KEY)
    # Its answer lies in memory that its next run writes again.
    return lambda batch: forward.execute([torch.from_numpy(batch)])[0].numpy().copy(), about.execute([])[0]
