"""Operations that move positions: convolutions, poolings, resizes, padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, cast

import torch

from fullyconv.geometry import Everywhere, Interpolation, Pad, Pointwise, Rule, Transposed, Window
from fullyconv.receptive_fields._steps import MAP_AXES, SAME, Rules, Seen, Step, mixes
from fullyconv.upsampling import ContentAware, MaxUnpooling


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = [int(v) for v in value]
    return (values[0], values[-1])


def _both(make: Callable[..., Rule], *pairs: Any) -> Rules:
    rows, columns = zip(*map(_pair, pairs), strict=True)
    return make(*rows), make(*columns)


def convolution(
    seen: Seen,
    x: Any,
    weight: torch.Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Step:
    if seen.axes != MAP_AXES:
        return mixes(seen)
    kernel = tuple(weight.shape[-2:])
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(_pair(dilation), kernel, strict=True)]
        before = [t // 2 for t in total]
        after = [t - b for t, b in zip(total, before, strict=True)]
    else:
        before = after = list(_pair(padding))
    return Step(_both(Window, kernel, stride, before, after, dilation))


def transposed_convolution(
    seen: Seen,
    x: Any,
    weight: torch.Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Step:
    if seen.axes != MAP_AXES:
        return mixes(seen)
    after = [p - extra for p, extra in zip(_pair(padding), _pair(output_padding), strict=True)]
    return Step(_both(Transposed, tuple(weight.shape[-2:]), stride, padding, after, dilation))


def _pooling(seen: Seen, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Step:
    if seen.axes != MAP_AXES:
        return mixes(seen)
    stride = kernel if stride is None or stride == [] else stride
    return Step(_both(Window, kernel, stride, padding, padding, dilation, int(ceil_mode)))


def max_pool(
    seen: Seen,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Step:
    return _pooling(seen, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool(
    seen: Seen,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Step:
    return _pooling(seen, kernel_size, stride, padding, 1, ceil_mode)


def lp_pool(
    seen: Seen, x: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Step:
    return _pooling(seen, kernel_size, stride, 0, 1, ceil_mode)


def max_unpool(
    seen: Seen,
    x: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Step:
    if seen.axes != MAP_AXES:
        return mixes(seen)
    stride = kernel_size if stride is None else stride
    spread = _both(Transposed, kernel_size, stride, padding)
    after = [
        rule.output_size(n) - made for rule, n, made in zip(spread, seen.sizes, seen.made[-2:], strict=True)
    ]
    return Step(_both(Transposed, kernel_size, stride, padding, after))


def unpooling_module(seen: Seen, module: MaxUnpooling) -> Step:
    rule = Transposed(module.factor, module.factor)
    return Step((rule, rule))


def content_aware_module(seen: Seen, module: ContentAware) -> Step:
    spread = module.reach * module.factor
    rule = Transposed(module.window * module.factor, module.factor, spread, spread)
    return Step((rule, rule))


def adaptive_pool(seen: Seen, *_: Any, **__: Any) -> Step:
    if seen.axes != MAP_AXES:
        return mixes(seen)
    keeps = seen.made[-2:] == seen.sizes
    return Step(SAME if keeps else (Everywhere(seen.made[-2]), Everywhere(seen.made[-1])))


def interpolate(
    seen: Seen,
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Step:
    made = seen.made[-2:]
    if seen.axes != MAP_AXES or mode == "area" or (antialias and made < seen.sizes):
        return adaptive_pool(seen)
    if scale_factor is None or recompute_scale_factor:
        factors = [Fraction(m, n) for m, n in zip(made, seen.sizes, strict=True)]
    else:
        scales = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor, scale_factor)
        factors = [Fraction(float(scale)).limit_denominator(1_000_000) for scale in scales]
    aligned = bool(align_corners)
    rules = tuple(Interpolation(cast(Any, mode), factor, aligned) for factor in factors)
    # Aligned corners stretch with the image: no part of it can be computed without knowing the whole size.
    return Step(cast(Rules, rules), context=aligned and made != seen.sizes)


def pixel_shuffle(seen: Seen, x: Any, upscale_factor: int) -> Step:
    if seen.axes != MAP_AXES:
        return mixes(seen)
    rule = Interpolation("nearest", Fraction(upscale_factor))
    return Step((rule, rule))


def pixel_unshuffle(seen: Seen, x: Any, downscale_factor: int) -> Step:
    if seen.axes != MAP_AXES:
        return mixes(seen)
    rule = Window(downscale_factor, downscale_factor)
    return Step((rule, rule))


def unfold(
    seen: Seen, x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Step:
    # The tensor method of the same name keeps the dimensions and adds one; torch.nn.functional's fuses them.
    if seen.axes != MAP_AXES or len(seen.made) != 3 or len(seen.shape) != 4:
        return mixes(seen)
    return Step(_both(Window, kernel_size, stride, padding, padding, dilation), (-1, -1))


def pad(seen: Seen, x: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Step:
    if seen.axes[0] == seen.axes[1]:
        return mixes(seen)
    amounts = list(pad) + [0] * (2 * len(seen.shape) - len(pad))
    kept = cast(Any, "constant" if mode == "circular" else mode)
    rules = tuple(Pad(amounts[-2 * axis - 2], amounts[-2 * axis - 1], kept) for axis in seen.axes)
    return Step(_without_nothing(cast(Rules, rules)), seen.axes, context=mode == "circular")


def _without_nothing(rules: Rules) -> Rules:
    rows, columns = (
        Pointwise() if isinstance(rule, Pad) and rule.before == rule.after == 0 else rule for rule in rules
    )
    return rows, columns
