"""What limits training on up to 1,000 GPUs: a model on paper, of numbers measured on this machine.

Measured: the seconds of a step, the bytes of its gradient, the seconds to prepare a crop, to reduce the few
numbers that processes agree on at every step, to write a checkpoint and to validate. Assumed, and named so in
the result: how much faster a GPU computes a step, the network between machines, and the shared file system.
Of a step, the gradients are reduced while the rest of them is computed (DDP), which takes two thirds of it.

    python benchmarks/training_scaling.py ../shared/data/nuclei
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from machine import describe

import fullyconv as fc
from fullyconv.datasets import CropSampler, split_dataset
from fullyconv.progress import Quiet
from fullyconv.training import rehearse
from fullyconv.training.choices import choose_plan

ROOT = Path(__file__).resolve().parents[1]
GPUS = (1, 8, 64, 1000)
ROUNDS = 200

ASSUMED = {
    "gpu_over_this_processor": 100.0,  # times, for a step
    "bytes_a_second_of_a_gpu": 25e9,  # of its network, in each direction
    "seconds_of_a_hop": 10e-6,  # from machine to machine
    "bytes_a_second_of_the_file_system": 10e9,
    "checkpoint_every_seconds": 60.0,
}
BACKWARD = 2 / 3  # of a step


def reduce(rank: int, port: int, numbers: int, out: str) -> None:
    """Measure the reduction of so many float32 numbers between two processes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    tensor, seconds = torch.ones(numbers), []
    for _ in range(ROUNDS if numbers < 1000 else 10):
        started = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        seconds.append(time.perf_counter() - started)
    torch.distributed.destroy_process_group()
    if rank == 0:
        Path(out).write_text(str(median(seconds)))


def reduction_seconds(numbers: int) -> float:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        out = f"{folder}/seconds"
        multiprocessing.spawn(reduce, (port, numbers, out), nprocs=2)
        return float(Path(out).read_text())


def measure(data: Path, widths: tuple[int, ...], batch: int) -> dict[str, Any]:
    dataset = split_dataset(fc.open_dataset(data), seed=0)
    config = fc.TrainConfig(widths=widths, batch=batch, epochs=1, workers=0, turns="all")
    model = fc.UNet(dataset.classes, dataset.channels, widths=widths)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    plan = choose_plan(model, dataset, config.replace(precision="f32"), torch.device("cpu"), Quiet())
    sampler = CropSampler(dataset, dataset.split("train"), plan.augment, seed=0)
    for number in range(16):
        sampler[number]
    started = time.perf_counter()
    for number in range(64):
        sampler[number]
    crop_seconds = (time.perf_counter() - started) / 64
    rehearsal = rehearse(model, dataset, config=config)
    started = time.perf_counter()
    dataset.fingerprint()
    fingerprint_seconds = time.perf_counter() - started
    sizes = [sample.image.stat().st_size for sample in dataset.samples if isinstance(sample.image, Path)]
    return {
        "parameters": parameters,
        "gradient_bytes": 4 * parameters,
        "batch_of_a_process": batch,
        "crops_of_an_epoch": plan.epoch_steps * batch,
        "bytes_of_the_images": sum(sizes),
        "step_seconds": rehearsal.step_seconds,
        "crop_seconds": crop_seconds,
        "checkpoint_seconds": rehearsal.checkpoint_seconds,
        "checkpoint_bytes": rehearsal.checkpoint_bytes,
        "validation_seconds": rehearsal.validation_seconds,
        "validation_images": len(dataset.split("val")),
        "fingerprint_seconds": fingerprint_seconds,
        "gradient_reduction_seconds_of_two": reduction_seconds(parameters),
        "agreement_seconds_of_two": reduction_seconds(4),
    }


def scaled(measured: dict[str, Any], gpus: int) -> dict[str, float]:
    """Return what a step and its parts take with so many GPUs, in seconds."""
    compute = measured["step_seconds"] / ASSUMED["gpu_over_this_processor"]
    hops = 2 * math.ceil(math.log2(gpus)) if gpus > 1 else 0  # a tree, up and down
    traffic = 2 * (gpus - 1) / gpus * measured["gradient_bytes"] / ASSUMED["bytes_a_second_of_a_gpu"]
    reduction = traffic + hops * ASSUMED["seconds_of_a_hop"]
    exposed = max(0.0, reduction - BACKWARD * compute)
    agreement = measured["agreement_seconds_of_two"] * bool(hops) + hops * ASSUMED["seconds_of_a_hop"]
    checkpoint = min(0.01, measured["checkpoint_seconds"] / ASSUMED["checkpoint_every_seconds"])
    step = (compute + exposed + agreement) * (1 + checkpoint)
    crops = gpus * measured["batch_of_a_process"] / step
    share = measured["bytes_of_the_images"] / measured["crops_of_an_epoch"]
    return {
        "gpus": gpus,
        "compute": compute,
        "reduction": reduction,
        "exposed": exposed,
        "agreement": agreement,
        "step": step,
        "efficiency": compute / step,
        "crops_a_second": crops,
        "cores_a_gpu": measured["batch_of_a_process"] * measured["crop_seconds"] / step,
        "bytes_read_a_second": crops * share,
        "batch": gpus * measured["batch_of_a_process"],
        "steps_of_an_epoch": measured["crops_of_an_epoch"] / (gpus * measured["batch_of_a_process"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=(32, 64, 128, 256, 512))
    parser.add_argument("--batch", type=int, default=8, help="crops a step of one process")
    options = parser.parse_args()
    measured = measure(options.data, tuple(options.widths), options.batch)
    compute = measured["step_seconds"] / ASSUMED["gpu_over_this_processor"]
    traffic = 2 * measured["gradient_bytes"] / ASSUMED["bytes_a_second_of_a_gpu"]
    record = {
        "command": f"python benchmarks/training_scaling.py {options.data.name}",
        "machine": describe(),
        "widths": list(options.widths),
        "measured": measured,
        "assumed": ASSUMED,
        "gpus": [scaled(measured, gpus) for gpus in GPUS],
        # How many times faster than assumed a GPU may compute before its network is what it waits for.
        "gpus_may_be_faster": BACKWARD * compute / traffic,
    }
    target = ROOT / "benchmarks" / "results" / "training-scaling.json"
    target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
