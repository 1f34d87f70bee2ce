"""The proof: the dense network once, against the classifier on every window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from fullyconv.errors import GeometryError
from fullyconv.surgery.context import padded_layers
from fullyconv.surgery.dense import DenseClassifier, Program
from fullyconv.surgery.lifting import trunk_nodes
from fullyconv.surgery.positions import BATCH, Kind, Place, first_tensor, survey
from fullyconv.surgery.tracing import Traced, in_mode, trace

Size = tuple[int, int]


@dataclass(frozen=True)
class WindowsReport:
    """How the dense scores of one image compare to the classifier on each of its windows.

    Attributes
    ----------
    input_size, image_size, cells, stride
        (height, width): of a window, of the image, of the scores, and from cell to cell in pixels.
    classes
        K.
    head_difference : float64, h×w
        Largest |difference| over classes between a cell and the classifier's head on that window of the
        feature map. Float error always.
    crop_difference : float64, h×w
        Largest |difference| between a cell and the classifier on the crop of the image; NaN where the crop
        would leave the image. Float error where ``padded_layers`` and ``global_context`` are empty.
    score_scale
        Largest |score|, to compare the differences to.
    padded_layers, global_context
        Layers that pad with zeros, and layers that look at the whole image: why crops differ.
    dense_seconds, windows_seconds
        Median time of one dense pass, and of the classifier on all windows in batches of ``batch_size``.
    dense_trunk_seconds, windows_head_seconds
        The parts of them spent in the trunk, and in the head.
    batch_size, repeats
        How it was measured: alternating pairs after one warm-up.
    """

    input_size: Size
    image_size: Size
    cells: Size
    stride: Size
    classes: int
    head_difference: NDArray[np.float64]
    crop_difference: NDArray[np.float64]
    score_scale: float
    padded_layers: tuple[str, ...]
    global_context: tuple[str, ...]
    dense_seconds: float
    windows_seconds: float
    dense_trunk_seconds: float
    windows_head_seconds: float
    batch_size: int
    repeats: int

    @property
    def windows(self) -> int:
        """Number of windows that lie inside the image."""
        return int(np.isfinite(self.crop_difference).sum())

    @property
    def speed_up(self) -> float:
        """How many times faster the dense pass is."""
        return self.windows_seconds / self.dense_seconds

    @property
    def area_ratio(self) -> float:
        """Pixels of all windows over pixels of the image: the ratio if time were proportional to pixels."""
        return self.windows * prod(self.input_size) / prod(self.image_size)

    def __str__(self) -> str:
        lines = [
            f"{_by(self.image_size)} image, windows of {_by(self.input_size)} every {_by(self.stride)}: "
            f"{_by(self.cells)}×{self.classes} scores of up to {self.score_scale:.3g}",
            f"  head on each window of the feature map: within {_largest(self.head_difference):.1e}",
            f"  classifier on each of {self.windows} crops: within {_largest(self.crop_difference):.1e} "
            f"({self._reason()})",
        ]
        if self.repeats:
            lines += [f"  {line}" for line in self._timing()]
        return "\n".join(lines)

    def _timing(self) -> list[str]:
        windows_trunk = self.windows_seconds - self.windows_head_seconds
        dense_head = max(self.dense_seconds - self.dense_trunk_seconds, 0.0)
        return [
            f"dense {self.dense_seconds:.3f} s, {self.windows} crops in batches of {self.batch_size} "
            f"{self.windows_seconds:.3f} s: {self.speed_up:.1f} times faster, median of {self.repeats} pairs",
            f"limits: the windows hold {self.area_ratio:.2f} times the image's pixels, and the trunk is "
            f"{windows_trunk / self.dense_trunk_seconds:.1f} times faster;",
            f"        the head, the same work either way, takes {dense_head:.3f} s of the dense pass "
            f"({dense_head / self.dense_seconds:.0%}) and {self.windows_head_seconds:.3f} s on windows",
        ]

    def _reason(self) -> str:
        reasons = []
        if self.padded_layers:
            reasons.append(
                "where the larger image has pixels, zeros beyond a crop's border are read by "
                f"{_count(self.padded_layers)}"
            )
        if self.global_context:
            reasons.append(f"the whole image is seen by {_count(self.global_context)}")
        return "; ".join(reasons) or "float error: no layer pads"


@torch.no_grad()
def compare_with_windows(
    dense: DenseClassifier,
    classifier: nn.Module,
    image: Tensor,
    *,
    batch_size: int = 36,
    repeats: int = 3,
) -> WindowsReport:
    """Run ``dense`` once and ``classifier`` on every window, and compare scores and time.

    Parameters
    ----------
    dense
        `convolutionalize` of ``classifier``.
    classifier
        The classifier; both run in eval mode and are left in the mode they are in.
    image
        1×C×H×W or C×H×W, normalised as the classifier wants it, at least ``dense.input_size``.
    batch_size
        Crops in one batch of the classifier.
    repeats
        Pairs of measurements; 0 skips the timing (seconds are then NaN).

    Raises
    ------
    GeometryError
        Not one image, or one smaller than ``dense.input_size``.

    Notes
    -----
    Both run in the same engine, torch on the image's device. The comparison is that of Long, Shelhamer,
    Darrell, "Fully Convolutional Networks for Semantic Segmentation" (arXiv 1411.4038), section 3.1.
    """
    image = image[None] if image.dim() == 3 else image
    if image.dim() != 4 or image.shape[0] != 1:
        raise GeometryError(f"an image of shape {tuple(image.shape)}", "1×C×H×W or C×H×W", "pass one image")
    with in_mode(dense, False), in_mode(classifier, False):
        split = _Split(classifier, dense.channels, dense.input_size)
        scores = first_tensor(dense(image))
        maps = split.trunk(image)
        cells = [(i, j) for i in range(scores.shape[2]) for j in range(scores.shape[3])]
        size: Size = (int(image.shape[2]), int(image.shape[3]))
        inside = [
            cell
            for cell in cells
            if all(
                k * s + w <= e for k, s, w, e in zip(cell, dense.stride, dense.input_size, size, strict=True)
            )
        ]

        def run_head() -> Iterator[Tensor]:
            for batch in _batches(cells, batch_size):
                yield split.head(
                    [w.windows(m, batch, dense.stride) for w, m in zip(split.entries, maps, strict=True)]
                )

        def run_crops() -> Iterator[Tensor]:
            for batch in _batches(inside, batch_size):
                yield first_tensor(classifier(_crops(image, batch, dense.stride, dense.input_size)))

        head = _differences(scores, cells, run_head())
        crops = _differences(scores, inside, run_crops())
        seconds = _alternate(
            repeats,
            lambda: dense(image),
            lambda: list(run_crops()),
            lambda: split.trunk(image),
            lambda: list(run_head()),
        )
    return WindowsReport(
        input_size=dense.input_size,
        image_size=size,
        cells=(int(scores.shape[2]), int(scores.shape[3])),
        stride=dense.stride,
        classes=int(scores.shape[1]),
        head_difference=head,
        crop_difference=crops,
        score_scale=float(scores.abs().max()),
        padded_layers=split.padded,
        global_context=dense.global_context,
        dense_seconds=seconds[0],
        windows_seconds=seconds[1],
        dense_trunk_seconds=seconds[2],
        windows_head_seconds=seconds[3],
        batch_size=batch_size,
        repeats=repeats,
    )


@dataclass(frozen=True)
class _Entry:
    """Where a map of the trunk enters the head: its size at the training size, axes and stride."""

    place: Place

    def windows(self, features: Tensor, cells: Sequence[tuple[int, int]], stride: Size) -> Tensor:
        """Return the window of the map for each cell, as a batch."""
        step = [int(total / own) for total, own in zip(stride, self.place.stride, strict=True)]
        parts = []
        for cell in cells:
            window = features
            for axis, extent, k, s in zip(self.place.axes, self.place.size, cell, step, strict=True):
                window = window.narrow(axis, k * s, extent)
            parts.append(window)
        return torch.cat(parts)


class _Split:
    """A classifier cut in two where maps enter its head."""

    def __init__(self, classifier: nn.Module, channels: int, size: Size) -> None:
        traced = trace(classifier, training=False)
        places = survey(traced, channels, size)
        trunk = trunk_nodes(traced, places)
        nodes = [node for node in traced.graph.nodes if node in trunk]
        entries = [
            node
            for node in nodes
            if places[node].kind is Kind.MAP and any(user not in trunk for user in node.users)
        ]
        self.entries = [_Entry(places[node]) for node in entries]
        self.padded = padded_layers(traced, trunk)
        self._owner = _Owner(traced)
        self._trunk, self._head = (
            _trunk_program(traced, trunk, entries),
            _head_program(traced, places, trunk, entries),
        )

    def trunk(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the maps that enter the head."""
        return self._trunk(self._owner, image)  # type: ignore[no-any-return]  # what was traced has no types

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the first scores N×K for maps of the training size."""
        return first_tensor(self._head(self._owner, *maps)).flatten(1)


class _Owner:
    """What the code of a part calls ``self``: the classifier, and the constants that tracing took out."""

    def __init__(self, traced: Traced) -> None:
        self._traced = traced

    def __getattr__(self, name: str) -> Any:
        return self._traced.attribute(name)


def _trunk_program(traced: Traced, trunk: set[fx.Node], entries: list[fx.Node]) -> Program:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder" or node in trunk or node.op == "get_attr":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in entries))
    return Program.of(graph)


def _head_program(
    traced: Traced, places: dict[fx.Node, Place], trunk: set[fx.Node], entries: list[fx.Node]
) -> Program:
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in entries}
    batch = graph.call_method("size", (copies[entries[0]], 0))

    def operand(node: fx.Node) -> Any:
        # A size that the trunk computed is the same for a window, but for the number of images.
        if node not in copies and (node in trunk or node.op == "placeholder"):
            return _sizes(places[node].value, batch)
        if node not in copies:
            copies[node] = graph.node_copy(node, lambda source: operand(source))
        return copies[node]

    for node in traced.graph.nodes:
        if node.op == "output":
            graph.output(fx.map_arg(node.args[0], operand))
        elif node not in trunk and node.op not in ("placeholder", "get_attr"):
            arguments = fx.map_arg((node.args, node.kwargs), operand)
            copies[node] = graph.create_node(node.op, node.target, *arguments)
    return Program.of(graph)


def _sizes(value: Any, batch: fx.Node) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_sizes(part, batch) for part in value)
    return batch if value == BATCH else value


def _differences(
    scores: Tensor, cells: Sequence[tuple[int, int]], batches: Iterator[Tensor]
) -> NDArray[np.float64]:
    result = np.full(scores.shape[2:], np.nan)
    own = scores[0].permute(1, 2, 0)
    for cell, expected in zip(cells, (row for batch in batches for row in batch), strict=True):
        result[cell] = float((own[cell] - expected.flatten()).abs().max())
    return result


def _crops(image: Tensor, cells: Sequence[tuple[int, int]], stride: Size, size: Size) -> Tensor:
    (down, right), (height, width) = stride, size
    return torch.cat(
        [image[..., i * down : i * down + height, j * right : j * right + width] for i, j in cells]
    )


def _batches(cells: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for start in range(0, len(cells), size):
        yield cells[start : start + size]


def _alternate(repeats: int, *runs: Callable[[], Any]) -> list[float]:
    """Return the median seconds of each run; they take turns, so that a busy moment hits all of them."""
    if not repeats:
        return [float("nan")] * len(runs)
    seconds: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 1):
        for run, own in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                own.append(time.perf_counter() - start)
    return [median(own) for own in seconds]


def _largest(differences: NDArray[np.float64]) -> float:
    return float(np.nanmax(differences)) if np.isfinite(differences).any() else float("nan")


def _by(size: Size) -> str:
    return f"{size[0]}×{size[1]}"


def _count(names: tuple[str, ...]) -> str:
    return f"{len(names)} layer{'s' if len(names) > 1 else ''}, first `{names[0]}`"
