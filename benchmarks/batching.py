"""Do requests to a server gain from being computed together? Images per second, by size and batch.

    python benchmarks/batching.py [--rounds 5]

writes benchmarks/results/batching.json. The networks are the model in the box and a U-Net of widths 32 to
512, in bfloat16, converted with a free batch. The images lie ready, all of one size, which is the best case
for batches: requests of different sizes cannot share one. Without batches the next request waits while one is
computed. Every batch size is taken in turns; medians of the rounds count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from machine import describe

import fullyconv as fc
from fullyconv.engines import DeployedGraph, converted, openvino_core

ROOT = Path(__file__).resolve().parents[1]
SIDES = (64, 128, 256, 512)
BATCHES = (1, 2, 4, 8)
IMAGES = 16
PIXELS = 16 * 256**2  # at least so many in every round


def runner(compiled: Any, image: np.ndarray[Any, Any], batch: int) -> Callable[[int], None]:
    """Return what computes so many images, ``batch`` at a time."""
    queue = openvino.AsyncInferQueue(compiled, 2)
    pixels = np.repeat(image[None], batch, 0)

    def run(count: int) -> None:
        for _ in range(count // batch):
            queue.start_async(pixels)
        queue.wait_all()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    networks = {
        "nuclei": fc.load("nuclei"),
        "U-Net 32–512": fc.UNet(2, 3, widths=(32, 64, 128, 256, 512)).eval(),
    }
    rows: list[dict[str, Any]] = []
    for name, model in networks.items():
        graph = converted(DeployedGraph.copied(model, "labels"), None, batch=True)
        config = {"INFERENCE_PRECISION_HINT": "bf16", "NUM_STREAMS": 1, "CPU_RUNTIME_CACHE_CAPACITY": "0"}
        compiled = openvino_core().compile_model(graph, "CPU", config)
        for side in SIDES:
            image = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
            ways = {batch: runner(compiled, image, batch) for batch in BATCHES}
            count = max(IMAGES, PIXELS // side**2)
            seconds: dict[int, list[float]] = {batch: [] for batch in BATCHES}
            for turn in range(1 + options.rounds):
                for batch, run in ways.items():
                    begin = time.perf_counter()
                    run(count)
                    if turn:
                        seconds[batch].append(time.perf_counter() - begin)
            rates = {batch: count / statistics.median(taken) for batch, taken in seconds.items()}
            rows.append({"network": name, "side": side, "images_per_second": rates})
            print(rows[-1], flush=True)
    record = {"machine": describe(), "rounds": options.rounds, "rows": rows}
    path = ROOT / "benchmarks" / "results" / "batching.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
