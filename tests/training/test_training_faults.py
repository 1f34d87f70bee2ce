"""What goes wrong in a step or beside it is named, and nothing that was good is lost."""

import json
import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fullyconv.datasets import AugmentConfig, Dataset, open_dataset, split_dataset
from fullyconv.errors import ConfigError, DataError, ImageError, MachineError
from fullyconv.models import UNet, load
from fullyconv.progress import Quiet
from fullyconv.training import TrainConfig, resume, train
from fullyconv.training import batches as batches_module
from fullyconv.training import choices as choices_module
from fullyconv.training.faults import is_out_of_memory, not_finite
from fullyconv.training.learner import Learner

SMALL = TrainConfig(
    epochs=2, widths=(4, 8), batch=4, precision="f32", workers=0, augment=AugmentConfig(crop=(32, 32))
)


class Heard(Quiet):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch):
    monkeypatch.setattr(choices_module, "LEAST_STEPS", 8)


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def spoil_step(monkeypatch, number, spoil):
    """Let the loss of step ``number`` go through ``spoil``."""
    gradient, whole = Learner.gradient, Learner._loss
    now = []

    def noted(self, batch, step):
        now.append(step)
        return gradient(self, batch, step)

    monkeypatch.setattr(Learner, "gradient", noted)
    monkeypatch.setattr(
        Learner, "_loss", lambda self, *a: spoil(whole(self, *a)) if now[-1] == number else whole(self, *a)
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda loss: loss * math.nan, r"a loss of nan at step 26"),
        (lambda loss: loss * math.inf, r"a loss of inf at step 26"),
        # Its value is finite, its derivative is not.
        (
            lambda loss: loss + torch.sqrt(loss - loss.detach()),
            r"a loss of [\d.]+ with a gradient of (nan|inf) at step 26",
        ),
    ],
    ids=["nan", "infinite", "gradient"],
)
def test_a_step_that_is_no_number_changes_nothing_and_leaves_its_batch(
    made_data, tmp_path, monkeypatch, spoil, said
):
    seen = {}
    spoil_step(monkeypatch, 25, spoil)
    raising = not_finite

    def look(batch, *a, **k):
        seen["parameters"] = {name: value.clone() for name, value in network.named_parameters()}
        return raising(batch, *a, **k)

    monkeypatch.setattr("fullyconv.training.loop.not_finite", look)
    step = torch.optim.AdamW.step

    def step_and_remember(self, *a, **k):
        step(self, *a, **k)
        seen["before"] = {name: value.clone() for name, value in network.named_parameters()}

    monkeypatch.setattr(torch.optim.AdamW, "step", step_and_remember)
    network = UNet(2, 3, widths=(4, 8))
    with pytest.raises(
        ConfigError, match=said + r".*; the likely cause: the learning rate.*bad-batch-0\.npz"
    ):
        train(network, made_data, out=tmp_path / "run", config=SMALL.replace(epochs=4), progress=Quiet())
    assert equal(seen["parameters"], seen["before"])
    kept = load(tmp_path / "run" / "model.safetensors")
    assert 0 < kept.provenance.steps < 26
    with np.load(tmp_path / "run" / "bad-batch-0.npz") as batch:
        assert (batch["images"].shape, batch["labels"].shape) == ((4, 3, 32, 32), (4, 32, 32))
        assert int(batch["step"]) == 26
        assert set(batch["names"]) <= {f"{number:02}" for number in range(12)}


