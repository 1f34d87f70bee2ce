"""Memory: what a network takes for a window, what there is, and how a size is written."""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fullyconv.errors import ConfigError
from fullyconv.models import SegmentationModel

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
}
_measured: WeakKeyDictionary[SegmentationModel, dict[tuple[int, int], int]] = WeakKeyDictionary()


def parse_bytes(text: str | int) -> int:
    """Return how many bytes "2GB", "1.5 GiB" or "900M" are; a number stays.

    Raises
    ------
    ConfigError
        It is no size above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?)b?\s*", str(text).lower())
    size = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if size < 1:
        raise ConfigError(
            f"{text!r} as a size of memory", "a size such as 2GB or 500MiB", "use --max-memory 2GB"
        )
    return size


def show_bytes(size: float) -> str:
    """Return a size as people write it: ``"1.5 GB"``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def resident() -> int:
    """Return the bytes of memory this process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def available(device: torch.device) -> int:
    """Return the bytes that can be had: of a GPU, or without swapping within this container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min(free, _container_limit() - resident())


@cache
def _container_limit() -> int:
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return int(Path(name).read_text())
        except (OSError, ValueError):
            continue
    return 2**62


def activation_bytes(model: SegmentationModel, size: tuple[int, int]) -> int:
    """Return the most bytes that the tensors of one forward pass hold at one time, in float32.

    The network runs on tensors that have shapes but no values.

    Parameters
    ----------
    model
        The network, in evaluation mode while it is measured.
    size
        (height, width) of the window.
    """
    known = _measured.setdefault(model, {})
    if size not in known:
        training, parameter = model.training, next(model.parameters())
        model.eval()
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), _Watching() as watching:
                model(torch.empty(1, model.channels, *size, device=parameter.device))
        finally:
            model.train(training)
        known[size] = watching.most
    return known[size]


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Adds up the bytes of the tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.most = self._now = 0
        self._users: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor)
        self.most = max(self.most, self._now)
        return result

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._users[key]:
            self._now += size
        self._users[key] += 1
        finalize(tensor, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            self._now -= size
