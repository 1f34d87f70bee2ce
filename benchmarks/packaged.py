"""Put the best network of a run on nuclei into the package, and score it there.

    python benchmarks/packaged.py RUN ../shared/data/nuclei

writes src/fullyconv/models/packaged/nuclei.safetensors and benchmarks/results/packaged-nuclei.json; the card
of the model is docs/reference/packaged-models.md. The run was made by

    fullyconv train nuclei --out RUN --steps 3000 --widths 16 --widths 32 --widths 64 --widths 96 --widths 160
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from accuracy import row, rows
from machine import describe

import fullyconv as fc
from fullyconv.metrics import score_regions
from fullyconv.models import locate
from fullyconv.models.file import PACKAGED

ROOT = Path(__file__).resolve().parents[1]
NAME = "nuclei"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    model = fc.load(options.run / "model.safetensors")
    model.classes = replace(model.classes, names=("background", "nucleus"))
    PACKAGED.mkdir(exist_ok=True)
    fc.save(model, PACKAGED / f"{NAME}.safetensors", overwrite=True)
    history = [json.loads(line) for line in (options.run / "history.jsonl").read_text("utf-8").splitlines()]
    dataset = fc.open_dataset(options.data)
    evaluation = fc.evaluate(NAME, dataset, split="val")
    record = {
        "machine": describe(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": locate(NAME).stat().st_size,
        "steps": history[-1]["step"],
        "seconds": history[-1]["seconds"],
        "constant_mean_iu": evaluation.constant.mean_iu,
        "rows": [
            row("mean IU", evaluation.sums, lambda totals: score_regions(totals)["mean_iu"]),
            *rows(NAME, evaluation, dataset),
        ],
    }
    results = ROOT / "benchmarks" / "results" / f"packaged-{NAME}.json"
    results.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
