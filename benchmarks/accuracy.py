"""What a recipe reaches, with intervals, beside published numbers.

    python benchmarks/accuracy.py benchmarks/accuracy/camvid.toml ../shared/data/camvid --flips horizontal

trains as the recipe says, scores the split "val" and writes the recipe's part of
benchmarks/results/accuracy.json. A run that is in --run already goes on, or is only scored.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from nuclei import kind
from numpy.typing import NDArray

import fullyconv as fc
from fullyconv.evaluation import Evaluation
from fullyconv.inference import Predictor
from fullyconv.metrics import RESAMPLINGS, interval, resample, score_regions
from fullyconv.progress import Lines
from fullyconv.training import read_recipe, resume

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "accuracy.json"

# Of each recipe: the class that is scored alone too, and by kind of image, and who has published what.
OBJECT = {"nuclei": "nucleus"}
PUBLISHED = {
    "nuclei": [
        ("U-Net", "IU of nucleus, mean over images", 0.9077, "random split of its own, images resized"),
        ("UNet++", "IU of nucleus, mean over images", 0.9263, "random split of its own, images resized"),
    ],
    "camvid": [
        ("SegNet", "mean IU", 0.464, "test split"),
        ("FCN-8", "mean IU", 0.570, "test split"),
        ("FC-DenseNet103", "mean IU", 0.669, "test split"),
    ],
    "em-membranes": [("U-Net", "pixel accuracy", 0.9389, "hidden test sections")],
}


def trained(options: argparse.Namespace, run: Path) -> Path:
    """Return the model of a run that is begun, gone on with, or over."""
    if (run / "recipe.toml").exists():
        return resume(run, data=options.data, progress=Lines()).model
    config = read_recipe(options.recipe, options.set).config
    if options.weights:
        config = config.replace(weights=options.weights)
    return fc.train(None, options.data, out=run, config=config, progress=Lines()).model


def rows(name: str, evaluation: Evaluation, dataset: fc.Dataset) -> Iterator[dict[str, Any]]:
    """Yield what is scored, each with its value and its 95 % interval."""
    sums = evaluation.sums
    yield row("mean IU", sums, lambda totals: score_regions(totals)["mean_iu"])
    yield row("pixel accuracy", sums, lambda totals: score_regions(totals)["pixel_accuracy"])
    if name not in OBJECT:
        for place, word in enumerate(evaluation.classes.names):
            yield row(
                f"IU of {word}", sums, lambda totals, k=place: score_regions(totals)["class_iu"][..., k]
            )
        return
    kinds = {sample.name: kind(dataset.load(sample)[0]) for sample in dataset.split("val")}
    of_image = np.array([kinds[image] for image in evaluation.names])
    chosen = {"": of_image != "", **{f", {each}": of_image == each for each in sorted(set(of_image))}}
    for words, part in chosen.items():
        what = f"IU of {OBJECT[name]}"
        yield row(f"{what}{words}", sums[part], lambda totals: score_regions(totals)["class_iu"][..., 1])
        yield row_of_means(f"{what}, mean over images{words}", score_regions(sums[part])["class_iu"][..., 1])


def row(what: str, sums: NDArray[np.int64], score: Callable[[Any], NDArray[np.float64]]) -> dict[str, Any]:
    """Return the score of all images together, and its interval from images drawn again."""
    low, high = interval(score(resample(sums)))
    value = float(score(sums.sum(0).astype(np.float64)))
    return {"what": what, "value": value, "interval": [float(low), float(high)], "images": len(sums)}


def row_of_means(what: str, values: NDArray[np.float64]) -> dict[str, Any]:
    """Return the mean over the images that have a value, and its interval from images drawn again."""
    values = values[np.isfinite(values)]
    drawn = np.random.default_rng(0).choice(values, (RESAMPLINGS, len(values))).mean(1)
    low, high = interval(drawn)
    value = float(values.mean())
    return {"what": what, "value": value, "interval": [float(low), float(high)], "images": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", help="of the backbone: a file in place of the recipe's")
    parser.add_argument("--flips", choices=("none", "horizontal", "both"), default="none")
    parser.add_argument(
        "--set", action="append", default=[], help="KEY=VALUE of the recipe, such as minutes=5"
    )
    parser.add_argument("--run", type=Path, help="keep the run in this folder, or take the one there")
    options = parser.parse_args()
    name = options.recipe.stem
    with tempfile.TemporaryDirectory() as temporary:
        run = options.run or Path(temporary) / "run"
        model = fc.load(trained(options, run))
        history = [json.loads(line) for line in (run / "history.jsonl").read_text("utf-8").splitlines()]
    dataset = fc.open_dataset(options.data)
    evaluations = {
        flips: fc.evaluate(Predictor(model, flips=flips, precision="f32"), dataset, split="val")
        for flips in dict.fromkeys(("none", options.flips))
    }
    arguments = [f"benchmarks/accuracy/{options.recipe.name}", name]
    for change in options.set:
        arguments += ["--set", change]
    record = {
        "command": shlex.join(["python", "benchmarks/accuracy.py", *arguments, "--flips", options.flips]),
        "machine": describe(),
        "network": model.architecture.model_dump(mode="json"),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": history[-1]["seconds"],
        "epochs": history[-1]["epoch"],
        "steps": history[-1]["step"],
        "flips": options.flips,
        "published": [list(each) for each in PUBLISHED[name]],
        "rows": {flips: list(rows(name, each, dataset)) for flips, each in evaluations.items()},
        "constant_mean_iu": evaluations["none"].constant.mean_iu,
    }
    known = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**known, name: record}, indent=2) + "\n", encoding="utf-8")
    json.dump(record["rows"], sys.stdout, indent=2)


if __name__ == "__main__":
    main()
