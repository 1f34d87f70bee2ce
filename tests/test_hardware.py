from pathlib import Path

import pytest

from fullyconv import hardware


@pytest.fixture(autouse=True)
def _forget():
    hardware.cpu_flags.cache_clear()
    yield
    hardware.cpu_flags.cache_clear()


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx2\n", False),
        ("processor : 0\n", False),
    ],
)
def test_native_bfloat16_is_read_from_the_flags(cpuinfo, expected, monkeypatch):
    monkeypatch.setattr(hardware.platform, "system", lambda: "Linux")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: cpuinfo)
    assert hardware.has_native_bf16() is expected


def test_elsewhere_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(hardware.platform, "system", lambda: "Windows")
    assert hardware.cpu_flags() == frozenset()
