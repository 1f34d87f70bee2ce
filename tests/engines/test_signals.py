"""What engines leave behind in their thread: the next signal, such as of a child, must not find it gone."""

import subprocess
import sys

import pytest

PROGRAM = """
import faulthandler, gc, os, signal, sys
import numpy as np
import fullyconv as fc
from fullyconv.engines import compile_model

def main(precisions):
    faulthandler.enable()  # gives the thread a stack for signals
    signal.signal(signal.SIGCHLD, lambda *_: print("handled"))
    windows = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8) for seed in range(4)]
    model = fc.UNet(2, 3, widths=(4, 8))
    runners = [
        compile_model(model, engine="openvino", precision=each, size=(64, 64), calibration=windows)
        for each in precisions
    ]
    for runner in runners:  # the first first: not in the order in which stacks are put back
        runner.close()
        gc.collect()
    os.kill(os.getpid(), signal.SIGCHLD)

main(sys.argv[1:])
"""


@pytest.mark.parametrize("precisions", [("f32", "f32"), ("f32", "int8")], ids="+".join)
def test_signals_are_handled_after_engines_have_ended(precisions, tmp_path, monkeypatch) -> None:
    if "int8" in precisions:
        pytest.importorskip("nncf", reason="an extra: int8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *precisions], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "handled"
