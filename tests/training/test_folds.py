"""Every image validates once, and a cross-validation goes on where it was."""

import pytest

from fullyconv import commands
from fullyconv.datasets import open_dataset
from fullyconv.errors import ConfigError
from fullyconv.progress import Quiet
from fullyconv.training import cross_validate
from fullyconv.training import folds as folds_module
from fullyconv.training.folds import divide


@pytest.mark.parametrize("folds", [2, 5, 12])
def test_every_image_validates_once(made_data, folds):
    dataset = open_dataset(made_data)
    seen = [{sample.name for sample in fold.split("val")} for fold in divide(dataset, folds, seed=1)]
    assert len(seen) == folds
    assert sorted(name for names in seen for name in names) == sorted(s.name for s in dataset.samples)
    assert max(map(len, seen)) - min(map(len, seen)) <= 1
    for fold in divide(dataset, folds, seed=1):
        assert not {s.name for s in fold.split("train")} & {s.name for s in fold.split("val")}


@pytest.mark.parametrize("folds", [1, 13])
def test_folds_that_cannot_be_are_refused(made_data, tmp_path, folds):
    with pytest.raises(ConfigError, match=f"{folds} folds of 12 images; expected 2 to 12"):
        cross_validate(made_data, folds=folds, out=tmp_path, progress=Quiet())


def test_a_cross_validation_goes_on_and_sums_up(made_data, tmp_path, monkeypatch):
    options = {
        "folds": 2,
        "epochs": 1,
        "widths": (4, 8),
        "batch": 4,
        "crop": 32,
        "precision": "f32",
        "workers": 0,
        "turns": "all",
        "out": tmp_path / "folds",
        "progress": Quiet(),
    }
    train, begun = folds_module.train, []

    def train_once(*a, out, **k):
        begun.append(out.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return train(*a, out=out, **k)

    monkeypatch.setattr(folds_module, "train", train_once)
    with pytest.raises(KeyboardInterrupt):
        commands.train(made_data, **options)
    folds = commands.train(made_data, **options)
    assert begun == ["fold-1", "fold-2", "fold-2"]
    summary = folds.to_dict()
    assert summary["mean_iu"] == pytest.approx(sum(folds.mean_ius) / 2)
    assert len(summary["folds"]) == 2
    assert str(tmp_path / "folds" / "fold-2" / "model.safetensors") in str(folds)
