"""What can go wrong in a step: too little memory, and numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullyconv.errors import ConfigError
from fullyconv.images import atomic_file

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_UNEVEN = 1e4  # a ratio of class weights beyond which they are a likely cause


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator's allocator, or the processor's, gave up."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    )


def not_finite(
    batch: Sequence[Tensor],
    names: Sequence[str],
    *,
    loss: float,
    norm: float,
    rate: float,
    bf16: bool,
    float32_loss: Callable[[], float],
    class_weights: Sequence[float] | None,
    step: int,
    file: Path,
) -> ConfigError:
    """Save the batch of a step whose loss or gradient is no finite number, and return what to say.

    Parameters
    ----------
    batch
        Crops, labels and, where they are weighed, weights.
    names
        The sample of each crop.
    loss, norm
        The step's loss, and the norm of its gradient.
    rate
        The learning rate.
    bf16
        Whether the step computed in bfloat16.
    float32_loss
        Computes the loss of the batch in float32.
    class_weights
        Of the loss, if any.
    step
        The step's number, from 1.
    file
        Where the batch goes, an ``npz``.
    """
    arrays: dict[str, Any] = dict(
        zip(("images", "labels", "weights"), (each.cpu().numpy() for each in batch), strict=False)
    )
    with atomic_file(file, overwrite=True) as temporary, temporary.open("wb") as opened:
        np.savez(opened, allow_pickle=False, names=np.array(names), step=step, loss=loss, **arrays)
    bad = [
        name
        for name, *parts in zip(names, *batch, strict=True)
        if not all(torch.isfinite(part).all() for part in parts)
    ]
    if bad:
        cause = f"pixels of {', '.join(sorted(set(bad)))} are no finite numbers"
        fix = "repair or remove these images"
    elif class_weights and max(class_weights) > _UNEVEN * min(class_weights):
        cause = f"class weights from {min(class_weights):.3g} to {max(class_weights):.3g}"
        fix = "leave out --class-weights, or use median"
    elif bf16 and math.isfinite(float32_loss()):
        cause, fix = "bfloat16 overflows here, float32 does not", "--precision f32"
    else:
        cause = f"the learning rate, {rate:.3g} at this step"
        fix = "a tenth of the --learning-rate, or a smaller --clip"
    gradient = f" with a gradient of {norm:g}" if math.isfinite(loss) else ""
    return ConfigError(
        f"a loss of {loss:g}{gradient} at step {step}; the likely cause: {cause}",
        "a finite number",
        f"{fix}; the best network so far, if there is one, is kept, and the batch is in {file}",
    )
