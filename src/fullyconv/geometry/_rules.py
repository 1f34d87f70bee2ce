"""What each kind of layer does to an axis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Literal

from fullyconv.geometry._positions import Affine, Interval, hull

_HALF = Fraction(1, 2)


class Rule(ABC):
    """What one layer does to an axis."""

    @property
    @abstractmethod
    def step(self) -> Fraction | None:
        """Input positions per output position; None where output positions are not places of the input."""

    @abstractmethod
    def output_size(self, size: int) -> int:
        """Return the size of the output for an input of ``size`` positions."""

    @abstractmethod
    def affine(self, size: int) -> Affine:
        """Return where output positions lie over an input of ``size`` positions."""

    @abstractmethod
    def reads(self, wanted: Interval, size: int) -> Interval:
        """Return the input that the outputs ``wanted`` look at, as if it went on beyond its borders."""

    def inside(self, looked: Interval, size: int) -> Interval:
        """Return what of ``looked`` is read from an input of ``size``, given what is done at borders."""
        return looked.clipped(size)


@dataclass(frozen=True)
class Window(Rule):
    """A convolution or a pooling: a kernel slid over the padded input.

    Negative padding crops. ``ceil`` is the ceil mode of poolings, in torch's reading: the last window may
    hang over the end but must start inside the input or the padding before it.
    """

    kernel: int
    stride: int = 1
    padding_before: int = 0
    padding_after: int = 0
    dilation: int = 1
    ceil: bool = False

    @property
    def extent(self) -> int:
        """The positions from the first tap of the kernel to the last, both counted."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def step(self) -> Fraction:
        """The stride."""
        return Fraction(self.stride)

    def output_size(self, size: int) -> int:
        """Count the windows."""
        room = size + self.padding_before + self.padding_after - self.extent
        if not self.ceil:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        hangs_outside = (count - 1) * self.stride >= size + self.padding_before
        return count - 1 if hangs_outside else count

    def affine(self, size: int) -> Affine:
        """Place each output over the middle of its window."""
        return Affine(self.step, Fraction(self.extent - 1, 2) - self.padding_before)

    def reads(self, wanted: Interval, size: int) -> Interval:
        """Return the span of the windows."""
        first = wanted.start * self.stride - self.padding_before
        last = (wanted.stop - 1) * self.stride - self.padding_before
        return Interval(first, last + self.extent)


