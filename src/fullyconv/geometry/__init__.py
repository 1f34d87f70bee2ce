"""Where a pixel of a network's output looks in its input, along one axis, in exact arithmetic.

A layer is a *rule*: the output size it makes of an input size, the affine map that places its output
positions on its input's, and the interval of input that an interval of output reads. A network is a `Graph`
of rules. The two axes of an image are two graphs of the same shape; nothing here knows torch or floating
point.

The coordinate maps follow Caffe's ``coord_map`` (Long, Shelhamer, Darrell, arXiv 1605.06211) and the
arithmetic of Dumoulin and Visin (arXiv 1603.07285).
"""

from fullyconv.geometry._graph import Graph, Node
from fullyconv.geometry._positions import Affine, Interval, crop_offset, hull
from fullyconv.geometry._rules import (
    Everywhere,
    Interpolation,
    Pad,
    Pointwise,
    Rule,
    Transposed,
    Window,
)

__all__ = [
    "Affine",
    "Everywhere",
    "Graph",
    "Interpolation",
    "Interval",
    "Node",
    "Pad",
    "Pointwise",
    "Rule",
    "Transposed",
    "Window",
    "crop_offset",
    "hull",
]
