"""What this machine offers: versions, processor, memory, disk, GPU, and optional parts that are missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fullyconv.hardware import cpu_flags

_GIB = 2**30

# What matters for speed here: how a reader knows it, how Linux and macOS spell it.
_FEATURES = {
    "AVX2": ("avx2", "hw.optional.avx2_0"),
    "AVX-512": ("avx512f", "hw.optional.avx512f"),
    "AVX512-BF16": ("avx512_bf16", "hw.optional.avx512bf16"),
    "AVX512-VNNI": ("avx512_vnni", "hw.optional.avx512vnni"),
    "AMX-BF16": ("amx_bf16", ""),
    "AMX-INT8": ("amx_int8", ""),
    "NEON": ("asimd", "hw.optional.neon"),
    "BF16 (Arm)": ("bf16", "hw.optional.arm.FEAT_BF16"),
}


@dataclass(frozen=True)
class Processor:
    """The processor this process may use.

    Attributes
    ----------
    model
        As the maker names it.
    features
        Instruction sets that speed up networks here.
    cores
        Logical cores of the machine.
    usable
        Cores this process may use, by affinity and container limit; a limit may be a fraction.
    """

    model: str
    features: tuple[str, ...]
    cores: int
    usable: float


@dataclass(frozen=True)
class Capacity:
    """Bytes in all and bytes free; None where the system does not say."""

    total: int | None
    free: int | None


@dataclass(frozen=True)
class MissingPart:
    """An optional part: what it is for, and the command that adds it."""

    name: str
    purpose: str
    command: str


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found; ``str()`` of it is the printed page.

    Attributes
    ----------
    python, system
        Version of Python; name, release and machine of the operating system.
    versions
        Version of fullyconv and of each thing it needs; None where it is missing.
    processor
        The processor.
    memory
        Of the machine or, where one is set, the container's limit.
    disk
        Of the current folder and of the folder for temporary files, by path.
    gpus
        One line each.
    missing
        Optional parts that are not installed.
    """

    python: str
    system: str
    versions: dict[str, str | None]
    processor: Processor
    memory: Capacity
    disk: dict[str, Capacity]
    gpus: tuple[str, ...]
    missing: tuple[MissingPart, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dictionaries, lists, numbers and text: ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        processor = self.processor
        names = ", ".join(f"{name} {version or 'MISSING'}" for name, version in self.versions.items())
        rows = [
            ("python", f"{self.python} on {self.system}"),
            ("versions", names),
            ("processor", f"{processor.model}, {processor.usable:g} of {processor.cores} cores usable"),
            ("features", ", ".join(processor.features) or "none known"),
            ("memory", _show(self.memory)),
            *(("disk", f"{_show(capacity)} at {path}") for path, capacity in self.disk.items()),
            ("gpu", "; ".join(self.gpus) or "none"),
            *(
                (f"missing {part.name}", f"{part.purpose}; to add it: {part.command}")
                for part in self.missing
            ),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def diagnose() -> Diagnosis:
    """Look at this machine without changing anything on it.

    Returns
    -------
    Diagnosis
    """
    return Diagnosis(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions=_versions(),
        processor=_processor(),
        memory=_memory(),
        disk={str(path): _disk(path) for path in (Path.cwd(), Path(tempfile.gettempdir()))},
        gpus=_gpus(),
        missing=_missing(),
    )


def _versions() -> dict[str, str | None]:
    names = ["fullyconv", *(_project_name(line) for line in _requirements() if "extra ==" not in line)]
    return {name: _version(name) for name in names}


def _requirements() -> list[str]:
    try:
        return metadata.requires("fullyconv") or []
    except metadata.PackageNotFoundError:
        return []


def _project_name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> Processor:
    cores = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else cores
    limit = _cgroup_cores()
    if platform.system() == "Darwin":
        model = _sysctl("machdep.cpu.brand_string")
        features = tuple(name for name, (_, key) in _FEATURES.items() if key and _sysctl(key) == "1")
    else:
        model = _cpu_model()
        features = tuple(name for name, (flag, _) in _FEATURES.items() if flag in cpu_flags())
    return Processor(model or platform.machine(), features, cores, min(allowed, limit or allowed))


def _cpu_model() -> str:
    text = _read(Path("/proc/cpuinfo"))
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor()


def _sysctl(key: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _cgroup_folders() -> list[Path]:
    """Folders of this process's control group and its parents, nearest first; a limit may stand in any."""
    root = Path("/sys/fs/cgroup")
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            own = root / line[3:].lstrip("/")
            return [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return [root]


def _cgroup_cores() -> float | None:
    limits = []
    for folder in _cgroup_folders():
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _memory() -> Capacity:
    if platform.system() == "Darwin":
        return Capacity(_number(r"(\d+)", _sysctl("hw.memsize")), None)
    machine = _read(Path("/proc/meminfo"))
    total, free = _number(r"MemTotal: +(\d+) kB", machine), _number(r"MemAvailable: +(\d+) kB", machine)
    if total is None or free is None:
        return Capacity(None, None)
    total, free = total * 1024, free * 1024
    for folder in _cgroup_folders():
        limit = _number(r"(\d+)", _read(folder / "memory.max"))
        used = _number(r"(\d+)", _read(folder / "memory.current"))
        if limit is not None and used is not None:
            # Pages of files that can be dropped at once count as used; they are free to a newcomer.
            droppable = _number(r"inactive_file (\d+)", _read(folder / "memory.stat")) or 0
            total, free = min(total, limit), min(free, max(limit - used + droppable, 0))
    return Capacity(total, free)


def _number(pattern: str, text: str) -> int | None:
    """Return the number on the line of ``text`` that is ``pattern``."""
    found = re.search(f"^{pattern}$", text, re.MULTILINE)
    return int(found[1]) if found else None


def _disk(path: Path) -> Capacity:
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return Capacity(None, None)
    return Capacity(usage.total, usage.free)


def _gpus() -> tuple[str, ...]:
    if find_spec("torch") is None:
        return ()
    import torch  # takes seconds, and only here is it needed

    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    found = [f"{device.name}, {device.total_memory / _GIB:.0f} GiB" for device in devices]
    if torch.backends.mps.is_available():
        found.append("Apple GPU (mps)")
    return tuple(found)


def _missing() -> tuple[MissingPart, ...]:
    return tuple(
        MissingPart(name, purpose, f"pip install 'fullyconv[{name}]'")
        for name, (modules, purpose) in OPTIONAL_PARTS.items()
        if any(find_spec(module) is None for module in modules)
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _show(capacity: Capacity) -> str:
    parts = [
        f"{size / _GIB:.1f} GiB {name}"
        for size, name in ((capacity.free, "free"), (capacity.total, "in all"))
        if size is not None
    ]
    return " of ".join(parts) or "unknown"


# Each extra of the package: the modules it brings, and what for.
OPTIONAL_PARTS: dict[str, tuple[tuple[str, ...], str]] = {
    "demo": (("sklearn", "skimage"), "the demonstration on handwritten digits"),
    "plot": (("matplotlib",), "figures"),
    "geo": (("rasterio",), "GeoTIFF with its place on the ground"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "ONNX Runtime"),
    "executorch": (("executorch",), "networks for phones and small devices"),
    "int8": (("nncf",), "int8 arithmetic"),
    "cluster": (("dask", "distributed"), "prediction on many machines"),
    "serve": (("fastapi", "uvicorn", "python_multipart", "prometheus_client"), "models over HTTP"),
    "track": (("tensorboard",), "TensorBoard"),
    "parquet": (("pyarrow",), "datasets in parquet files"),
}