@dataclass(frozen=True)
class Transposed(Rule):
    """A transposed convolution, or the unpooling that undoes a `Window` of the same numbers.

    Output padding of torch is less ``padding_after``.
    """

    kernel: int
    stride: int = 1
    padding_before: int = 0
    padding_after: int = 0
    dilation: int = 1

    @property
    def step(self) -> Fraction:
        """One over the stride."""
        return Fraction(1, self.stride)

    def output_size(self, size: int) -> int:
        """Return the span that the spread kernels cover, less the padding."""
        covered = (size - 1) * self.stride + self.dilation * (self.kernel - 1) + 1
        return covered - self.padding_before - self.padding_after

    def affine(self, size: int) -> Affine:
        """Invert the map of the `Window` it transposes."""
        return Affine(
            Fraction(self.stride),
            Fraction(self.dilation * (self.kernel - 1), 2) - self.padding_before,
        ).inverse()

    def reads(self, wanted: Interval, size: int) -> Interval:
        """Return the inputs whose spread kernels touch ``wanted``."""
        reach = self.dilation * (self.kernel - 1)
        first = -((reach - self.padding_before - wanted.start) // self.stride)
        last = (wanted.stop - 1 + self.padding_before) // self.stride
        # A kernel shorter than the stride leaves outputs that read nothing; a neighbour keeps them ordered.
        return Interval(min(first, last), max(first, last) + 1)


@dataclass(frozen=True)
class Interpolation(Rule):
    """A resize by ``factor``, with torch's meaning of the kinds and of ``align_corners``.

    Nearest by a whole factor is also what a pixel shuffle reads.
    """

    kind: Literal["nearest", "nearest-exact", "bilinear", "bicubic"]
    factor: Fraction
    align_corners: bool = False

    @property
    def step(self) -> Fraction:
        """One over the factor."""
        return 1 / self.factor

    def output_size(self, size: int) -> int:
        """Return the scaled size, rounded down."""
        return floor(size * self.factor)

    def affine(self, size: int) -> Affine:
        """Place each output over the mean of what it would read were the input a ramp."""
        if self.align_corners:
            outputs = self.output_size(size)
            return Affine(Fraction(size - 1, outputs - 1) if outputs > 1 else Fraction(0))
        if self.kind in ("bilinear", "bicubic"):
            return Affine(self.step, (self.step - 1) / 2)
        # Rounding down loses the mean of the fractions that occur: multiples of 1/q, or odd ones of 1/2q.
        start = self.step / 2 if self.kind == "nearest-exact" else Fraction(0)
        denominator = self.step.denominator
        halves = start and self.step.numerator % 2
        lost = _HALF if halves else Fraction(denominator - 1, 2 * denominator)
        return Affine(self.step, start - lost)

    def reads(self, wanted: Interval, size: int) -> Interval:
        """Return the taps: one for nearest, two for bilinear, four for bicubic."""
        first, last = self._source(wanted.start, size), self._source(wanted.stop - 1, size)
        if self.kind == "bilinear":
            return Interval(floor(first), ceil(last) + 1)
        if self.kind == "bicubic":
            return Interval(floor(first) - 1, ceil(last) + 2)
        return Interval(floor(first), floor(last) + 1)

    def _source(self, output: int, size: int) -> Fraction:
        if self.kind == "nearest":
            return output * self.step
        if self.kind == "nearest-exact":
            return (output + _HALF) * self.step
        return self.affine(size)(output)


@dataclass(frozen=True)
class Pad(Rule):
    """Positions added at both ends; negative numbers crop."""

    before: int
    after: int
    mode: Literal["constant", "reflect", "replicate"] = "constant"

    @property
    def step(self) -> Fraction:
        """One."""
        return Fraction(1)

    def output_size(self, size: int) -> int:
        """Return the size with both ends added."""
        return size + self.before + self.after

    def affine(self, size: int) -> Affine:
        """Shift by what is added before."""
        return Affine(offset=Fraction(-self.before))

    def reads(self, wanted: Interval, size: int) -> Interval:
        """Shift by what is added before."""
        return wanted.shifted(-self.before)

    def inside(self, looked: Interval, size: int) -> Interval:
        """Fold what lies beyond a border back, as the mode says."""
        if self.mode == "constant":
            return looked.clipped(size)
        kept = looked.clipped(size)
        before = Interval(looked.start, min(looked.stop, 0))
        after = Interval(max(looked.start, size), looked.stop)
        if self.mode == "replicate":
            mirrored = [Interval(0, 1)] * bool(before.size) + [Interval(size - 1, size)] * bool(after.size)
        else:
            mirrored = [
                Interval(1 - before.stop, 1 - before.start),
                Interval(2 * size - 1 - after.stop, 2 * size - 1 - after.start),
            ]
        return hull([kept, *mirrored]).clipped(size)


@dataclass(frozen=True)
class Pointwise(Rule):
    """Each position for itself: activations, and sums and concatenations of branches of one size.

    A branch of one position is spread over all.
    """

    @property
    def step(self) -> Fraction:
        """One."""
        return Fraction(1)

    def output_size(self, size: int) -> int:
        """Keep the size."""
        return size

    def affine(self, size: int) -> Affine:
        """Keep the place."""
        return Affine()

    def reads(self, wanted: Interval, size: int) -> Interval:
        """Read what is wanted."""
        return wanted

    def inside(self, looked: Interval, size: int) -> Interval:
        """Read the only position of a spread branch."""
        return Interval(0, 1) if size == 1 and looked.size else looked.clipped(size)


@dataclass(frozen=True)
class Everywhere(Rule):
    """Every output depends on every input: global pooling, attention, statistics over the image.

    With ``outputs`` the output has that size and its positions are no places of the input; without, the layer
    keeps size and place, as instance normalisation does.
    """

    outputs: int | None = None

    @property
    def step(self) -> Fraction | None:
        """One, or None where the output has a size of its own."""
        return Fraction(1) if self.outputs is None else None

    def output_size(self, size: int) -> int:
        """Return the size of its own, or keep the size."""
        return size if self.outputs is None else self.outputs

    def affine(self, size: int) -> Affine:
        """Stretch the outputs over the input."""
        stride = Fraction(size, self.output_size(size))
        return Affine(stride, (stride - 1) / 2)

    def reads(self, wanted: Interval, size: int) -> Interval:
        """Read everything."""
        return Interval(0, size)
