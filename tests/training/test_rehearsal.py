"""What is measured before a run: how long and how large it will be, and how fast it may learn."""

import csv
import json

import pytest

from fullyconv import commands
from fullyconv.datasets import AugmentConfig
from fullyconv.errors import ConfigError
from fullyconv.images import read_image
from fullyconv.models import UNet
from fullyconv.progress import Quiet
from fullyconv.training import TrainConfig, find_rate, rehearse
from fullyconv.training.loop import Run

SMALL = TrainConfig(
    epochs=3, widths=(4, 8), batch=4, precision="f32", workers=0, augment=AugmentConfig(crop=(32, 32))
)


def test_a_dry_run_tells_time_and_memory_and_leaves_nothing(made_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rehearsal = rehearse(None, made_data, config=SMALL, progress=Quiet())
    assert rehearsal.steps == 3 * 32
    assert rehearsal.epochs == 3
    expected = 96 * rehearsal.step_seconds + 5 * rehearsal.validation_seconds
    assert rehearsal.seconds == pytest.approx(expected)
    weights = sum(parameter.numel() for parameter in UNet(2, 3, widths=(4, 8)).parameters())
    assert rehearsal.checkpoint_bytes > 4 * 4 * weights  # weights, their average, two moments
    assert rehearsal.memory > 1e7
    assert "minutes for 96 steps" in str(rehearsal)
    json.dumps(rehearsal.to_dict())
    assert not list(tmp_path.iterdir())


def test_minutes_end_a_rehearsed_run_too(made_data):
    rehearsal = rehearse(None, made_data, config=SMALL.replace(epochs=None, minutes=2.0), progress=Quiet())
    assert rehearsal.seconds == 120
    assert rehearsal.steps * rehearsal.step_seconds < 120


def test_the_suggested_rate_lies_where_the_loss_falls(made_data, tmp_path):
    curve = find_rate(None, made_data, out=tmp_path / "rates", config=SMALL, steps=40, progress=Quiet())
    assert 1e-6 < curve.suggestion < 1
    assert curve.rates[0] == 1e-6
    assert list(curve.rates) == sorted(curve.rates)
    at = max(index for index, rate in enumerate(curve.rates) if rate <= curve.suggestion)
    assert min(curve.losses) < curve.losses[at] <= curve.losses[0] * 1.5
    with curve.table.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["learning_rate", "loss"]
    assert [float(row[1]) for row in rows[1:]] == list(curve.losses)
    assert read_image(tmp_path / "rates" / "rates.png").shape[2] in (3, 4)
    assert "--learning-rate" in str(curve)
    json.dumps(curve.to_dict())


def test_rates_end_where_the_loss_does(made_data, tmp_path, monkeypatch):
    losses = iter([1.0, 0.5, 0.4, 9.0, 9.0, 9.0])
    monkeypatch.setattr(Run, "step", lambda self, batch, rate: next(losses))
    curve = find_rate(None, made_data, out=tmp_path, config=SMALL, steps=100, progress=Quiet())
    assert len(curve.rates) < 7
    assert curve.suggestion == pytest.approx(curve.rates[2] / 10)


def test_a_loss_that_never_falls_is_said(made_data, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "step", lambda self, batch, rate: 1e6 * rate)
    with pytest.raises(ConfigError, match="never fell"):
        find_rate(None, made_data, out=tmp_path, config=SMALL, steps=10, progress=Quiet())


def test_both_are_options_of_train(made_data, tmp_path):
    options = {"widths": (4, 8), "batch": 4, "crop": 32, "precision": "f32", "workers": 0, "turns": "all"}
    rehearsal = commands.train(made_data, dry_run=True, epochs=1, progress=Quiet(), **options)
    assert rehearsal.steps == 32
    with pytest.raises(ConfigError, match="no folder"):
        commands.train(made_data, find_rate=True, progress=Quiet(), **options)
