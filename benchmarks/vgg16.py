"""The example of the method: VGG16, trained on 224×224: one pass over 384×384 against its 36 windows.

    python benchmarks/vgg16.py

writes benchmarks/results/vgg16.json. Both run in eager float32, the windows as one batch, in turns.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torchvision
from machine import describe

import fullyconv as fc

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    torch.manual_seed(0)
    classifier = torchvision.models.vgg16().eval()
    dense = fc.convolutionalize(classifier, input_size=(224, 224))
    report = fc.compare_with_windows(dense, classifier, torch.randn(3, 384, 384), repeats=5)
    print(report)
    record = {
        "machine": describe(),
        "cells": [*report.cells, report.classes],
        "windows": report.windows,
        "head_difference": float(report.head_difference.max() / report.score_scale),
        "crop_difference": float(report.crop_difference.max() / report.score_scale),
        "padded_layers": len(report.padded_layers),
        "area_ratio": report.area_ratio,
        "speed_up": report.speed_up,
        "dense_seconds": report.dense_seconds,
        "dense_trunk_seconds": report.dense_trunk_seconds,
        "windows_seconds": report.windows_seconds,
        "windows_head_seconds": report.windows_head_seconds,
        "pairs": report.repeats,
    }
    (ROOT / "benchmarks" / "results").mkdir(exist_ok=True)
    (ROOT / "benchmarks" / "results" / "vgg16.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
