"""How fast pixels are counted: `ConfusionMatrix` beside torchmetrics, on the same labels, in turns.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py

writes benchmarks/results/metrics.json: medians over pairs of one count each, and of the ratios of the pairs.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from machine import describe
from torchmetrics.classification import MulticlassConfusionMatrix

from fullyconv.metrics import ConfusionMatrix

ROOT = Path(__file__).resolve().parents[1]
IGNORED = 255


def label_maps(size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a truth of blocks with ignored seams, and a prediction that is wrong in a fifth of it."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, classes, (size // 32, size // 32)).astype(np.uint8)
    truth = np.kron(cells, np.ones((32, 32), np.uint8))
    noise = rng.integers(0, classes, truth.shape).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.2, noise, truth)
    truth[::64] = IGNORED
    return truth, prediction


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--pairs", type=int, default=21)
    options = parser.parse_args()
    truth, prediction = label_maps(options.size, options.classes)
    # torchmetrics takes what it wants: 64-bit labels, converted before its time begins.
    tensors = [torch.from_numpy(labels.astype(np.int64)) for labels in (prediction, truth)]
    ours = ConfusionMatrix(options.classes)
    theirs = MulticlassConfusionMatrix(options.classes, ignore_index=IGNORED, validate_args=False)
    pairs = []
    for _ in range(1 + options.pairs):
        started = time.perf_counter()
        ours.update(truth, prediction, IGNORED)
        between = time.perf_counter()
        theirs.update(*tensors)
        pairs.append((between - started, time.perf_counter() - between))
    assert np.array_equal(ours.counts, theirs.compute().numpy()), "both count the same"
    pairs = pairs[1:]  # the first warms up
    record = {
        "size": options.size,
        "classes": options.classes,
        "pairs": options.pairs,
        "seconds": median(mine for mine, _ in pairs),
        "torchmetrics_seconds": median(other for _, other in pairs),
        "speed_up": median(other / mine for mine, other in pairs),
        "torchmetrics": version("torchmetrics"),
        "machine": describe(),
    }
    target = ROOT / "benchmarks" / "results" / "metrics.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
