"""Programs of ``torch.export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from fullyconv.engines import DeployedGraph, free_axes, traced
from fullyconv.exports._batches import Batches
from fullyconv.exports._comparison import Run
from fullyconv.exports._format import KEY, Write

_FILE = f"{KEY}.json"


def convert(graph: DeployedGraph, batches: Batches) -> Write:
    """Trace a graph to a program that takes pixels of the training images' type."""
    dtype = getattr(torch, graph.model.normalization.dtype)
    example = graph.example(batches.size, 2).to(dtype)
    program = traced(graph, example, free_axes(batches.size, batch=True))

    def write(path: Path, text: str) -> None:
        torch.export.save(program, path, extra_files={_FILE: text})

    return write


def open_exported(path: Path) -> tuple[Run, str]:
    """Return what runs a file, and its metadata."""
    extra = {_FILE: ""}
    module = torch.export.load(path, extra_files=extra).module()

    @torch.inference_mode()
    def run(batch: NDArray[Any]) -> NDArray[Any]:
        answer: NDArray[Any] = module(torch.from_numpy(batch)).numpy()
        return answer

    return run, extra[_FILE]
