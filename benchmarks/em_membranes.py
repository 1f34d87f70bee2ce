"""What the published U-Net reaches on the membranes of ISBI 2012 (electron microscopy), its first task.

    python benchmarks/em_membranes.py ../shared/data/em-membranes --minutes 60

trains with the paper's loss, border weights and deformation, and writes benchmarks/results/em-membranes.json.
The architecture is the paper's; ``--widths`` gives it fewer channels, for processors: its own have 31 million
weights. The folder says which sections validate: by position, since neighbouring sections look alike.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from machine import describe

import fullyconv as fc
from fullyconv.progress import Lines
from fullyconv.training import RECIPES, choose_augmentation
from fullyconv.training.networks import PUBLISHED_WIDTHS

ROOT = Path(__file__).resolve().parents[1]
MEMBRANE = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--widths", type=int, nargs="+", default=PUBLISHED_WIDTHS)
    parser.add_argument("--crop", type=int, default=196, help="scored pixels; 388 in the paper")
    parser.add_argument("--batch", type=int, default=2, help="crops a step; 1 in the paper")
    parser.add_argument(
        "--border-weight", type=float, default=10, help="0 weighs all pixels alike, unlike the paper"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("auto", "f32", "bf16"), default="auto")
    parser.add_argument(
        "--run", type=Path, help="keep the run in this folder, or take the finished one there"
    )
    options = parser.parse_args()
    progress = Lines()
    dataset = fc.open_dataset(options.data, progress=progress)
    recipe = RECIPES["unet-published"]
    config = recipe.replace(
        widths=tuple(options.widths),
        minutes=options.minutes,
        border_weight=options.border_weight,
        batch=options.batch,
        seed=options.seed,
        precision=options.precision,
        augment=choose_augmentation(
            dataset,
            crop=options.crop,
            turns="all",
            variation=recipe.variation,
            seed=options.seed,
            progress=progress,
        ),
    )
    with tempfile.TemporaryDirectory() as temporary:
        run = options.run or Path(temporary) / "run"
        if not (run / "model.safetensors").exists():
            fc.train(None, dataset, out=run, config=config, progress=progress)
        model = fc.load(run / "model.safetensors")
        last = json.loads((run / "history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        evaluation = fc.evaluate(model, dataset, split="val")
    record = {
        "command": f"python benchmarks/em_membranes.py em-membranes --minutes {options.minutes:g} "
        f"--widths {' '.join(map(str, options.widths))} --crop {options.crop} --batch {options.batch} "
        f"--border-weight {options.border_weight:g}",
        "machine": describe(),
        "widths": list(options.widths),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": last["seconds"],
        "epochs": last["epoch"],
        "steps": last["step"],
        "mean_iu": evaluation.scores.mean_iu,
        "membrane_iu": evaluation.scores.class_iu[MEMBRANE],
        "pixel_accuracy": evaluation.scores.pixel_accuracy,
        "evaluation": evaluation.to_dict(),
    }
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / "em-membranes.json").write_text(json.dumps(record, indent=2) + "\n")
    print(evaluation)


if __name__ == "__main__":
    main()