BATCH = (torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("change", "cause", "fix"),
    [
        ({}, "the learning rate, 0.5 at this step", "a tenth of the --learning-rate"),
        ({"bf16": True}, "bfloat16 overflows here, float32 does not", "--precision f32"),
        ({"bf16": True, "float32_loss": lambda: math.nan}, "the learning rate", "--clip"),
        ({"class_weights": [1e-3, 5e2]}, "class weights from 0.001 to 500", "--class-weights"),
        ({"class_weights": [1.0, 2.0]}, "the learning rate", "--clip"),
        (
            {"batch": (torch.tensor([1.0, math.inf])[:, None, None, None].expand(2, 3, 4, 4), BATCH[1])},
            "pixels of second are no finite numbers",
            "repair or remove",
        ),
    ],
    ids=["rate", "bf16", "bf16-no", "weights", "weights-no", "image"],
)
def test_the_likely_cause_is_said(tmp_path, change, cause, fix):
    usual = {
        "batch": BATCH,
        "loss": math.nan,
        "norm": math.nan,
        "rate": 0.5,
        "bf16": False,
        "float32_loss": lambda: 1.0,
        "class_weights": None,
        "step": 3,
        "file": tmp_path / "bad.npz",
    }
    told = usual | change
    error = not_finite(told.pop("batch"), ["first", "second"], **told)
    assert cause in error.given
    assert fix in error.fix


ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    "python": MemoryError(),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_batch_too_large_is_computed_in_pieces(made_data, tmp_path, monkeypatch, name):
    """Without batch normalisation, whose statistics are a piece's, pieces give the whole's weights."""
    assert is_out_of_memory(ERRORS[name])
    results, heard = {}, Heard()
    whole = Learner._loss
    config = SMALL.replace(steps=3, epochs=None, loss="cross_entropy")
    for room in (4, 1):

        def loss(self, model, batch, room=room):
            if len(batch[0]) > room:
                raise ERRORS[name]
            return whole(self, model, batch)

        monkeypatch.setattr(Learner, "_loss", loss)
        torch.manual_seed(0)
        network = UNet(2, 3, widths=(4, 8), norm="group")
        train(network, made_data, out=tmp_path / str(room), config=config, progress=heard)
        results[room] = network.state_dict()
    assert [line.partition(";")[0] for line in heard.lines if "pieces" in line] == [
        "memory: too little for a batch at once"
    ] * 2
    losses = [json.loads((tmp_path / room / "history.jsonl").read_text())["loss"] for room in "41"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # Adam hides the scale of gradients
    for key, value in results[4].items():
        assert torch.allclose(value, results[1][key], atol=1e-3), key


def test_too_little_memory_for_one_crop_is_said(made_data, tmp_path, monkeypatch):
    def loss(self, model, batch):
        raise ERRORS["cuda"]

    monkeypatch.setattr(Learner, "_loss", loss)
    with pytest.raises(MachineError, match=r"a step of 1 crops of 32×32.*--batch") as caught:
        train(None, made_data, out=tmp_path / "run", config=SMALL.replace(epochs=4), progress=Quiet())
    assert caught.value.exit_code == 3


def test_other_errors_of_torch_are_not_taken_for_want_of_memory():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def break_loading(monkeypatch, name, how):
    load_sample = Dataset.load

    def load_or_break(self, sample):
        if sample.name == name and torch.utils.data.get_worker_info():
            how()
        return load_sample(self, sample)

    monkeypatch.setattr(Dataset, "load", load_or_break)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "a worker that prepares crops died while reading"),
        (lambda: time.sleep(1000), "a worker that prepares crops gave nothing for 2 s while reading"),
    ],
    ids=["dead", "hanging"],
)
def test_a_worker_that_is_gone_is_named_with_its_image(made_data, tmp_path, monkeypatch, how, said):
    monkeypatch.setattr(batches_module, "HANGING", 2.0)
    heard, others = Heard(), children()
    break_loading(monkeypatch, "03", how)
    with pytest.raises(MachineError, match=said + r".*03\.png; .*resume") as caught:
        train(None, made_data, out=tmp_path / "run", config=SMALL.replace(workers=2), progress=heard)
    assert caught.value.exit_code == 3
    assert any("go on: fullyconv train --resume" in line for line in heard.lines)
    assert children() <= others


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_stops_or_is_skipped_and_counted(made_data, tmp_path, monkeypatch, workers):
    def cut(self, sample):
        if sample.name == "03":
            raise ImageError("images/03.png, which is cut off", "a whole file", "restore it")
        return load_sample(self, sample)

    load_sample = Dataset.load
    config = SMALL.replace(epochs=1, workers=workers)
    data = split_dataset(open_dataset(made_data), seed=0)
    assert "03" in {sample.name for sample in data.split("train")}
    heard = Heard()
    monkeypatch.setattr(Dataset, "load", cut)
    monkeypatch.setattr(
        "fullyconv.training.networks.channel_statistics", lambda *_, **__: ([90.0] * 3, [40.0] * 3)
    )
    with pytest.raises(DataError, match=r"images/03\.png, which is cut off"):
        train(None, data, out=tmp_path / "stopped", config=config, progress=heard)
    assert any("go on: fullyconv train --resume" in line for line in heard.lines)
    skipping = config.replace(on_error="skip")
    train(None, data, out=tmp_path / "skipped", config=skipping, progress=heard)
    assert "skipped, for they cannot be read: 03" in heard.lines
    row = json.loads((tmp_path / "skipped" / "history.jsonl").read_text())
    assert row["skipped_images"] == 1
    monkeypatch.setattr(Dataset, "load", load_sample)
    again = resume(tmp_path / "stopped", data=data, progress=Quiet())  # the file is restored
    assert again.steps == row["step"]


def children():
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
