"""What a result was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fullyconv.hardware import cpu_flags


def describe() -> dict[str, Any]:
    """Return processor, its features that matter, threads, and the versions that matter."""
    features = [name for name in ("avx512f", "avx512_bf16", "amx_bf16") if name in cpu_flags()]
    return {
        "processor": _processor(),
        "features": features,
        "cores": len(os.sched_getaffinity(0)),
        "threads": int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))),
        "python": platform.python_version(),
        **{name: version(name) for name in ("fullyconv", "torch")},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
