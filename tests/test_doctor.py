"""What the doctor says about this machine, and about made-up ones."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from fullyconv import doctor
from fullyconv.doctor import Capacity, diagnose
from fullyconv.hardware import cpu_flags

PYPROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text("utf-8"))
GIB = 2**30


def test_it_says_the_versions_that_are_installed() -> None:
    diagnosis = diagnose()
    assert diagnosis.python == platform.python_version()
    needed = {re.split(r"[><=\[]", line)[0] for line in PYPROJECT["project"]["dependencies"]}
    assert set(diagnosis.versions) == needed | {"fullyconv"}
    for name, version in diagnosis.versions.items():
        assert version == metadata.version(name)


def test_its_numbers_are_possible() -> None:
    diagnosis = diagnose()
    assert 0 < diagnosis.processor.usable <= diagnosis.processor.cores == os.cpu_count()
    assert diagnosis.processor.model
    for capacity in (diagnosis.memory, *diagnosis.disk.values()):
        assert capacity.total is None or capacity.free is None or 0 <= capacity.free <= capacity.total
    assert str(Path.cwd()) in diagnosis.disk


def test_it_is_json_and_text() -> None:
    diagnosis = diagnose()
    assert json.loads(json.dumps(diagnosis.to_dict()))["processor"]["model"] == diagnosis.processor.model
    for word in ("python", "torch", "cores usable", "GiB", "gpu"):
        assert word in str(diagnosis)


def test_a_missing_dependency_and_part_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.find_spec
    monkeypatch.setattr(
        doctor, "find_spec", lambda name: None if name in ("sklearn", "torch") else real(name)
    )
    monkeypatch.setattr(doctor, "_requirements", lambda: ["no-such-project>=1", "ruff; extra == 'dev'"])
    diagnosis = diagnose()
    assert diagnosis.versions == {"fullyconv": metadata.version("fullyconv"), "no-such-project": None}
    assert [part.name for part in diagnosis.missing] == ["demo"]
    assert "no-such-project MISSING" in str(diagnosis)
    assert "pip install 'fullyconv[demo]'" in str(diagnosis)
    assert diagnosis.gpus == ()


def test_optional_parts_are_the_package_s_extras() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"].keys()
    assert doctor.OPTIONAL_PARTS.keys() == extras - {"bench", "dev", "docs"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own files")
def test_linux_features_are_what_the_kernel_says() -> None:
    features = diagnose().processor.features
    assert ("AVX2" in features) == ("avx2" in cpu_flags())
    assert ("AMX-BF16" in features) == ("amx_bf16" in cpu_flags())


class Files:
    """Stands in for the system's files."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def __call__(self, path: Path) -> str:
        return self.files.get(str(path), "")


MACHINE = {"/proc/meminfo": f"MemTotal:  {32 * 2**20} kB\nMemFree: 1 kB\nMemAvailable:   {20 * 2**20} kB\n"}
CONTAINER = {"/proc/self/cgroup": "0::/pod/job\n"}
CGROUP = "/sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MACHINE, Capacity(32 * GIB, 20 * GIB)),
        ({}, Capacity(None, None)),
        ({**MACHINE, f"{CGROUP}/memory.max": "max\n"}, Capacity(32 * GIB, 20 * GIB)),
        (
            {
                **MACHINE,
                f"{CGROUP}/memory.max": f"{8 * GIB}\n",
                f"{CGROUP}/memory.current": f"{7 * GIB}\n",
                f"{CGROUP}/memory.stat": f"active_file 5\ninactive_file {2 * GIB}\nfile 9\n",
            },
            Capacity(8 * GIB, 3 * GIB),
        ),
        (
            {
                **MACHINE,
                **CONTAINER,
                f"{CGROUP}/pod/memory.max": f"{4 * GIB}\n",
                f"{CGROUP}/pod/memory.current": f"{5 * GIB}\n",
            },
            Capacity(4 * GIB, 0),
        ),
    ],
    ids=["bare", "unknown", "no limit", "limit at the root", "limit of a parent, used up"],
)
def test_memory_heeds_container_limits(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: Capacity
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(doctor, "_read", Files(files))
    assert doctor._memory() == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({f"{CGROUP}/cpu.max": "max 100000\n"}, None),
        ({f"{CGROUP}/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                **CONTAINER,
                f"{CGROUP}/pod/job/cpu.max": "400000 100000\n",
                f"{CGROUP}/pod/cpu.max": "50000 100000\n",
            },
            0.5,
        ),
    ],
)
def test_cores_heed_container_limits(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: float | None
) -> None:
    monkeypatch.setattr(doctor, "_read", Files(files))
    assert doctor._cgroup_cores() == expected


def test_a_mac_is_asked_with_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "machdep.cpu.brand_string": "Apple M9",
        "hw.optional.neon": "1",
        "hw.optional.arm.FEAT_BF16": "1",
        "hw.optional.avx2_0": "0",
        "hw.memsize": str(16 * GIB),
    }

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, answers.get(command[-1], "") + "\n", "")

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(doctor.subprocess, "run", run)
    processor = doctor._processor()
    assert (processor.model, processor.features) == ("Apple M9", ("NEON", "BF16 (Arm)"))
    assert doctor._memory() == Capacity(16 * GIB, None)


def test_what_cannot_be_read_is_unknown_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(doctor.subprocess, "run", refuse)
    assert doctor._sysctl("hw.memsize") == ""
    monkeypatch.setattr(doctor.shutil, "disk_usage", refuse)
    assert doctor._disk(Path("/")) == Capacity(None, None)
    assert doctor._read(Path("/no/such/file")) == ""
    assert doctor._show(Capacity(None, None)) == "unknown"


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, fullyconv.doctor; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
