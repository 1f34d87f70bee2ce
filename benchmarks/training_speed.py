"""How many crops a second `fullyconv train` learns from, beside a plain loop.

    python benchmarks/training_speed.py ../shared/data/nuclei

writes benchmarks/results/training-speed.json. Both train the same U-Net on crops of the same images, with the
same batch, loss, optimizer and changes of the crops, in turns of some steps in one process; medians of the
turns count. The plain loop is float32, NCHW and eager, with a DataLoader whose workers read, crop and change
one sample at a time by Pillow and torchvision. With `--epochs N` both then train on, at an equal and constant
rate, for as many steps as N epochs have, and are scored on the validation images; with `--turns 0` nothing
else is measured, and the speed of before stays.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import PIL.Image
import torch
from machine import describe
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

import fullyconv as fc
from fullyconv.datasets import Dataset, channel_statistics, split_dataset
from fullyconv.engines import pick_device
from fullyconv.losses import parse_loss
from fullyconv.models import Normalization
from fullyconv.progress import Lines
from fullyconv.training.runs import prepare

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "training-speed.json"
LOSS = "cross_entropy + dice"
RATE = 1e-3


class Samples(TorchDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images and masks as other libraries' examples read them: one file at a time, every time."""

    def __init__(self, dataset: Dataset, crop: int) -> None:
        self.dataset, self.samples = dataset, dataset.split("train")
        self.change = v2.Compose(
            [
                v2.RandomCrop((crop, crop), pad_if_needed=True, padding_mode="reflect"),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomApply(
                    [v2.RandomAffine(20, scale=(0.7, 1.4), shear=6), v2.ElasticTransform(30.0)], 0.75
                ),
                v2.ColorJitter(0.25, 0.25, 0.25, 0.03),
                v2.RandomGrayscale(0.05),
                v2.RandomApply([v2.GaussianBlur(5, (0.1, 1.0))], 0.15),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        sample = self.samples[index]
        image = np.array(PIL.Image.open(str(sample.image)).convert("RGB"))
        _, labels = self.dataset.load(sample)
        pair = tv_tensors.Image(image.transpose(2, 0, 1).copy()), tv_tensors.Mask(labels)
        changed, mask = self.change(*pair)
        return changed.float(), mask.long()  # the network itself normalises


def plain_loop(
    model: torch.nn.Module, dataset: Dataset, crop: int, batch: int, workers: int
) -> tuple[Callable[[], float], Iterator[Any]]:
    """Return what takes one step and tells the seconds it waited, and the batches, to be closed."""
    device = pick_device()
    model = model.to(device).train()
    samples = Samples(dataset, crop)
    loader = DataLoader(
        samples,
        batch,
        sampler=RandomSampler(samples, replacement=True, num_samples=10**6),
        num_workers=workers,
    )
    batches = iter(loader)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    criterion = parse_loss(LOSS, ignore_index=dataset.classes.ignore_index).to(device)

    def step() -> float:
        started = time.perf_counter()
        images, masks = (part.to(device) for part in next(batches))
        waited = time.perf_counter() - started
        loss = criterion(model(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        return waited

    return step, batches


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=(32, 64, 128, 256, 512))
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, help="of both loops; each loop's own default where not given")
    parser.add_argument("--precision", choices=("auto", "f32", "bf16"), default="auto", help="of ours")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto", help="ours")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12, help="of a turn")
    parser.add_argument("--epochs", type=int, default=0, help="to train on, and be scored")
    options = parser.parse_args()
    dataset = split_dataset(fc.open_dataset(options.data), seed=0)
    mean, std = channel_statistics(dataset, dataset.split("train"), seed=0)
    ours = fc.UNet(
        dataset.classes,
        dataset.channels,
        widths=tuple(options.widths),
        normalization=Normalization(tuple(mean), tuple(std), "uint8"),
    )
    theirs = copy.deepcopy(ours)
    plain, plain_batches = plain_loop(
        theirs, dataset, options.crop, options.batch, 2 if options.workers is None else options.workers
    )
    with tempfile.TemporaryDirectory() as scratch:
        config = fc.TrainConfig(
            batch=options.batch,
            crop=options.crop,
            loss=LOSS,
            turns="all",
            epochs=1000,
            workers=options.workers,
            precision=options.precision,
            compile=options.compile,
        )
        run = prepare(ours, dataset, out=Path(scratch), config=config, classes=None, progress=Lines())
        run.batches = run.open_batches()
        run.prepare_epoch()
        turns: dict[str, list[tuple[float, float]]] = {"plain": [], "fullyconv": []}
        with run.batches:

            def our_step() -> float:
                before = run.batches.waited
                run.step(next(run.batches), RATE)
                return run.batches.waited - before

            for turn, (name, step) in itertools.product(
                range(1 + options.turns), (("plain", plain), ("fullyconv", our_step))
            ):
                started = time.perf_counter()
                waited = sum(step() for _ in range(options.steps))
                seconds = time.perf_counter() - started
                if turn:  # the first one warms up
                    turns[name].append((seconds, waited))
            scores = {}
            steps = options.epochs * len(dataset.split("train")) // options.batch
            for name, step, model in (("plain", plain, theirs), ("fullyconv", our_step, ours)):
                for _ in range(steps):
                    step()
                if steps:
                    scores[name] = fc.evaluate(model.eval(), dataset, split="val").scores.mean_iu
    del plain_batches, plain
    crops = options.steps * options.batch
    record: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    made = {
        "command": f"python benchmarks/training_speed.py {options.data.name} "
        f"--turns {options.turns} --steps {options.steps} --epochs {options.epochs}",
        "machine": describe() | {"device": str(pick_device())},
        "widths": list(options.widths),
        "crop": options.crop,
        "batch": options.batch,
        "precision": run.plan.precision,
        "compile": run.plan.config.compile,
        "workers": run.plan.workers,
    }
    if options.turns:
        rows = {
            name: {
                "crops_per_second": crops / median(seconds for seconds, _ in measured),
                "compute_share": 1 - median(waited / seconds for seconds, waited in measured),
                "turns": [seconds for seconds, _ in measured],
            }
            for name, measured in turns.items()
        }
        faster = rows["fullyconv"]["crops_per_second"] / rows["plain"]["crops_per_second"]
        record |= made | {"loops": rows, "faster": faster}
    if options.epochs:
        record["validation"] = made | {"epochs": options.epochs, "mean_iu": scores}
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
