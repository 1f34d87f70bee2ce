"""Ctrl-C at any step and going on gives the weights of a run without it, whatever there is to remember."""

import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from fullyconv.datasets import AugmentConfig
from fullyconv.errors import ConfigError
from fullyconv.models import FCN, UNet
from fullyconv.progress import Quiet
from fullyconv.training import TrainConfig, read_recipe, resume, train
from fullyconv.training import choices as choices_module
from fullyconv.training import loop as loop_module
from fullyconv.training.checkpoints import Checkpoints

SMALL = TrainConfig(
    epochs=2, batch=4, precision="f32", workers=0, crop=16, augment=AugmentConfig(crop=(32, 32)), patience=9
)

RUNS = {
    "dropout": (lambda: UNet(2, 3, widths=(4, 8), dropout=0.5), SMALL),
    "frozen": (
        lambda: FCN("squeezenet1_1", 2, 16),
        SMALL.replace(frozen_epochs=1, backbone_rate=0.1, batch=2, steps=26),
    ),
    "borders": (
        lambda: UNet(2, 3, widths=(4, 8), padding="valid"),
        SMALL.replace(loss="cross_entropy", border_weight=10.0),
    ),
    "classes": (lambda: UNet(2, 3, widths=(4, 8)), SMALL.replace(class_weights="inverse")),
    "one-crop": (lambda: UNet(2, 3, widths=(4, 8)), SMALL.replace(batch=1, steps=20)),
    "mixed": (lambda: UNet(2, 3, widths=(4, 8)), SMALL.replace(precision="bf16")),
}


class StopAt(Quiet):
    """Ctrl-C, heard at a given report of some task."""

    def __init__(self, task, report):
        self.task, self.left, self.lines = task, report, []

    def say(self, line):
        self.lines.append(line)

    def advance(self, task, done, total, note=""):
        self.left -= task == self.task
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch):
    monkeypatch.setattr(choices_module, "LEAST_STEPS", 6)


def last_state(out):
    state, tensors = Checkpoints(out / "checkpoints").load(Quiet())
    return state, tensors


def require_equal(first, second):
    (a, ours), (b, theirs) = last_state(first), last_state(second)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    timeless = {"seconds": 0.0, "reserved": 0.0}
    assert a.model_copy(update=timeless) == b.model_copy(update=timeless)
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def begun(make, data, out, config, progress):
    torch.manual_seed(1)
    return train(make(), data, out=out, config=config, progress=progress)


@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_goes_on_to_the_same_weights(made_data, tmp_path, name):
    make, config = RUNS[name]
    begun(make, made_data, tmp_path / "whole", config, Quiet())
    for step in (1, 9):
        out = tmp_path / f"stopped-{step}"
        stop = StopAt("training", step)
        with pytest.raises(KeyboardInterrupt):
            begun(make, made_data, out, config, stop)
        assert stop.lines[-1] == (f"SIGINT: stopped at step {step}; go on: fullyconv train --resume {out}")
        resume(out, progress=Quiet())
        require_equal(tmp_path / "whole", out)


def test_a_run_stopped_while_it_validates_validates_again(made_data, tmp_path):
    make, config = RUNS["dropout"]
    begun(make, made_data, tmp_path / "whole", config, Quiet())
    with pytest.raises(KeyboardInterrupt):
        begun(make, made_data, tmp_path / "stopped", config, StopAt("validating", 1))
    state, _ = last_state(tmp_path / "stopped")
    assert state.ending
    assert state.epoch == 0
    resume(tmp_path / "stopped", progress=Quiet())
    require_equal(tmp_path / "whole", tmp_path / "stopped")
    rows = (tmp_path / "stopped" / "history.jsonl").read_text().splitlines()
    assert len(rows) == len((tmp_path / "whole" / "history.jsonl").read_text().splitlines())


def test_the_minutes_that_were_spent_count(made_data, tmp_path, monkeypatch):
    config = SMALL.replace(epochs=None, minutes=10.0)
    make = RUNS["dropout"][0]
    with pytest.raises(KeyboardInterrupt):
        begun(make, made_data, tmp_path / "run", config, StopAt("training", 3))
    # Ten minutes before this sitting: as if they had been spent in the first.
    load = Checkpoints.load
    monkeypatch.setattr(
        Checkpoints,
        "load",
        lambda self, progress: (
            lambda state, tensors: (state.model_copy(update={"seconds": 601.0}), tensors)
        )(*load(self, progress)),
    )
    result = resume(tmp_path / "run", progress=Quiet())
    assert result.steps == 3
    assert result.seconds > 600


def test_the_second_signal_acts_at_once(made_data, tmp_path):
    class Twice(StopAt):
        def advance(self, task, done, total, note=""):
            if task == "training":
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        begun(RUNS["dropout"][0], made_data, tmp_path / "run", SMALL, Twice("", 0))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_checkpoints_take_a_small_share_of_the_time(made_data, tmp_path, monkeypatch):
    saves = []
    save = loop_module.Run.save
    monkeypatch.setattr(loop_module.Run, "save", lambda self: (saves.append(self.clock.step), save(self)))
    clock = [0.0]
    watch = SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(loop_module, "time", watch)  # and nobody else's: event loops ask the real one
    step = loop_module.Run.step

    def slow_step(self, batch, rate):
        clock[0] += 7.0
        return step(self, batch, rate)

    monkeypatch.setattr(loop_module.Run, "step", slow_step)
    begun(RUNS["dropout"][0], made_data, tmp_path / "run", SMALL.replace(epochs=None, steps=30), Quiet())
    # Steps of 7 s and checkpoints that cost nothing: every minute and at each epoch of 11 steps, and the end.
    assert saves == [9, 11, 20, 22, 30]


def test_a_recipe_runs_the_run_again(made_data, tmp_path):
    config = SMALL.replace(widths=(4, 8), augment=None, crop=32, seed=4)
    train(None, made_data, out=tmp_path / "first", config=config, progress=Quiet())
    recipe = read_recipe(tmp_path / "first" / "recipe.toml")
    assert recipe.data == made_data
    train(None, recipe.data, out=tmp_path / "again", config=recipe.config, progress=Quiet())
    require_equal(tmp_path / "first", tmp_path / "again")
    again = read_recipe(tmp_path / "again" / "recipe.toml")
    assert again == recipe


def test_a_folder_where_a_run_did_not_come_to_begin_is_taken(made_data, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "start.safetensors").write_bytes(b"half")
    train(RUNS["dropout"][0](), made_data, out=tmp_path / "run", config=SMALL.replace(epochs=None, steps=1))
    with pytest.raises(ConfigError, match="--resume"):
        train(None, made_data, out=tmp_path / "run", config=SMALL, progress=Quiet())
