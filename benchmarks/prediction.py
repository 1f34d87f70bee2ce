"""Array in, labels out: this library beside its peers, on the same weights and the same image, in one run.

    python benchmarks/prediction.py --networks u-net --sizes 512 2048 --rounds 3

writes benchmarks/results/prediction.json; rows of networks and sizes that are not measured again stay. Every
way is taken in turns, `--rounds` times after one warm-up that is not counted; medians count, and of ratios
the median over the rounds. The networks have random weights: that changes no speed.

Peers at their documented defaults and at the best settings that we found for them: MONAI's sliding window,
the plain eager network (as segmentation-models-pytorch's examples run theirs), ONNX Runtime. The limit is raw
OpenVINO: the network's scores of one float32 tile that lies ready in its own layout, as many requests at once
as it asks for, tuned for throughput or for latency, whichever is faster; nothing read and nothing copied.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from machine import describe
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray
from torch import Tensor, nn

import fullyconv as fc
from engines import raw
from fullyconv.engines import compile_model
from fullyconv.inference import Predictor
from fullyconv.inference.sources import ArraySource
from fullyconv.models import Normalization, SegmentationModel

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "prediction.json"
Way = Callable[[NDArray[np.uint8]], Any]
IDEAL_TILE = 1024
RAW_TILES = 2
CLASSES = 8
WHOLE = 2048  # side up to which peers take an image whole, and take part at all


def networks(names: list[str]) -> Iterator[tuple[str, SegmentationModel]]:
    torch.manual_seed(0)
    made: dict[str, Callable[[], SegmentationModel]] = {
        "U-Net 32–512": lambda: fc.UNet(CLASSES, 3, widths=(32, 64, 128, 256, 512)),
        "FCN-8s VGG16": lambda: fc.FCN("vgg16", CLASSES, 8, fully_connected=True),
        "smp.Unet resnet18": lambda: Wrapped(smp.Unet("resnet18", encoder_weights=None, classes=CLASSES)),
    }
    for name, build in made.items():
        if any(name.lower().startswith(wanted) for wanted in names):
            model = build().eval()
            for parameter in model.parameters():  # score layers start at zero: their maps would be flat
                if parameter.abs().max() == 0:
                    nn.init.normal_(parameter, std=0.05)
            yield name, model


class Wrapped(SegmentationModel):
    """A network of another library as one of ours."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(CLASSES, 3, Normalization())
        self.network = network
        self.stride = 32

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationModel.scores`."""
        scores: Tensor = self.network(images)
        return scores


def eager(model: nn.Module, *, bf16: bool, channels_last: bool) -> Callable[[Tensor], Tensor]:
    """Return the network as a function of images, run without compilation."""

    def run(images: Tensor) -> Tensor:
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            scores: Tensor = model(images)
        return scores.float()

    return run


def as_labels(forward: Callable[[Tensor], Tensor]) -> Way:
    def predict(image: NDArray[np.uint8]) -> NDArray[Any]:
        images = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            return forward(images)[0].argmax(0).to(torch.uint8).numpy()

    return predict


def monai(forward: Callable[[Tensor], Tensor], **options: Any) -> Way:
    inferer = SlidingWindowInferer(**options)
    return as_labels(lambda images: inferer(images, forward))


def onnx_runtime(model: SegmentationModel, size: int) -> Way:
    runner = compile_model(model, size=(size, size), engine="onnx")
    return lambda image: next(iter(runner.run([image])))


def peers(model: SegmentationModel, size: int) -> dict[str, Way]:
    """Return the ways of others to predict an image of ``size``×``size``, by name."""
    plain = eager(model, bf16=False, channels_last=False)
    quick = eager(model.to(memory_format=torch.channels_last), bf16=True, channels_last=True)
    return {
        "MONAI sliding window, defaults": monai(plain, roi_size=(256, 256)),
        "MONAI sliding window, best settings": monai(
            quick, roi_size=(min(size, 512),) * 2, sw_batch_size=1, overlap=0.125
        ),
        "eager torch, whole image, float32": as_labels(plain),
        "eager torch, whole image, bf16 channels-last": as_labels(quick),
        "ONNX Runtime, whole image, float32": onnx_runtime(model, size),
    }


def measure(model: SegmentationModel, size: int, rounds: int) -> Iterator[list[dict[str, Any]]]:
    """Yield, after every round, a row for every way: its seconds in each round so far."""
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    rows: dict[str, dict[str, Any]] = {}
    every: dict[str, Callable[[], Any]] = {}
    for precision in ("f32", "bf16"):
        row = {"pixels": RAW_TILES * IDEAL_TILE**2, "precision": precision, "seconds": []}
        rows[f"raw OpenVINO, {precision}"] = row
        every[f"raw OpenVINO, {precision}"] = partial(raw(model, IDEAL_TILE, precision), RAW_TILES)
        predictor = Predictor(model, precision=precision)
        plan = predictor.plan(ArraySource(image))
        row = {"pixels": size**2, "precision": precision, "seconds": []}
        row |= {"tile": plan.tile_size, "tiles": plan.count, "overlap_cost": plan.overlap_cost}
        rows[f"fullyconv, {precision}"] = row
        every[f"fullyconv, {precision}"] = partial(predictor.predict, image)
    if size <= WHOLE:
        for name, way in peers(model, size).items():
            rows[name] = {"pixels": size**2, "seconds": []}
            every[name] = partial(way, image)
    for turn in range(rounds + 1):
        for name, way in every.items():
            if not turn and size > WHOLE and name.startswith("fullyconv"):
                continue  # so many tiles need no warm-up
            started = time.perf_counter()
            way()
            taken = time.perf_counter() - started
            print(f"{size:6} {turn} {name:45} {taken:8.2f} s", flush=True)
            if turn:
                rows[name]["seconds"].append(taken)
            gc.collect()
        if turn:
            yield [{"way": name, **row} for name, row in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--networks", nargs="+", default=["u-net", "fcn", "smp"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name, model in networks(options.networks):
        for size in options.sizes:
            load = os.getloadavg()[0]
            for rows in measure(model, size, options.rounds):
                keep({"network": name, "size": size, "load": load, "ways": rows})


def keep(found: dict[str, Any]) -> None:
    """Put what was found in the place of what was known of that network and size."""
    record = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"found": []}
    packages = ("openvino", "onnxruntime", "monai", "segmentation-models-pytorch")
    record["machine"] = describe()
    record["versions"] = {name: version(name) for name in packages}
    place = (found["network"], found["size"])
    others = [other for other in record["found"] if (other["network"], other["size"]) != place]
    record["found"] = sorted([*others, found], key=lambda entry: (entry["network"], entry["size"]))
    RESULTS.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
