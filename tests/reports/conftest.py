import json

import numpy as np
import PIL.Image
import pytest
import torch

from fullyconv.datasets import open_dataset
from fullyconv.models import UNet, save
from fullyconv.reports import gather, read_run
from fullyconv.training import Recipe, TrainConfig, write_recipe

HOSTILE = "<script>alert('&\"')</script>"


@pytest.fixture(scope="session")
def hostile():
    """What a name of a class, and an option of the run, is here."""
    return HOSTILE


def write_run(folder, dataset, model, *, validated, recorded=None):
    """Write what a finished run leaves behind."""
    (folder / "split").mkdir(parents=True)
    names = [sample.name for sample in dataset.samples]
    (folder / "split" / "val.txt").write_text("\n".join(validated) + "\n", "utf-8")
    (folder / "split" / "train.txt").write_text(
        "\n".join(name for name in names if name not in validated) + "\n", "utf-8"
    )
    rows = [
        {"epoch": k + 1, "step": 8 * k, "seconds": 30.0 * k, "loss": 1 / (k + 1), "mean_iu": 0.2 * k}
        for k in range(3)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    write_recipe(Recipe(TrainConfig(backbone=HOSTILE, seed=1), recorded), folder / "recipe.toml")
    save(model, folder / "model.safetensors")
    return folder


def discs(seed):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, : 40 + 8 * seed]
    mask = ((rows - 20) ** 2 + (columns - 20 - seed) ** 2 < 140).astype(np.uint8)
    image = rng.integers(0, 90, (*mask.shape, 3)) + 120 * mask[..., None]
    return image.astype(np.uint8), mask


@pytest.fixture(scope="session")
def report_data(tmp_path_factory):
    """Six images, one with a name that is HTML, two classes, one of them named in HTML, numbered objects."""
    root = tmp_path_factory.mktemp("report") / "cells & <b>more"
    for name in ("images", "masks", "instances"):
        (root / name).mkdir(parents=True)
    for number in range(6):
        image, mask = discs(number)
        stem = "<img src=x onerror=alert(1)>" if number == 0 else f"{number}"
        PIL.Image.fromarray(image).save(root / "images" / f"{stem}.png")
        PIL.Image.fromarray(mask).save(root / "masks" / f"{stem}.png")
        PIL.Image.fromarray(mask.astype(np.uint16)).save(root / "instances" / f"{stem}.png")
    (root / "classes.toml").write_text(
        "".join(
            f"[[class]]\nname = '''{name}'''\ncolor = {color}\n"
            for name, color in (("back & ground", [0, 0, 0]), (HOSTILE, [0, 200, 90]))
        ),
        "utf-8",
    )
    return root


@pytest.fixture(scope="session")
def report_run(report_data, tmp_path_factory):
    """A run that validated on three of the images."""
    return make_run(report_data, tmp_path_factory.mktemp("runs") / "first <i>run", seed=0)


def make_run(data, folder, *, seed, validated=3, recorded=None):
    dataset = open_dataset(data)
    torch.manual_seed(seed)
    model = UNet(dataset.classes, 3, widths=(2, 4))
    names = sorted(sample.name for sample in dataset.samples)[-validated:]
    if validated >= 3:
        names[0] = min(sample.name for sample in dataset.samples)
    return write_run(folder, dataset, model, validated=names, recorded=recorded)


@pytest.fixture(scope="session")
def findings(report_data, report_run, tmp_path_factory):
    other = make_run(report_data, tmp_path_factory.mktemp("runs") / "other", seed=1, validated=2)
    return gather(
        read_run(report_run), open_dataset(report_data), others=(read_run(other),), pictures=2, seed=3
    )
