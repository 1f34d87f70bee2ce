"""What is promised within a second: wrong model files refused, and a convolution written as a matrix.

    python benchmarks/bounds.py [--runs 5]

writes benchmarks/results/bounds.json. Every run is the first of its kind in a process of its own. The files
name deep trunks and hold one tensor: one that no network has, or one that fits, so that all of the network's
layers must be compared. The libraries that have the trunks are imported before; what that takes is a row of
its own. Wall-clock time grows with whatever else runs; processor time less so.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from machine import describe

import fullyconv as fc

ROOT = Path(__file__).resolve().parents[1]
FIRST_LAYERS = {
    "torchvision:densenet161": ("features.conv0.weight", (96, 3, 7, 7)),
    "torchvision:efficientnet_b7": ("features.0.0.weight", (64, 3, 3, 3)),
    "torchvision:efficientnet_v2_l": ("features.0.0.weight", (32, 3, 3, 3)),
    "torchvision:convnext_large": ("features.0.0.weight", (192, 3, 4, 4)),
    "timm:resnet152": ("conv1.weight", (64, 3, 7, 7)),
}

IMPORTS = """
import json, time
import fullyconv.models
started, used = time.perf_counter(), time.process_time()
import timm, torchvision
print(json.dumps([time.perf_counter() - started, time.process_time() - used]))
"""

REFUSAL = """
import gc, json, sys, time
gc.set_threshold(50_000)  # as the command line does
import timm, torchvision
from fullyconv.errors import ModelFileError
from fullyconv.models import load
started, used = time.perf_counter(), time.process_time()
try:
    load(sys.argv[1])
except ModelFileError:
    print(json.dumps([time.perf_counter() - started, time.process_time() - used]))
"""

MATRIX = """
import json, time
from torch import nn
from fullyconv.surgery import conv_matrix
convolution = nn.Conv2d(64, 64, 3, padding=1)
started, used = time.perf_counter(), time.process_time()
conv_matrix(convolution, (32, 32))
print(json.dumps([time.perf_counter() - started, time.process_time() - used]))
"""


def named(network: str, tensor: str, shape: tuple[int, ...], header: dict[str, Any]) -> bytes:
    """Return a model file that names a network and holds one tensor of zeros."""
    size = 4
    for length in shape:
        size *= length
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}
    header = {**header, "architecture": {**header["architecture"], "backbone": network}}
    directory = {"__metadata__": {"fullyconv": json.dumps(header)}, f"backbone.trunk.{tensor}": entry}
    text = json.dumps(directory).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def measure(script: str, *arguments: str, runs: int) -> dict[str, float]:
    taken = []
    for _ in range(runs):
        command = [sys.executable, "-c", script, *arguments]
        taken.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    seconds, processor_seconds = (median(values) for values in zip(*taken, strict=True))
    return {"seconds": seconds, "processor_seconds": processor_seconds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rows = [{"what": "import torchvision and timm", **measure(IMPORTS, runs=options.runs)}]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        fc.save(fc.FCN("timm:resnet10t", 2), path)
        data = path.read_bytes()
        text = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["fullyconv"]
        for network, (tensor, shape) in FIRST_LAYERS.items():
            for holds, held in (("a stranger", ("x", (1,))), ("its first layer alone", (tensor, shape))):
                path.write_bytes(named(network, *held, json.loads(text)))
                taken = measure(REFUSAL, str(path), runs=options.runs)
                rows.append({"what": f"refuse a file that names {network} and holds {holds}", **taken})
    taken = measure(MATRIX, runs=options.runs)
    rows.append({"what": "`conv_matrix` of 3×3, 64 → 64 channels, on 32×32", **taken})
    record = {"machine": describe(), "runs": options.runs, "load": os.getloadavg()[0], "rows": rows}
    path = ROOT / "benchmarks" / "results" / "bounds.json"
    path.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
