"""The geometry of a torch network: strides, receptive fields, and what an output region depends on.

`trace_geometry` runs a network on tensors that have shapes but no values, once per input size that is asked
for, and records every torch operation that touches what was computed from the image. Sizes are computed by
the network's own code, so crops to a skip's size, padding by size and other arithmetic on shapes are followed
exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from torch import nn

from fullyconv.errors import GeometryError
from fullyconv.geometry import Affine, Graph, Interval
from fullyconv.receptive_fields._recording import GlobalContext, Recording, record

__all__ = ["Geometry", "GeometryRow", "GeometryTable", "GlobalContext", "trace_geometry"]

# Multiples of every usual stride, so that resizes to a skip are exact; 4 less for unpadded U-Nets.
_NOMINAL_SIZES = (256, 512, 1024, 224, 64, 572, 1020)
_KEPT_RECORDINGS = 32


@dataclass(frozen=True)
class GeometryRow:
    """One layer of a network; pairs are (rows, columns).

    Parameters
    ----------
    name
        The layer.
    stride, offset
        Output position o lies over input position stride × o + offset; None after a mixing of all positions.
    receptive_field
        The most input positions one output position looks at through local operations; None where there are
        none.
    output_size
        The size of the layer's output.
    """

    name: str
    stride: tuple[Fraction, Fraction] | None
    offset: tuple[Fraction, Fraction] | None
    receptive_field: tuple[int, int] | None
    output_size: tuple[int, int]


@dataclass(frozen=True)
class GeometryTable:
    """The layers of a network in order; ``str`` draws it."""

    input_size: tuple[int, int]
    rows: tuple[GeometryRow, ...]
    global_context: tuple[GlobalContext, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the layers as JSON-ready values; fractions become numbers."""
        rows = [
            {
                "name": row.name,
                "stride": None if row.stride is None else [float(part) for part in row.stride],
                "offset": None if row.offset is None else [float(part) for part in row.offset],
                "receptive_field": row.receptive_field,
                "output_size": row.output_size,
            }
            for row in self.rows
        ]
        context = [str(layer) for layer in self.global_context]
        return {"input_size": self.input_size, "layers": rows, "global_context": context}

    def __iter__(self) -> Iterator[GeometryRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        lines = [("layer", "stride", "offset", "receptive field", "output size")]
        lines += [
            (
                row.name,
                _pair(row.stride),
                _pair(row.offset),
                _pair(row.receptive_field),
                _pair(row.output_size),
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
            )
            for line in lines
        ]
        text += [f"depends on the whole image: {context}" for context in self.global_context]
        return "\n".join(text)


def _pair(pair: tuple[object, object] | None) -> str:
    if pair is None:
        return "–"
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"


class Geometry:
    """Where the output of a network looks; made by `trace_geometry`. Pairs are (rows, columns).

    Parameters
    ----------
    model
        The network; it is kept, to be run without values at other sizes.
    channels
        The channels of its input.
    nominal_size
        The size at which numbers that do not depend on the input size are taken.
    """

    def __init__(self, model: nn.Module, channels: int, nominal_size: tuple[int, int]) -> None:
        self._model = model
        self._recordings: dict[tuple[int, int], Recording] = {}
        self.channels = channels
        self.nominal_size = nominal_size
        self.graphs(nominal_size)

    def _recording(self, input_size: tuple[int, int]) -> Recording:
        if input_size not in self._recordings:
            if len(self._recordings) >= _KEPT_RECORDINGS:
                self._recordings.pop(next(iter(self._recordings)))
            self._recordings[input_size] = record(self._model, self.channels, input_size)
        return self._recordings[input_size]

    def graphs(self, input_size: tuple[int, int]) -> tuple[Graph, Graph]:
        """Return the graph of the rows and of the columns, for this input size.

        Raises
        ------
        GeometryError
            Where the network does not run at this size.
        """
        recording = self._recording(input_size)
        return recording.rows, recording.columns

    @cached_property
    def global_context(self) -> tuple[GlobalContext, ...]:
        """The operations through which every output depends on the whole image; empty for a local network."""
        return self._recording(self.nominal_size).context

    @cached_property
    def stride(self) -> tuple[int, int]:
        """The total stride: moving the image by it moves every layer by whole positions."""
        rows, columns = self.graphs(self.nominal_size)
        return rows.period(), columns.period()

    @cached_property
    def output_stride(self) -> tuple[Fraction, Fraction]:
        """Input pixels per output position: 1 for a network whose output has the image's size."""
        rows, columns = (affine.stride for affine in self._output_maps)
        return rows, columns

    @cached_property
    def offset(self) -> tuple[Fraction, Fraction]:
        """The input position that output position 0 lies over; 0 where they coincide."""
        rows, columns = (affine.offset for affine in self._output_maps)
        return rows, columns

    @property
    def _output_maps(self) -> tuple[Affine, Affine]:
        maps = [graph.maps(n)[graph.output] for graph, n in self._axes(self.nominal_size)]
        rows, columns = (affine or Affine() for affine in maps)
        return rows, columns

    @cached_property
    def receptive_field(self) -> tuple[int, int] | None:
        """The most rows and columns of input that one output position looks at through local operations.

        None where there is no local path from the image to the output. Where `global_context` is not empty,
        the output depends on the rest of the image too.
        """
        found = [graph.receptive_fields(n)[graph.output] for graph, n in self._axes(self.nominal_size)]
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    def _axes(self, input_size: tuple[int, int]) -> list[tuple[Graph, int]]:
        return list(zip(self.graphs(input_size), input_size, strict=True))

    def output_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        """Return the size of the output for an input of this size."""
        rows, columns = (graph.output_size(n) for graph, n in self._axes(input_size))
        return rows, columns

    def input_interval(
        self, output_interval: tuple[Interval, Interval], input_size: tuple[int, int]
    ) -> tuple[Interval, Interval]:
        """Return the rows and columns of input that a rectangle of output depends on.

        Parameters
        ----------
        output_interval
            The rows and columns of the output, each (start, stop).
        input_size
            The size of the image.
        """
        if self._recording(input_size).context:
            return Interval(0, input_size[0]), Interval(0, input_size[1])
        rows, columns = (
            graph.needs(Interval(*wanted), n)
            for wanted, (graph, n) in zip(output_interval, self._axes(input_size), strict=True)
        )
        return rows, columns

    def table(self, input_size: tuple[int, int]) -> GeometryTable:
        """Return stride, offset, receptive field and output size layer by layer.

        Layers that leave positions alone, such as activations, have no row.
        """
        axes = self._axes(input_size)
        sizes = [graph.sizes(n) for graph, n in axes]
        maps = [graph.maps(n) for graph, n in axes]
        fields = [graph.receptive_fields(n) for graph, n in axes]
        rows = []
        for node in axes[0][0].nodes:
            y, x = (found[node.name] for found in maps)
            seen = [found[node.name] for found in fields]
            rows.append(
                GeometryRow(
                    node.name,
                    None if y is None or x is None else (y.stride, x.stride),
                    None if y is None or x is None else (y.offset, x.offset),
                    None if seen[0] is None or seen[1] is None else (seen[0], seen[1]),
                    (sizes[0][node.name], sizes[1][node.name]),
                )
            )
        return GeometryTable(input_size, tuple(rows), self._recording(input_size).context)


def trace_geometry(model: nn.Module, channels: int, input_size: tuple[int, int] | None = None) -> Geometry:
    """Trace where the output of ``model`` looks in its input.

    The network is run in evaluation mode on tensors without values: no pixel is computed and no weight is
    changed.

    Parameters
    ----------
    model
        A network from N×C×H×W to N×K×h×w; a dict with an entry ``out``, or a sequence whose first entry is
        the map, will do.
    channels
        The channels C of its input.
    input_size
        A size the network runs at; needed only for networks that run at none of the usual ones.

    Raises
    ------
    GeometryError
        Where the network runs at none of the sizes, its steps depend on pixel values, or it returns no map.
    """
    failure: GeometryError | None = None
    for size in [input_size] if input_size else [(n, n) for n in _NOMINAL_SIZES]:
        try:
            return Geometry(model, channels, size)
        except GeometryError as error:
            failure = failure or error
    assert failure is not None
    raise failure
