"""One rule per operation: how the head of a classifier becomes dense.

Each rule takes the lifting, the classifier's node, and its first operand in dense form, and returns the
result in dense form. ``RULES`` at the end is the whole list; a new operation is one function and one line.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fullyconv.surgery.lifting import Rule
from fullyconv.surgery.rules._channels import (
    at_each_position,
    batch_norm_1d,
    last_axis,
    linear,
    linear_function,
    softmax,
)
from fullyconv.surgery.rules._vectors import (
    combine,
    concatenate,
    per_channel,
    pointwise,
    regroup,
    reorder,
    scores,
    select,
)
from fullyconv.surgery.rules._windows import adaptive_pool, convolution, fixed_pool, reduce

__all__ = ["RULES", "at_each_position", "combine", "pointwise"]

# fmt: off
_POINTWISE_LAYERS = (
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.ReLU, nn.ReLU6,
    nn.LeakyReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus,
    nn.Softsign, nn.Softshrink, nn.Tanhshrink, nn.Threshold,
)
_POINTWISE_FUNCTIONS: tuple[Callable[..., Any] | str, ...] = (
    F.dropout, F.dropout2d, F.alpha_dropout, F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu,
    F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh, F.sigmoid, F.logsigmoid, F.tanh,
    F.softplus, torch.relu, torch.sigmoid, torch.tanh, torch.exp, torch.log, torch.rsqrt,
    torch.reciprocal, torch.abs, torch.sqrt, torch.square, torch.clamp, torch.clone, torch.dropout,
    operator.neg, operator.pos, operator.pow, torch.pow, "relu", "relu_", "log", "rsqrt", "reciprocal",
    "sigmoid", "tanh", "exp", "abs", "sqrt", "square", "clamp", "pow", "contiguous", "clone", "detach",
    "float", "double", "half", "bfloat16", "to", "type", "type_as",
)
_ARITHMETIC: tuple[Callable[..., Any] | str, ...] = (
    operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd, operator.isub,
    operator.imul, torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum, "add",
    "add_", "sub", "sub_", "mul", "mul_", "div", "div_",
)
_SHAPES = (
    nn.Flatten, torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, "flatten", "view",
    "reshape", "squeeze", "unsqueeze",
)
# fmt: on

RULES: dict[Any, Rule] = {
    **dict.fromkeys(_POINTWISE_LAYERS, pointwise),
    **dict.fromkeys(_POINTWISE_FUNCTIONS, pointwise),
    **dict.fromkeys(_ARITHMETIC, combine),
    **dict.fromkeys((torch.cat, torch.concat), concatenate),
    **dict.fromkeys(_SHAPES, regroup),
    operator.getitem: select,
    **dict.fromkeys((torch.permute, torch.transpose, "permute", "transpose"), reorder),
    nn.Linear: linear,
    F.linear: linear_function,
    nn.Conv2d: convolution,
    **dict.fromkeys((nn.AvgPool2d, nn.MaxPool2d, F.avg_pool2d, F.max_pool2d), fixed_pool),
    **dict.fromkeys((nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d), adaptive_pool),
    **dict.fromkeys((nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d), adaptive_pool),
    **dict.fromkeys((torch.mean, torch.amax, torch.sum, "mean", "amax", "sum"), reduce),
    **dict.fromkeys((nn.BatchNorm2d, F.batch_norm), per_channel),
    nn.BatchNorm1d: batch_norm_1d,
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm, F.layer_norm, F.rms_norm), last_axis),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax, torch.softmax, torch.log_softmax), softmax),
    **dict.fromkeys((F.softmax, F.log_softmax, F.normalize, "softmax", "log_softmax"), softmax),
    "output": scores,
}
