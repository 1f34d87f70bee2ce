"""How long 1,000 workers would take for a terapixel: a model on paper, of numbers measured on this machine.

Measured: seconds to read, compute and write a tile with one worker; bytes of a tile on disk; what a task
costs the scheduler (empty tasks through a real scheduler and a real worker); what marking a tile costs the
client. The whole is bounded by the slowest of four: workers, scheduler, client, and the shared file system.
What comes out is a bound, not a promise: it assumes no stragglers.

    python benchmarks/cluster_model.py --out benchmarks/results/cluster-model.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import tifffile
import torch
from machine import describe

import fullyconv as fc
from fullyconv.images import open_image
from fullyconv.inference import Predictor
from fullyconv.inference.cluster import _TILES as TILES_PER_TASK
from fullyconv.inference.job import Job

WORKERS = 1000
PIXELS = 10**12
SIDE = 8192  # of the image the tile is measured on
DISK = 10e9  # bytes a second of a shared parallel file system; the one number that is assumed


def measure_tile(folder: Path, model: fc.SegmentationModel) -> dict[str, float]:
    """Return seconds and bytes of a tile, from the file to its chunks safe on disk."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)  # compresses no worse than any mosaic does
    tifffile.imwrite(folder / "mosaic.tif", image, tile=(512, 512), compression="zlib", photometric="rgb")
    predictor = Predictor(model, precision="auto")
    with open_image(folder / "mosaic.tif") as source:
        predictor.settle(source, "labels")
        job = Job(folder / "job", source, predictor, None)
        plan, wanted = job.record.plan, job.todo
        for piece in islice(job.pieces(wanted), 2):  # warms up
            job.write(piece)
        started = time.perf_counter()
        for piece in job.pieces(wanted[:TILES_PER_TASK]):
            job.write(piece)
        seconds = (time.perf_counter() - started) / TILES_PER_TASK
        started = time.perf_counter()
        for _ in range(50):
            job.store.mark(*wanted[:TILES_PER_TASK])
        marking = (time.perf_counter() - started) / 50 / TILES_PER_TASK
        chunks = [path for path in (job.folder / "answers.zarr").rglob("*") if path.is_file()]
        written = sum(path.stat().st_size for path in chunks) / TILES_PER_TASK
    kept = (SIDE * SIDE) / plan.count
    read = (folder / "mosaic.tif").stat().st_size / SIDE**2 * np.prod(plan.tile_size)
    return {
        "tile_pixels": float(np.prod(plan.tile_size)),
        "kept_pixels": kept,
        "seconds": seconds,
        "seconds_marking": marking,
        "bytes_read": float(read),
        "bytes_written": written,
        "precision": predictor.runners.precision,
    }


def measure_scheduler(tasks: int = 2000) -> float:
    """Return the seconds that a scheduler needs for one empty task."""
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/scheduler.json"
        common = ["--scheduler-file", file, "--no-dashboard"]
        dask = [sys.executable, "-m", "dask"]
        started = [
            subprocess.Popen([*dask, *command, *common], stderr=subprocess.DEVNULL)
            for command in (["scheduler", "--port", "0"], ["worker", "--no-nanny", "--nthreads", "1"])
        ]
        try:
            while not Path(file).exists():
                time.sleep(0.1)
            with Client(scheduler_file=file) as client:
                client.wait_for_workers(1)
                client.gather(client.map(abs, range(100)))
                before = time.perf_counter()
                client.gather(client.map(abs, range(1000, 1000 + tasks), pure=False))
                return (time.perf_counter() - before) / tasks
        finally:
            for process in started:
                process.kill()
                process.wait()


def bound(tile: dict[str, float], task_seconds: float, workers: int = WORKERS) -> dict[str, float]:
    """Return the hours that each part would take alone."""
    tiles = PIXELS / tile["kept_pixels"]
    traffic = tiles * (tile["bytes_read"] + tile["bytes_written"])
    return {
        "workers": tiles * tile["seconds"] / workers / 3600,
        "scheduler": tiles / TILES_PER_TASK * task_seconds / 3600,
        "client": tiles * tile["seconds_marking"] / 3600,
        "file system": traffic / DISK / 3600,
    }


def main() -> None:
    """Measure, compute, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    torch.manual_seed(0)
    model = fc.UNet(2, 3, widths=(32, 64, 128, 256, 512)).eval()
    with tempfile.TemporaryDirectory() as folder:
        tile = measure_tile(Path(folder), model)
    task_seconds = measure_scheduler()
    hours = bound(tile, task_seconds)
    longest = max(hours, key=lambda part: hours[part])
    rest = max(value for part, value in hours.items() if part != "workers")
    result = {
        "machine": describe(),
        "tile": tile,
        "scheduler_seconds_per_task": task_seconds,
        "tiles_per_task": TILES_PER_TASK,
        "workers": WORKERS,
        "pixels": PIXELS,
        "assumed_file_system_bytes_per_second": DISK,
        "hours": hours,
        "bound_by": longest,
        "workers_at_which_the_bound_changes": WORKERS * hours["workers"] / rest,
    }
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    for part, value in hours.items():
        print(f"{part:12} {value:8.2f} h")
    print(f"bound by the {longest}; from {result['workers_at_which_the_bound_changes']:,.0f} workers on, not")


if __name__ == "__main__":
    main()
