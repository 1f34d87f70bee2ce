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


class _PlainPadding(TorchFunctionMode):
    """Cuts where a network pads by less than nothing, and joins where it repeats borders.

    ExecuTorch does not know the first. The second it takes for a map in another memory order, where sizes are
    free, and then refuses to cut it.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        mode = kwargs.get("mode", "constant")
        if function is not F.pad or mode not in ("constant", "replicate") or len(args) != 2:
            return function(*args, **kwargs)
        features, amounts = args
        if mode == "replicate":
            for axis, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), 1):
                length = features.shape[-axis]
                first, last = features.narrow(-axis, 0, 1), features.narrow(-axis, length - 1, 1)
                features = torch.cat([first] * before + [features] + [last] * after, -axis)
            return features
        # Compared, not by `max`, which the exporter keeps in the arithmetic of every later size.
        for axis, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), 1):
            start = -before if before < 0 else 0
            end = features.shape[-axis] + (after if after < 0 else 0)
            features = features.narrow(-axis, start, end - start)
        added = [amount if amount > 0 else 0 for amount in amounts]
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
    with _PlainPadding():
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
