"""The one place where H×W×C arrays and C×H×W tensors become each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """Turn an H×W×C array of any real dtype into a C×H×W float32 tensor with the same values, unscaled.

    float32 holds every 8 and 16-bit number; larger whole numbers round to 24 significant bits.
    """
    import torch  # here, because reading files must not wait for torch

    # Copied always: a flipped axis of length 1 counts as contiguous, but torch refuses its stride.
    return torch.from_numpy(np.array(array.transpose(2, 0, 1), dtype=np.float32, order="C"))


def from_tensor(tensor: torch.Tensor) -> NDArray[Any]:
    """Turn a C×H×W tensor on any device into an H×W×C array with the same values (bfloat16 as float32)."""
    tensor = tensor.detach().cpu()
    if tensor.dtype.is_floating_point and tensor.element_size() < 4:
        tensor = tensor.float()
    return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
