"""What `fullyconv train` reaches with its defaults on the nuclei of the 2018 Data Science Bowl.

    python benchmarks/nuclei.py ../shared/data/nuclei --minutes 20

writes benchmarks/results/nuclei.json and docs/images/nuclei.png (image, true mask, predicted mask).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from machine import describe

import fullyconv as fc
from fullyconv.images import overlay, write_image
from fullyconv.metrics import ConfusionMatrix

ROOT = Path(__file__).resolve().parents[1]
SHOWN = 3
SIDE = 256


def kind(image: np.ndarray) -> str:
    """Tell fluorescence (dark and gray), bright-field gray and stained tissue apart by their colours."""
    if np.ptp(image.astype(int), axis=2).mean() > 8:
        return "stained tissue"
    return "fluorescence" if image.mean() < 127 else "bright-field gray"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument(
        "--run", type=Path, help="keep the run in this folder, or take the finished one there"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = options.run or Path(temporary) / "run"
        if not (run / "model.safetensors").exists():
            fc.train(None, options.data, out=run, config=fc.TrainConfig(minutes=options.minutes))
        model = fc.load(run / "model.safetensors")
        last = json.loads((run / "history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        dataset = fc.open_dataset(options.data)
        evaluation = fc.evaluate(model, dataset, split="val")
        kinds: dict[str, tuple[int, ConfusionMatrix]] = {}
        panels: dict[str, np.ndarray] = {}
        for sample in dataset.split("val"):
            image, truth = dataset.load(sample)
            labels = fc.predict(model, image, precision="f32").labels
            matrix = ConfusionMatrix(2)
            matrix.update(truth, labels, dataset.classes.ignore_index)
            count, sofar = kinds.get(kind(image), (0, ConfusionMatrix(2)))
            kinds[kind(image)] = (count + 1, sofar + matrix)
            if kind(image) not in panels:
                corner = (slice(0, SIDE), slice(0, SIDE))
                views = [image, *(overlay(image, mask, dataset.classes) for mask in (truth, labels))]
                panels[kind(image)] = np.concatenate([view[corner] for view in views], 1)
        record = {
            "command": f"fullyconv train nuclei --out run --minutes {options.minutes:g}",
            "machine": describe(),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": last["seconds"],
            "epochs": last["epoch"],
            "steps": last["step"],
            "evaluation": evaluation.to_dict(),
            "kinds": {
                name: {"images": count, **m.scores().to_dict()} for name, (count, m) in sorted(kinds.items())
            },
        }
    (ROOT / "benchmarks" / "results").mkdir(exist_ok=True)
    (ROOT / "benchmarks" / "results" / "nuclei.json").write_text(json.dumps(record, indent=2) + "\n")
    picture = ROOT / "docs" / "images" / "nuclei.png"
    picture.parent.mkdir(exist_ok=True)
    write_image(picture, np.concatenate(list(panels.values())[:SHOWN]), overwrite=True)
    print(evaluation)


if __name__ == "__main__":
    main()
