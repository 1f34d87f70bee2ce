"""Which probabilities are kept, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ShareType = Literal["float16", "uint8"]


@dataclass(frozen=True)
class Shares:
    """Which probabilities to keep.

    Parameters
    ----------
    classes
        Indices of classes, in the order wanted.
    dtype
        ``"float16"``: 0 to 1. ``"uint8"``: 0 to 255, where 255 stands for 1.
    """

    classes: tuple[int, ...]
    dtype: ShareType = "float16"

    def kept(self, probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """Return what to keep, h×w×k, of h×w×K float32 probabilities from 0 to 1."""
        chosen = probabilities[..., list(self.classes)]
        return np.rint(chosen * 255).astype(np.uint8) if self.dtype == "uint8" else chosen.astype(np.float16)
