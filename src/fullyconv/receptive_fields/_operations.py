"""Every torch operation that is understood: one rule for each, in one table."""

from __future__ import annotations

from torch import nn

from fullyconv.receptive_fields._layouts import (
    along,
    batch_norm,
    concatenation,
    getitem,
    instance_norm,
    layer_norm,
    linear,
    normalize,
    permute,
    reduction,
    reshape,
    split,
    stack,
    transpose,
    unbind,
)
from fullyconv.receptive_fields._steps import OperationRule, broadcasting, mixes, pointwise
from fullyconv.receptive_fields._windows import (
    adaptive_pool,
    avg_pool,
    content_aware_module,
    convolution,
    interpolate,
    lp_pool,
    max_pool,
    max_unpool,
    pad,
    pixel_shuffle,
    pixel_unshuffle,
    transposed_convolution,
    unfold,
    unpooling_module,
)
from fullyconv.upsampling import ContentAware, MaxUnpooling

# Arithmetic that spreads tensors over each other: with one that varies over positions, so does the result.
_BROADCASTING = """
    add sub rsub mul div true_divide pow addcmul addcdiv lerp where masked_fill fmod remainder copy_
    __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__
    __truediv__ __rtruediv__ __itruediv__ __pow__ __and__ __or__ logical_and logical_or
    maximum minimum clamp clip clamp_min clamp_max
    __lt__ __le__ __gt__ __ge__ __eq__ __ne__ lt le gt ge eq ne
""".split()  # noqa: SIM905 (a list of one name a line is longer, not clearer)

_POINTWISE = """
    neg __neg__ sqrt rsqrt square exp log abs sin cos erf log1p expm1 reciprocal floor ceil round sign
    isfinite isnan nan_to_num logical_not __invert__
    relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish sigmoid logsigmoid hardsigmoid hardswish
    hardtanh hardshrink softplus softsign softshrink tanh tanhshrink threshold
    local_response_norm channel_shuffle
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout
    clone contiguous detach to type type_as float half bfloat16 double long int bool cpu cuda data
    requires_grad_ expand expand_as
""".split()  # noqa: SIM905 (a list of one name a line is longer, not clearer)

# What makes tensors that are the same at every position, from nothing or from the shape of another.
UNIFORM = frozenset(
    f"{prefix}{value}{suffix}"
    for value in ("zeros", "ones", "full", "empty")
    for prefix, suffix in (("", ""), ("new_", ""), ("", "_like"))
)

# What takes no more than a shape, a type or a device from tensors after the first.
LIKE = frozenset({"to", "type_as", "view_as", "reshape_as", "expand_as"})

# Modules whose operations tell less than what they are for.
MODULES: dict[type[nn.Module], OperationRule] = {
    ContentAware: content_aware_module,
    MaxUnpooling: unpooling_module,
}

OPERATIONS: dict[str, OperationRule] = {
    **dict.fromkeys(_BROADCASTING, broadcasting),
    **dict.fromkeys(_POINTWISE, pointwise),
    "batch_norm": batch_norm,
    "conv2d": convolution,
    "conv_transpose2d": transposed_convolution,
    "max_pool2d": max_pool,
    "max_pool2d_with_indices": max_pool,
    "avg_pool2d": avg_pool,
    "lp_pool2d": lp_pool,
    "max_unpool2d": max_unpool,
    "adaptive_avg_pool2d": adaptive_pool,
    "adaptive_max_pool2d": adaptive_pool,
    "adaptive_max_pool2d_with_indices": adaptive_pool,
    "interpolate": interpolate,
    "upsample": interpolate,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "unfold": unfold,
    "pad": pad,
    "__getitem__": getitem,
    **dict.fromkeys(
        ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as"), reshape
    ),
    "permute": permute,
    "transpose": transpose,
    "swapaxes": transpose,
    **dict.fromkeys(
        ("mean", "sum", "amax", "amin", "max", "min", "var", "std", "argmax", "logsumexp"), reduction
    ),
    "softmax": along,
    "log_softmax": along,
    "normalize": normalize,
    "chunk": split,
    "split": split,
    "tensor_split": split,
    "unbind": unbind,
    "cat": concatenation,
    "concat": concatenation,
    "stack": stack,
    "linear": linear,
    "layer_norm": layer_norm,
    "instance_norm": instance_norm,
    "group_norm": mixes,
}
