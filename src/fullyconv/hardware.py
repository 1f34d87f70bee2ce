"""What the processor can do, asked without loading anything heavy."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


@cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty where they cannot be read."""
    if platform.system() != "Linux":
        return frozenset()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def has_native_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AMX, AVX-512 BF16 or Arm BF16), not by emulation."""
    return bool(cpu_flags() & {"amx_bf16", "avx512_bf16", "bf16"})
