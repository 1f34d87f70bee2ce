"""The peak memory of `fullyconv predict` on sparse TIFFs of one, four and sixteen gigapixels.

    python benchmarks/gigapixels.py [--sides 32768 65536 131072] [--max-memory 2GB]

writes benchmarks/results/gigapixels.json; rows of other sides stay. The network is small and fast, so that
the largest image ends: what reading and writing take does not depend on it. Most tiles of the images are not
in the file and read as zeros; they are computed like all others. Each prediction is a process of its own,
from the file to a tiled TIFF, and its peak is what the system counted (`ru_maxrss`: mapped files included).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from machine import describe

import fullyconv as fc

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gigapixels.json"
WIDTHS = (4, 8)
TILE = 512
EVERY = 5  # of so many tiles one has pixels, which fill the cache of decoded tiles at any of the sizes


def write_sparse(path: Path, side: int) -> None:
    """Write an image of side×side pixels of which a part of the tiles is in the file."""
    random = np.random.default_rng(0)
    full = random.integers(0, 256, (TILE // 16, TILE // 16), np.uint8).repeat(16, 0).repeat(16, 1)
    count = (side // TILE) ** 2
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            (full if number % EVERY == 0 else None for number in range(count)),
            shape=(side, side),
            dtype=np.uint8,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack",
        )


def predict(model: Path, image: Path, out: Path, max_memory: str) -> dict[str, float]:
    """Run the command; return its seconds, and the most bytes it held."""
    command = [sys.executable, "-m", "fullyconv", "predict", str(model), str(image), "--out", str(out)]
    started = time.perf_counter()
    process = os.posix_spawn(
        sys.executable,
        [*command, "--format", "tiff", "--max-memory", max_memory, "--precision", "bf16"],
        os.environ,
    )
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"fullyconv predict {image.name}: exit status {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", type=int, nargs="+", default=[32768, 65536, 131072])
    parser.add_argument("--max-memory", default="2GB")
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fc.save(fc.UNet(2, 1, widths=WIDTHS), folder / "model.safetensors")
        for side in options.sides:
            image = folder / f"{side}.tif"
            write_sparse(image, side)
            out = folder / f"out-{side}"
            found = predict(folder / "model.safetensors", image, out, options.max_memory)
            written = out / "masks" / f"{side}.tif"
            with tifffile.TiffFile(written) as file:
                assert file.pages.first.shape == (side, side)
            keep({"side": side, **found, "bytes_written": written.stat().st_size}, options.max_memory)


def keep(row: dict[str, Any], max_memory: str) -> None:
    """Put a row in the place of what was known of that side."""
    record = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"rows": []}
    rows = [other for other in record["rows"] if other["side"] != row["side"]]
    record = {
        "machine": describe(),
        "widths": WIDTHS,
        "precision": "bf16",
        "max_memory": max_memory,
        "rows": sorted([*rows, row], key=lambda row: row["side"]),
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
