"""Intervals of positions along an axis, and affine maps between axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from fullyconv.errors import GeometryError


class Interval(NamedTuple):
    """The positions ``start`` to ``stop - 1`` of an axis; empty unless ``start < stop``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many positions it holds."""
        return max(self.stop - self.start, 0)

    def clipped(self, size: int) -> Interval:
        """Return the part inside an axis of ``size`` positions."""
        return Interval(max(self.start, 0), min(self.stop, size))

    def shifted(self, by: int) -> Interval:
        """Return it moved by ``by`` positions."""
        return Interval(self.start + by, self.stop + by)


def hull(intervals: Iterable[Interval]) -> Interval:
    """Return the smallest interval that holds all of ``intervals``; empty ones do not count."""
    filled = [interval for interval in intervals if interval.size]
    if not filled:
        return Interval(0, 0)
    return Interval(min(i.start for i in filled), max(i.stop for i in filled))


@dataclass(frozen=True)
class Affine:
    """Position ``o`` of an output lies over position ``stride * o + offset`` of an input.

    Positions are pixel centres: 0 is the middle of the first pixel.
    """

    stride: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    def __call__(self, position: Fraction | int) -> Fraction:
        return self.stride * position + self.offset

    def after(self, outer: Affine) -> Affine:
        """Compose: ``self.after(outer)(o) == self(outer(o))``, ``outer`` being the later layer."""
        return Affine(self.stride * outer.stride, self(outer.offset))

    def inverse(self) -> Affine:
        """Return the map back from input positions to output positions."""
        return Affine(1 / self.stride, -self.offset / self.stride)


def crop_offset(branch: Affine, reference: Affine) -> int:
    """Count the leading positions to drop from ``branch`` so that it lines up with ``reference``.

    Both maps lead to the same input; this is the ``offset`` of Caffe's Crop layer.

    Raises
    ------
    GeometryError
        Where the strides differ, or the crop is fractional or negative.
    """
    if branch.stride != reference.stride:
        raise GeometryError(
            f"branches of stride {branch.stride} and {reference.stride}",
            "equal strides",
            "upsample the coarser branch to the finer one's stride first",
        )
    crop = (reference.offset - branch.offset) / branch.stride
    if crop.denominator != 1 or crop < 0:
        raise GeometryError(
            f"a crop of {crop} positions",
            "a whole number, zero or more",
            "change the first layer's padding, or the upsampling's kernel: kernel minus factor must be even",
        )
    return int(crop)
