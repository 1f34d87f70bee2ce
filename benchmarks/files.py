"""Files in, files out: a large TIFF beside the raw engine, and 500 images of 500 sizes.

    python benchmarks/files.py [--side 8192] [--rounds 3] [--precision bf16]

writes benchmarks/results/files.json; rows of other sides and precisions stay. The large image is a tiled,
compressed TIFF of noise, which compresses no better than any photo; masks are a tiled, compressed TIFF. In
every round the raw engine (see `prediction.py`) and the command take turns, and the ratio of a round is the
raw engine's seconds per pixel to the command's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tifffile
import torch
from machine import describe

import fullyconv as fc
from engines import raw
from fullyconv import commands
from fullyconv.images import write_image
from fullyconv.inference import Estimate

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "files.json"
RAW_SIDE, RAW_TILES = 1024, 2
IMAGES = 500


def write_large(path: Path, side: int) -> None:
    random = np.random.default_rng(0)
    tiles = (random.integers(0, 256, (512, 512, 3), np.uint8) for _ in range((side // 512) ** 2))
    tifffile.imwrite(
        path,
        tiles,
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(512, 512),
        compression="zlib",
        photometric="rgb",
        bigtiff=True,
    )


def write_many(folder: Path) -> int:
    """Write images of as many sizes, 128 to 640 pixels a side; return their pixels."""
    random = np.random.default_rng(0)
    folder.mkdir()
    sizes = set[tuple[int, int]]()
    while len(sizes) < IMAGES:
        height, width = map(int, random.integers(128, 641, 2))
        sizes.add((height, width))
    for number, size in enumerate(sorted(sizes)):
        write_image(folder / f"{number}.png", random.integers(0, 256, (*size, 3), np.uint8))
    return sum(height * width for height, width in sizes)


def predict(model: Path, images: Path, out: Path, precision: str) -> float:
    """Return the seconds of the command, in this process: imports do not count."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    commands.predict(model, images, out=out, format="tiff", overlays=False, precision=precision)
    return time.perf_counter() - started


def measure(folder: Path, model: fc.SegmentationModel, side: int, precision: str, rounds: int) -> Any:
    """Return the rows of the large image and of the many, each with its seconds in every round."""
    file, large, many = folder / "model.safetensors", folder / f"{side}.tif", folder / "many"
    write_large(large, side)
    pixels = write_many(many)
    estimate = commands.predict(file, large, out=folder / "none", precision=precision, dry_run=True)
    assert isinstance(estimate, Estimate)
    tiles = raw(model, RAW_SIDE, precision)
    tiles(RAW_TILES)
    found: dict[str, list[float]] = {"raw": [], "large": [], "many": []}
    for _ in range(rounds):
        started = time.perf_counter()
        tiles(RAW_TILES)
        found["raw"].append((time.perf_counter() - started) / (RAW_TILES * RAW_SIDE**2))
        found["large"].append(predict(file, large, folder / "out", precision) / side**2)
        found["many"].append(predict(file, many, folder / "out", precision) / pixels)
        print({name: f"{1e-6 / values[-1]:.2f} Mpx/s" for name, values in found.items()}, flush=True)
    return {
        "side": side,
        "precision": precision,
        "rounds": rounds,
        "load": os.getloadavg()[0],
        "tile": estimate.tile,
        "overlap_cost": estimate.overlap_cost,
        "images": IMAGES,
        "image_pixels": pixels,
        "seconds_per_pixel": found,
        "ratio": median(raw / large for raw, large in zip(found["raw"], found["large"], strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="bf16")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = fc.UNet(2, 3, widths=(32, 64, 128, 256, 512)).eval()
    with tempfile.TemporaryDirectory() as name:
        fc.save(model, Path(name) / "model.safetensors")
        row = measure(Path(name), model, options.side, options.precision, options.rounds)
    record = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"rows": []}
    others = [
        other for other in record["rows"]
        if (other["side"], other["precision"]) != (row["side"], row["precision"])
    ]  # fmt: skip
    record = {"machine": describe(), "rows": [*others, row]}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
