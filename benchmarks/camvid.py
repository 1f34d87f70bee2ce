"""FCN-32s, 16s, 8s and U-Net under one budget on CamVid (11 classes, SegNet's split), trained trunks or none.

    python benchmarks/camvid.py ../shared/data/camvid --weights ../shared/data/weights --runs runs/camvid

writes benchmarks/results/camvid.json. Every row has the same epochs, crops, batch, loss and seed; a row whose
run is in the folder already is not trained again. Intervals are 95 % bootstraps over the validation images;
differences are paired, image by image. Speed is measured last, all networks in turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from machine import describe
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

import fullyconv as fc
from fullyconv.inference import Predictor
from fullyconv.metrics import ConfusionMatrix

ROOT = Path(__file__).resolve().parents[1]
MOBILENET = ("mobilenet_v2", "mobilenet_v2_features_imagenet.safetensors")
SQUEEZENET = ("squeezenet1_1", "squeezenet1_1_imagenet.safetensors")
OWN = (None, None)

# Network, backbone with its file of trained weights, and whether these are used.
ROWS = [
    *(("fcn32s", MOBILENET, trained) for trained in (True, False)),
    *(("fcn16s", MOBILENET, trained) for trained in (True, False)),
    *(("fcn8s", MOBILENET, trained) for trained in (True, False)),
    *(("unet", MOBILENET, trained) for trained in (True, False)),
    ("fcn16s", SQUEEZENET, True),
    ("fcn8s", SQUEEZENET, True),
    ("unet", SQUEEZENET, True),
    ("unet", OWN, False),
]
RESAMPLINGS = 2000
TURNS = 7
DONE = "done.json"


def mean_iu(counts: NDArray[np.int64]) -> float:
    matrix = ConfusionMatrix(len(counts))
    matrix.counts = counts
    return matrix.scores().mean_iu


def interval(values: list[float]) -> list[float]:
    return [float(value) for value in np.percentile(values, (2.5, 97.5))]


def run_of(network: str, backbone: str | None, weights: Path | None, options: Any) -> Path:
    """Return the folder of a row's run, trained now where it is not there yet."""
    name = "-".join((network, backbone or "own", "trained" if weights else "scratch"))
    folder: Path = options.runs / name
    if not (folder / DONE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        config = fc.TrainConfig(
            network=network,
            backbone=backbone,
            weights=str(weights) if weights else None,
            backbone_rate=0.1 if weights else 1.0,
            epochs=options.epochs,
            seed=options.seed,
            precision=options.precision,
        )
        result = fc.train(None, options.data, out=folder, config=config)
        (folder / DONE).write_text(json.dumps({"seconds": result.seconds, "steps": result.steps}))
    return folder


def measure(
    network: str, backbone: str | None, weights: Path | None, folder: Path, dataset: fc.Dataset
) -> dict[str, Any]:
    """Return the figures of one run, with one confusion matrix per validation image."""
    model = fc.load(folder / "model.safetensors")
    predictor, matrices = Predictor(model), []
    size = (0, 0)
    for sample in dataset.split("val"):
        image, truth = dataset.load(sample)
        matrix = ConfusionMatrix(len(model.classes))
        matrix.update(truth, predictor.predict(image).labels, dataset.classes.ignore_index)
        matrices.append(matrix.counts)
        size = image.shape[:2]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, model.channels, *size))
    total = ConfusionMatrix(len(model.classes))
    total.counts = np.sum(matrices, axis=0)
    return {
        "network": network,
        "backbone": backbone,
        "weights": weights.name if weights else None,
        "scores": total.scores().to_dict(),
        "constant_predictor": total.constant_predictor().to_dict(),
        "matrices": matrices,
        **json.loads((folder / DONE).read_text()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
    }


def speeds(folders: list[Path], image: NDArray[Any]) -> list[float]:
    """Return the megapixels per second of every network, measured in turns: medians of the turns."""
    predictors = [Predictor(folder / "model.safetensors") for folder in folders]
    seconds: list[list[float]] = [[] for _ in predictors]
    for _ in range(1 + TURNS):
        for predictor, taken in zip(predictors, seconds, strict=True):
            before = time.monotonic()
            predictor.predict(image)
            taken.append(time.monotonic() - before)
    return [image.shape[0] * image.shape[1] / 1e6 / median(taken[1:]) for taken in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="the folder of the trained trunks")
    parser.add_argument("--runs", type=Path, required=True, help="keeps the runs")
    parser.add_argument("--epochs", type=int, default=5, help="of each row")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="bf16", help="of training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dataset = fc.open_dataset(options.data)
    rows: list[dict[str, Any]] = []
    folders: list[Path] = []
    for network, (backbone, file), trained in ROWS:
        weights = options.weights / file if trained and file else None
        folders.append(run_of(network, backbone, weights, options))
        rows.append(measure(network, backbone, weights, folders[-1], dataset))
    image, _ = dataset.load(dataset.split("val")[0])
    for row, speed in zip(rows, speeds(folders, image), strict=True):
        row["megapixels_per_second"] = speed
    write(rows, options)


def write(rows: list[dict[str, Any]], options: Any) -> None:
    """Write the rows with intervals from one set of resamplings for all rows."""
    images = len(rows[0]["matrices"])
    draws = np.random.default_rng(options.seed).integers(0, images, (RESAMPLINGS, images))
    resampled = [[mean_iu(np.take(row["matrices"], draw, 0).sum(0)) for draw in draws] for row in rows]
    shown = [
        {
            **{name: value for name, value in row.items() if name != "matrices"},
            "mean_iu_interval": interval(values),
        }
        for row, values in zip(rows, resampled, strict=True)
    ]
    place = {(row["network"], row["backbone"], row["weights"]): number for number, row in enumerate(rows)}
    steps = []
    for (network, backbone, weights), number in place.items():
        finer = {"fcn32s": "fcn16s", "fcn16s": "fcn8s"}.get(network)
        other = place.get((finer or "", backbone, weights))
        if other is not None:
            gains = np.subtract(resampled[other], resampled[number])
            gain = shown[other]["scores"]["mean_iu"] - shown[number]["scores"]["mean_iu"]
            steps.append(
                {"from": network, "to": finer, "backbone": backbone, "weights": weights,
                 "gain": gain, "interval": interval(gains.tolist())}
            )  # fmt: skip
    record = {
        "epochs": options.epochs,
        "precision": options.precision,
        "threads": torch.get_num_threads(),
        "machine": describe(),
        "images": images,
        "rows": shown,
        "gains": steps,
    }
    target = ROOT / "benchmarks" / "results" / "camvid.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
