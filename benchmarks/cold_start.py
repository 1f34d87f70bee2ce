"""From the start of a process to the mask of one image of 512×512: how long, and what takes it.

    python benchmarks/cold_start.py [--runs 5]

writes benchmarks/results/cold-start.json. `fullyconv predict` runs in processes of its own: once with an
empty cache of converted networks, then with a filled one. The networks are the model in the box and a U-Net
of widths 32 to 512, whose random weights bfloat16 does not fit, so that float32 is taken. The steps are those
of the command with the latter, one after another in another process. Wall-clock time grows with whatever else
runs; processor time hardly does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from machine import describe

import fullyconv as fc
from fullyconv.images import write_image

ROOT = Path(__file__).resolve().parents[1]
SIDE = 512

STEPS = """
import json, resource, sys, time
from pathlib import Path
steps = {}
def processor():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
def lap(name):
    global begin, used
    steps[name] = {"seconds": time.time() - begin, "processor_seconds": processor() - used}
    begin, used = time.time(), processor()
begin, used = float(sys.argv[4]), 0.0
lap("start Python")
import fullyconv.cli, gc
gc.set_threshold(50_000)  # as the command line does
lap("import the command line")
import torch; lap("import torch")
import openvino; lap("import OpenVINO")
import fullyconv.inference; lap("import the rest")
from fullyconv.images import open_image
from fullyconv.inference import Outputs, Predictor
predictor = Predictor(sys.argv[1]); lap("read the model file")
source = open_image(sys.argv[2])
predictor.settle(source, "labels"); lap("choose the precision")
prediction = predictor.predict(source); lap("compile, read and predict")
Outputs().write(Path(sys.argv[3]), source, prediction); lap("write mask and overlay")
print(json.dumps(steps))
"""


def run(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, image, out = folder / "model.safetensors", folder / "image.png", folder / "out"
        fc.save(fc.UNet(2, 3, widths=(32, 64, 128, 256, 512)), model)
        write_image(image, np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}

        def predict(network: str) -> dict[str, float]:
            command = [sys.executable, "-m", "fullyconv", "predict", "--model", network, str(image)]
            return run([*command, "--out", str(out), "--overwrite"], environment)

        first = predict(str(model))
        predict("nuclei")  # so that it is converted, too
        networks = {"again": str(model), "nuclei": "nuclei"}
        taken = {
            name: medians([predict(network) for _ in range(options.runs)])
            for name, network in networks.items()
        }
        steps: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.runs):
            arguments = [str(model), str(image), str(out), str(time.time())]
            done = subprocess.run(
                [sys.executable, "-c", STEPS, *arguments],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            for step, lap in json.loads(done.stdout).items():
                steps.setdefault(step, []).append(lap)
    record: dict[str, Any] = {
        "machine": describe(),
        "runs": options.runs,
        "load": os.getloadavg()[0],
        "first": first,
        **taken,
        "steps": {step: medians(laps) for step, laps in steps.items()},
    }
    path = ROOT / "benchmarks" / "results" / "cold-start.json"
    path.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
