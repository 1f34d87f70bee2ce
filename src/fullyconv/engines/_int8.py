"""Quantisation after training: 8-bit whole numbers in place of float32, fitted to the user's images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ConfigError, MachineError

_FEWEST = 2  # windows: one to fit on, one to see how well that went


def require_calibration(windows: Sequence[NDArray[Any]]) -> None:
    """Raise unless int8 can be made with these windows."""
    if find_spec("nncf") is None:
        raise MachineError("no nncf", "what makes int8 of float32", "pip install 'fullyconv[int8]'")
    if len(windows) < _FEWEST:
        raise ConfigError(
            f"int8 with {len(windows)} calibration windows",
            f"at least {_FEWEST}, better some dozens, of images like those to come",
            "pass more of them as calibration=, or take --precision f32",
        )


def divide(windows: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Return windows to fit on, and every fourth but at least one to see how well that went."""
    held_out = [window for place, window in enumerate(windows) if place % 4 == 1]
    return [window for place, window in enumerate(windows) if place % 4 != 1], held_out


def quantised(graph: Any, windows: Sequence[NDArray[Any]]) -> Any:
    """Return an ``openvino.Model`` with its convolutions in int8.

    Parameters
    ----------
    graph
        An ``openvino.Model`` of one window, 1×H×W×C.
    windows
        H×W×C each; what its layers make of them sets the ranges of the whole numbers.
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    dataset = nncf.Dataset(windows, lambda window: np.ascontiguousarray(window)[None])
    with redirect_stdout(StringIO()):  # its progress bar, in the way of --json
        return nncf.quantize(graph, dataset, subset_size=len(windows))


def digest(windows: Sequence[NDArray[Any]]) -> str:
    """Return a key for what is fitted to these windows."""
    made = hashlib.blake2b(digest_size=20)
    for window in windows:
        made.update(f"{window.shape} {window.dtype}".encode())
        made.update(np.ascontiguousarray(window).data)
    return made.hexdigest()
