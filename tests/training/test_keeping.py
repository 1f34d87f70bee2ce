"""Where decoded images are kept: by what there is room for, said, and without a trace in the weights."""

from types import SimpleNamespace

import pytest
import torch

from fullyconv.datasets import AugmentConfig, decoded_bytes, open_dataset, split_dataset
from fullyconv.errors import ConfigError
from fullyconv.models import load
from fullyconv.progress import Quiet
from fullyconv.training import TrainConfig, train
from fullyconv.training import preparation as preparation_module
from fullyconv.training.preparation import keeping
from fullyconv.training.recipes import parse_config


class Heard(Quiet):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.mark.parametrize(
    ("cache", "memory", "disk", "said", "on_disk", "bytes_kept"),
    [
        ("auto", 5, 0, "kept in memory", False, 1.0),
        ("auto", 3, 3, "kept on the disk", True, 1.0),
        ("auto", 2, 1, "2 are|more than fits", False, 0.5),
        ("memory", 0, 0, "kept in memory", False, 1.0),
        ("disk", 9, 0, "kept on the disk", True, 1.0),
        ("none", 9, 9, "decoded for every crop", False, 0.0),
    ],
)
def test_the_first_place_with_room_is_taken_and_said(
    made_data, tmp_path, monkeypatch, cache, memory, disk, said, on_disk, bytes_kept
):
    dataset = split_dataset(open_dataset(made_data), seed=0)
    size = decoded_bytes(dataset, dataset.split("train"))
    assert size > 0
    monkeypatch.setattr(preparation_module, "available", lambda device: memory * size)
    monkeypatch.setattr(
        preparation_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=disk * size)
    )
    heard = Heard()
    found = keeping(dataset, TrainConfig(cache=cache), tmp_path, heard)
    assert found["cache_folder"] == (tmp_path if on_disk else None)
    assert found["cache_bytes"] == pytest.approx(bytes_kept * size, abs=1)
    assert len(heard.lines) == 1
    assert "(--set cache)" in heard.lines[0]
    assert any(words in heard.lines[0] for words in said.split("|"))


def test_processes_of_one_machine_share_its_memory(made_data, tmp_path, monkeypatch):
    dataset = split_dataset(open_dataset(made_data), seed=0)
    size = decoded_bytes(dataset, dataset.split("train"))
    monkeypatch.setattr(preparation_module, "available", lambda device: 5 * size)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert keeping(dataset, TrainConfig(), tmp_path, Quiet())["cache_folder"] == tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_the_weights_do_not_tell_where_images_were_kept(made_data, tmp_path, workers):
    config = TrainConfig(
        steps=2,
        widths=(4, 4),
        batch=4,
        precision="f32",
        workers=workers,
        augment=AugmentConfig(crop=(32, 32)),
    )
    weights = []
    for cache in ("none", "memory", "disk"):
        out = tmp_path / cache
        train(None, made_data, out=out, config=config.replace(cache=cache), progress=Quiet())
        weights.append(load(out / "model.safetensors").state_dict())
        assert {path.name for path in out.iterdir()} >= {"model.safetensors", "recipe.toml"}
        assert not list(out.glob("tmp*"))
    for other in weights[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in weights[0].items())


def test_another_place_is_refused():
    with pytest.raises(ConfigError, match="cache"):
        parse_config({}, ['cache = "tape"'])
