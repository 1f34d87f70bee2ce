"""A network along one axis, as a graph of rules."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from fullyconv.errors import GeometryError
from fullyconv.geometry._positions import Affine, Interval, hull
from fullyconv.geometry._rules import Everywhere, Pointwise, Rule


@dataclass(frozen=True)
class Node:
    """One layer of a `Graph`: its name, its rule, and the names of what it takes.

    A layer with several inputs (a sum, a concatenation) applies its rule to each.
    """

    name: str
    rule: Rule
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """A network along one axis: nodes in an order in which each comes after what it takes.

    The last node is the output. The name of what the network is given is `Graph.INPUT`.
    """

    nodes: tuple[Node, ...]

    INPUT = "input"

    def __post_init__(self) -> None:
        known = {self.INPUT}
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in known]
            if missing or node.name in known or not node.inputs:
                raise GeometryError(
                    f"node {node.name!r} taking {', '.join(map(repr, node.inputs)) or 'nothing'}",
                    "a new name, and inputs that come earlier in the graph",
                    "order the nodes from input to output and name each once",
                )
            known.add(node.name)

    @property
    def output(self) -> str:
        """The name of the last node."""
        return self.nodes[-1].name if self.nodes else self.INPUT

    def sizes(self, size: int) -> dict[str, int]:
        """Return the size of every node's output for an input of ``size`` positions.

        Raises
        ------
        GeometryError
            Where an output would be empty or branches of different sizes meet; the layer is named.
        """
        sizes = {self.INPUT: size}
        for node in self.nodes:
            made = {node.rule.output_size(sizes[name]) for name in node.inputs}
            if len(made) > 1:
                made.discard(1)
            if len(made) > 1 or min(made) < 1:
                found = " and ".join(map(str, sorted(made)))
                raise GeometryError(
                    f"layer {node.name!r}: {found} positions for an input of {size}",
                    "one size of at least 1",
                    "use a larger input, or crop the branches to one size",
                )
            sizes[node.name] = made.pop()
        return sizes

    def output_size(self, size: int) -> int:
        """Return the size of the output for an input of ``size`` positions."""
        return self.sizes(size)[self.output]

    def steps(self) -> dict[str, Fraction | None]:
        """Return the input positions per position of every node; None where it has no places of the input."""
        steps: dict[str, Fraction | None] = {self.INPUT: Fraction(1)}
        for node in self.nodes:
            rule_step = node.rule.step
            given = next((steps[name] for name in node.inputs if steps[name] is not None), None)
            steps[node.name] = None if given is None or rule_step is None else given * rule_step
        return steps

    def period(self) -> int:
        """Return the total stride: moving the input by it moves every node by a whole number of positions."""
        return lcm(*(step.numerator for step in self.steps().values() if step is not None))

    def maps(self, size: int) -> dict[str, Affine | None]:
        """Return where the positions of every node lie over an input of ``size`` positions.

        Where branches that lie differently meet, the first one counts.
        """
        sizes = self.sizes(size)
        maps: dict[str, Affine | None] = {self.INPUT: Affine()}
        for node in self.nodes:
            given = next((name for name in node.inputs if maps[name] is not None), None)
            if given is None or node.rule.step is None:
                maps[node.name] = None
                continue
            inner = maps[given]
            assert inner is not None
            maps[node.name] = inner.after(node.rule.affine(sizes[given]))
        return maps

    def needs(self, wanted: Interval, size: int) -> Interval:
        """Return the input positions that the outputs ``wanted`` depend on, of an input of ``size``.

        What padding adds is not counted; the result is empty where the outputs depend on padding only.
        """
        return self._walk_back(wanted, self.sizes(size), clip=True)[self.INPUT]

    def reach(self, wanted: Interval, size: int) -> dict[str, Interval]:
        """Return what the outputs ``wanted`` look at in every node, as if the image had no borders."""
        return self._walk_back(wanted, self.sizes(size), clip=False)

    def _walk_back(self, wanted: Interval, sizes: dict[str, int], *, clip: bool) -> dict[str, Interval]:
        looked = {self.output: wanted.clipped(sizes[self.output]) if clip else wanted}
        for node in reversed(self.nodes):
            span = looked.get(node.name)
            if span is None or not span.size:
                continue
            for name in node.inputs:
                read = node.rule.reads(span, sizes[name])
                if clip:
                    read = node.rule.inside(read, sizes[name])
                looked[name] = hull([looked.get(name, read), read])
        return {name: looked.get(name, Interval(0, 0)) for name in sizes}

    def receptive_fields(self, size: int) -> dict[str, int | None]:
        """Return the most input positions that one position of each node looks at, away from borders.

        What a layer reads everywhere is left out: the number is that of the local path, and None where there
        is none. ``size`` matters only to resizes with aligned corners.
        """
        sizes, steps = self.sizes(size), self.steps()
        # One period of each node suffices: later positions look at the same, `moves` input positions on.
        spans: dict[str, list[Interval] | None] = {self.INPUT: [Interval(0, 1)]}
        moves: dict[str, int] = {self.INPUT: 1}
        for node in self.nodes:
            step = steps[node.name]
            local = [name for name in node.inputs if spans[name] is not None]
            if step is None or not local:
                spans[node.name] = None
                continue
            rule = Pointwise() if isinstance(node.rule, Everywhere) else node.rule
            moves[node.name] = lcm(step.numerator, *(moves[name] for name in local))
            positions = range(int(moves[node.name] / step))
            spans[node.name] = [
                hull(
                    _seen(
                        spans[name] or [],
                        moves[name],
                        rule.reads(Interval(position, position + 1), sizes[name]),
                    )
                    for name in local
                )
                for position in positions
            ]
        return {name: max(s.size for s in seen) if seen else None for name, seen in spans.items()}


def _seen(spans: list[Interval], move: int, read: Interval) -> Interval:
    """Return the input that the positions ``read`` of a node look at, given one period of its spans."""
    first_period, first = divmod(read.start, len(spans))
    last_period, last = divmod(read.stop - 1, len(spans))
    return Interval(spans[first].start + first_period * move, spans[last].stop + last_period * move)
