"""The graph that engines run and exports hold: raw pixels in, answers out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fullyconv.engines._runner import Answer, Size
from fullyconv.errors import ConfigError
from fullyconv.models import DensePredictor, SegmentationModel
from fullyconv.models.segmentation import PixelType


class DeployedGraph(nn.Module):
    """A network with all that stands between an image's pixels and what is wanted of them.

    Normalisation and arg-max are part of it, so K×H×W scores need not leave an engine.

    Parameters
    ----------
    model
        Used in place, in evaluation mode from now on.
    answer
        See `fullyconv.engines.Runner`.

    Attributes
    ----------
    label_type : torch.dtype
        uint8 where it holds every class, else int32, which all engines know.
    """

    def __init__(self, model: SegmentationModel, answer: Answer) -> None:
        super().__init__()
        self.model = model
        self.answer = answer
        self.label_type = torch.uint8 if len(model.classes) <= 256 else torch.int32
        self.eval()

    @classmethod
    def copied(cls, model: SegmentationModel, answer: Answer) -> DeployedGraph:
        """Return the graph of a copy on the CPU, for other forms of it, some of which share its weights."""
        return cls(copy.deepcopy(model).cpu(), answer)

    def forward(self, windows: Tensor) -> Tensor:
        """Answer windows N×H×W×C in raw values of any type."""
        return self.finish(self.model(windows.permute(0, 3, 1, 2).float()))

    def finish(self, scores: Tensor) -> Tensor:
        """Return the answer that scores N×K×H×W give."""
        scores = scores.float()
        if self.answer == "labels":
            return scores.argmax(1).to(self.label_type)
        if self.answer == "probabilities":
            return scores.softmax(1).permute(0, 2, 3, 1)
        return scores

    def example(self, size: Size | None, count: int = 1) -> Tensor:
        """Return windows of noise as bright as the training images, count×H×W×C, float32.

        For None of a size that has no symmetry, so that no free size is taken for another or for a constant.
        """
        model = self.model
        side = least_side(model)
        size = size or model.valid_input_size((side + 5, side + 18))
        generator = torch.Generator().manual_seed(0)
        mean, std = model.mean.cpu().view(-1), model.std.cpu().view(-1)
        return mean + std * torch.randn(count, *size, model.channels, generator=generator)


def least_side(model: SegmentationModel) -> int:
    """Return the side in pixels from which on a window goes through a graph made for any size.

    Below, maps of a single row may appear, which neither torch's export nor OpenVINO's pooling allow for, and
    images smaller than a classifier's window, which are padded: another program.
    """
    windows = [
        max(part.architecture.input_size) for part in model.modules() if isinstance(part, DensePredictor)
    ]
    return max(64, 2 * model.stride, *(window + model.stride for window in windows))


def free_axes(size: Size | None, *, batch: bool = False) -> tuple[dict[int, Any]] | None:
    """Return what tells torch's exporters which axes of windows N×H×W×C may vary.

    Parameters
    ----------
    size
        None where height and width are free.
    batch
        Whether the number of windows is.
    """
    axes = (0,) * batch + (() if size else (1, 2))
    return (dict.fromkeys(axes, torch.export.Dim.AUTO),) if axes else None


def traced(graph: DeployedGraph, example: Tensor, axes: tuple[dict[int, Any]] | None) -> Any:
    """Return a graph on the CPU as a ``torch.export.ExportedProgram``; whatever torch raises passes through.

    Parameters
    ----------
    graph
        On the CPU.
    example
        What `DeployedGraph.example` gave, of two windows where their number is free.
    axes
        Those that may vary, as `free_axes` gives them; None where none may.
    """
    with torch.no_grad(), quiet_export():
        return torch.export.export(graph, (example,), dynamic_shapes=axes)


def require_equal(compute: Callable[[Tensor], Tensor], graph: DeployedGraph, example: Tensor) -> None:
    """Compare a graph of free sizes with torch: such have been seen to answer wrongly without an error.

    Also at a larger size: what was taken for a constant is right at the example's own.

    Parameters
    ----------
    compute
        Answers windows as the graph does; float32 that hold values of the training images' type.
    graph, example
        On the CPU, and what `DeployedGraph.example` gave.

    Raises
    ------
    ConfigError
        More than a thousandth of the labels, or values by more than a thousandth of the largest, differ.
    """
    count, height, width, _ = example.shape
    stride = graph.model.stride
    larger = graph.model.valid_input_size((height + 3 * stride + 7, width + stride + 2))
    for windows in (example, graph.example(larger, count)):
        windows = _as_pixels(windows, graph.model.normalization.dtype)
        answer = compute(windows)
        with torch.no_grad():
            expected = graph(windows)
        if answer.shape != expected.shape:
            wrong, shown = True, f"{tuple(answer.shape)} answers where torch has {tuple(expected.shape)}"
        elif graph.answer == "labels":
            differing = float((answer != expected).float().mean())
            wrong, shown = differing > 0.001, f"{differing:.1%} of labels differ from torch's"
        else:
            apart, scale = float((answer - expected).abs().max()), float(expected.abs().max())
            wrong = apart > 1e-3 * scale
            shown = f"values of up to {scale:.2g} differ from torch's by {apart:.1e}"
        if wrong:
            raise ConfigError(shown, "the same", "take --engine torch")


def _as_pixels(windows: Tensor, dtype: PixelType) -> Tensor:
    """Return the values that a type of pixels can hold, still in float32."""
    if dtype.startswith("float"):
        return windows
    limits = torch.iinfo(getattr(torch, dtype))
    return windows.round().clamp(limits.min, limits.max)


@contextmanager
def quiet_export() -> Iterator[None]:
    """Keep torch's exporters from printing the inequalities between sizes that they leave unsolved."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
