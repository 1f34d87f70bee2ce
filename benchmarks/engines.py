"""Pixel rates of the engines on tiles in memory, beside raw OpenVINO and eager torch.

    python benchmarks/engines.py [--tile 512 --tile 1024] [--rounds 5]

writes benchmarks/results/engines.json. Contenders run in turns, each a few tiles per round; medians count.
"raw openvino" is OpenVINO on its own: the network's scores for a float32 tile in its own layout, as many
requests as it asks for, nothing read and nothing copied. That is the limit for the engine of that precision.
"load" is how many processes wanted to run beside this one: two cores are quiet below about 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from machine import describe

from fullyconv.engines import Runner, compile_model
from fullyconv.models import FCN, Normalization, SegmentationModel, UNet

ROOT = Path(__file__).resolve().parents[1]
NORMALIZATION = Normalization(mean=(127.5,), std=(64.0,))
RUNNERS = [("openvino", "f32"), ("openvino", "bf16"), ("openvino", "int8"), ("onnx", "f32"), ("torch", "f32")]

NETWORKS: dict[str, Callable[[], SegmentationModel]] = {
    "unet": lambda: UNet(2, 3, widths=(32, 64, 128, 256, 512), normalization=NORMALIZATION),
    "fcn": lambda: FCN("resnet18", 2, 8, normalization=NORMALIZATION),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tile", type=int, action="append", help="side in pixels (512 and 1024)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    record: dict[str, Any] = {
        "machine": describe(),
        "rounds": options.rounds,
        "load": os.getloadavg()[0],
        "rates": {},
    }
    record["machine"]["openvino"] = openvino.__version__.partition("-")[0]
    with tempfile.TemporaryDirectory() as folder:
        for name, side in itertools.product(NETWORKS, options.tile or [512, 1024]):
            torch.manual_seed(0)
            model = NETWORKS[name]().eval()
            contenders = dict(made(model, side, Path(folder)))
            record["rates"][f"{name} {side}"] = measured(contenders, side, options.rounds)
    path = ROOT / "benchmarks" / "results" / "engines.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def made(model: SegmentationModel, side: int, cache: Path) -> Iterator[tuple[str, Callable[[int], None]]]:
    """Yield each contender: its name, and what computes so many tiles."""
    random = np.random.default_rng(0)
    tiles = [random.integers(0, 256, (side, side, 3)).astype(np.uint8) for _ in range(4)]
    for engine, precision in RUNNERS:
        runner = compile_model(
            model, size=(side, side), engine=engine, precision=precision, cache=cache, calibration=tiles
        )
        yield f"{engine} {precision}", running(runner, tiles)
    for precision in ("f32", "bf16"):
        yield f"raw openvino {precision}", raw(model, side, precision)
        yield f"eager torch {precision}", eager(model, tiles[0], precision)


def running(runner: Runner, tiles: list[np.ndarray]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in runner.run(itertools.islice(itertools.cycle(tiles), count)):
            pass

    return run


def raw(model: SegmentationModel, side: int, precision: str) -> Callable[[int], None]:
    """Return OpenVINO's own loop over one tile that lies ready, with the better of its two ways to run it."""
    example = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        graph = openvino.convert_model(torch.export.export(model, (example,)))
    graph.reshape({0: openvino.PartialShape(list(example.shape))})
    queues = [
        openvino.AsyncInferQueue(
            openvino.compile_model(
                graph, "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": precision}
            )
        )
        for hint in ("THROUGHPUT", "LATENCY")
    ]

    def run(count: int, queue: Any = None) -> None:
        queue = queue or quicker
        for _ in range(count):
            queue.start_async()
        queue.wait_all()

    def seconds(queue: Any) -> float:
        run(2, queue)
        begin = time.perf_counter()
        run(4, queue)
        return time.perf_counter() - begin

    quicker = min(queues, key=seconds)
    return run


def eager(model: SegmentationModel, tile: np.ndarray, precision: str) -> Callable[[int], None]:
    """Return the network called as it is, as most programs do."""
    image = torch.from_numpy(tile).permute(2, 0, 1)[None].float().contiguous()

    def run(count: int) -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for _ in range(count):
                model(image).argmax(1)

    return run


def measured(contenders: dict[str, Callable[[int], None]], side: int, rounds: int) -> dict[str, float]:
    """Return megapixels per second, medians over the rounds, each contender once a round."""
    count = max(2, 6 * 512**2 // side**2)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run(2)
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run(count)
            rates[name].append(count * side**2 / 1e6 / (time.perf_counter() - begin))
    return {name: round(statistics.median(found), 4) for name, found in rates.items()}


if __name__ == "__main__":
    main()
