import shutil

import pytest

from fullyconv.datasets import open_dataset
from fullyconv.errors import ConfigError
from fullyconv.reports import read_run


def test_a_run_is_its_configuration_history_and_split(report_run, report_data):
    run = read_run(report_run)
    assert run.name == "first <i>run"
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    dataset = run.divided(open_dataset(report_data))
    assert sorted(sample.name for sample in dataset.split("val")) == sorted(run.splits["val"])
    assert len(dataset.split("train")) == 3


@pytest.mark.parametrize("missing", ["recipe.toml", "history.jsonl", "model.safetensors"])
def test_what_is_no_run_is_refused_by_what_it_lacks(report_run, tmp_path, missing):
    shutil.copytree(report_run, tmp_path / "run")
    (tmp_path / "run" / missing).unlink()
    with pytest.raises(ConfigError, match=f"no {missing} in it"):
        read_run(tmp_path / "run")


def test_a_damaged_recipe_is_refused(report_run, tmp_path):
    shutil.copytree(report_run, tmp_path / "run")
    (tmp_path / "run" / "recipe.toml").write_text("loss = \n")
    with pytest.raises(ConfigError, match="a recipe in TOML"):
        read_run(tmp_path / "run")


def test_a_damaged_history_is_refused(report_run, tmp_path):
    shutil.copytree(report_run, tmp_path / "run")
    (tmp_path / "run" / "history.jsonl").write_text('{"epoch": 1\n')
    with pytest.raises(ConfigError, match="the folder of a run"):
        read_run(tmp_path / "run")


def test_other_data_is_refused(report_run, made_data):
    with pytest.raises(ConfigError, match=r"3 of the images that .* validated on are not in"):
        read_run(report_run).divided(open_dataset(made_data))
