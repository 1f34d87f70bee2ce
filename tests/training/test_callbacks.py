"""Callbacks and trackers hear all that history says."""

import json

import pytest

from fullyconv.datasets import AugmentConfig
from fullyconv.errors import MachineError
from fullyconv.progress import Quiet
from fullyconv.training import TrainConfig, resume, train

CONFIG = TrainConfig(
    epochs=1, widths=(4, 8), batch=4, precision="f32", workers=0, augment=AugmentConfig(crop=(32, 32))
)


class Heard:
    def __init__(self, stop_at=0):
        self.steps, self.rows, self.stop_at = [], [], stop_at

    def on_step(self, step, loss, learning_rate):
        self.steps.append((step, loss, learning_rate))
        if step == self.stop_at:
            raise RuntimeError("enough")

    def on_epoch(self, row):
        self.rows.append(row)


def test_a_callback_hears_every_step_and_epoch(made_data, tmp_path):
    heard = Heard()
    result = train(None, made_data, out=tmp_path / "run", config=CONFIG, progress=Quiet(), callbacks=[heard])
    assert [step for step, _, _ in heard.steps] == list(range(1, result.steps + 1))
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert heard.rows == rows
    assert heard.rows[0]["loss"] == pytest.approx(sum(loss for _, loss, _ in heard.steps) / result.steps)
    assert max(rate for _, _, rate in heard.steps) <= CONFIG.learning_rate
    assert 0 < heard.rows[0]["compute_share"] <= 1
    assert heard.rows[0]["crops_per_second"] > 0


def test_a_callback_that_raises_ends_a_run_that_goes_on(made_data, tmp_path):
    with pytest.raises(RuntimeError, match="enough"):
        train(
            None,
            made_data,
            out=tmp_path / "run",
            config=CONFIG,
            progress=Quiet(),
            callbacks=[Heard(stop_at=3)],
        )
    heard = Heard()
    resume(tmp_path / "run", progress=Quiet(), callbacks=[heard])
    assert len(heard.rows) == 1


def test_tensorboard_shows_the_curves(made_data, tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="an extra: track"
    )
    config = CONFIG.replace(track=("tensorboard",))
    result = train(None, made_data, out=tmp_path / "run", config=config, progress=Quiet())
    written = events.EventAccumulator(str(tmp_path / "run" / "fullyconv")).Reload()
    assert len(written.Scalars("step_loss")) == result.steps
    assert written.Scalars("mean_iu")[0].step == result.steps
    assert written.Scalars("mean_iu")[0].value == pytest.approx(result.evaluation.scores.mean_iu, abs=1e-5)


def test_a_tracker_that_is_not_there_is_said_before_anything_begins(made_data, tmp_path):
    config = CONFIG.replace(track=("nonsense",))
    with pytest.raises(MachineError, match=r"--track nonsense, which is not installed"):
        train(None, made_data, out=tmp_path / "run", config=config, progress=Quiet())
    assert not (tmp_path / "run").exists()
