"""Recipes are read strictly, and what is written is read back as the same."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullyconv import commands
from fullyconv.datasets import AUGMENTATIONS, AugmentConfig
from fullyconv.errors import ConfigError
from fullyconv.progress import Quiet
from fullyconv.training import Recipe, TrainConfig, read_recipe, write_recipe
from fullyconv.training.recipes import parse_config


def written(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


CONFIGS = st.builds(
    TrainConfig,
    epochs=st.none() | st.integers(1, 10**6),
    minutes=st.none() | st.floats(0.01, 1e6),
    backbone=st.none() | st.text(st.characters(codec="utf-8"), max_size=20),
    widths=st.none() | st.lists(st.integers(1, 999), min_size=1, max_size=5).map(tuple),
    learning_rate=st.floats(1e-12, 100),
    patience=st.none() | st.integers(1, 99),
    precision=st.sampled_from(["auto", "f32", "bf16"]),
    augment=st.none()
    | st.builds(
        AugmentConfig,
        crop=st.tuples(st.integers(1, 999), st.integers(1, 999)),
        scale=st.just((0.5, 2.0)),
        flips=st.sampled_from(["both", "horizontal", "none"]),
        quarter_turns=st.booleans(),
        rotation=st.floats(0, 90),
    ),
)


@given(config=CONFIGS)
@settings(max_examples=60, deadline=None)
def test_a_written_recipe_is_read_back_as_the_same(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "recipe.toml"
    recipe = Recipe(config, Path("/a folder/with 'quotes' \"and\" ümlauts"), None)
    write_recipe(recipe, path)
    assert read_recipe(path) == recipe


def test_every_option_is_written_and_none_is_a_null(tmp_path):
    write_recipe(Recipe(TrainConfig()), tmp_path / "recipe.toml")
    lines = (tmp_path / "recipe.toml").read_text().splitlines()
    names = {line.partition(" = ")[0] for line in lines if " = " in line}
    given = {name for name, value in dataclasses.asdict(TrainConfig()).items() if value is not None}
    assert names == given
    assert lines[0].startswith("# fullyconv train --recipe")


def test_part_of_an_augmentation_changes_the_variation(tmp_path):
    path = written(tmp_path, 'variation = "published"\ncrop = 64\n[augment]\nrotation = 3\n')
    config = read_recipe(path, ["augment.shear=0.5", "learning_rate = 0.1"]).config
    expected = dataclasses.replace(AUGMENTATIONS["published"]((64, 64)), rotation=3.0, shear=0.5)
    assert (config.augment, config.learning_rate) == (expected, 0.1)


def test_paths_count_from_the_folder_of_the_recipe(tmp_path):
    recipe = read_recipe(written(tmp_path, 'data = "images"\nclasses = "/abs/classes.toml"\n'))
    assert (recipe.data, recipe.classes) == (tmp_path / "images", Path("/abs/classes.toml"))


@pytest.mark.parametrize(
    ("text", "given", "fix"),
    [
        ("learning_rte = 0.1", "learning_rte", "did you mean learning_rate?"),
        ("[augment]\nrotations = 3", "augment.rotations", "did you mean augment.rotation?"),
        ('epochs = "ten"', "epochs = 'ten'", "correct it"),
        ("epochs = 1.5", "epochs = 1.5", "correct it"),
        ("augment = 3", "augment = 3", "[augment]"),
        ("batch = 0", "batch = 0", "--batch"),
        ("precision = 'f16'", "precision = 'f16'", "correct it"),
        ("[augment]\nshear = -1", "shear = -1", "correct it"),
        ("variation = 'wild'\n[augment]", "variation 'wild'", "choose one"),
        ("epochs = ", "Invalid value", "recipe.toml"),
        ("epochs = 2026-01-01", "epochs = '2026-01-01'", "correct it"),
    ],
)
def test_what_is_wrong_is_named_with_its_nearest(tmp_path, text, given, fix):
    with pytest.raises(ConfigError) as caught:
        read_recipe(written(tmp_path, text))
    assert given in caught.value.given
    assert fix in caught.value.fix


def test_a_recipe_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("line", ["rotation", "= 3", "a b = 3"])
def test_a_setting_that_is_none_is_refused(line):
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_config({}, [line])


class Trained(Exception):  # noqa: N818  # an answer, not a fault
    pass


@pytest.fixture
def told(monkeypatch):
    """What the command line would train with."""

    def train(model, data, *, out, config, classes, progress):
        raise Trained(config, data)

    monkeypatch.setattr("fullyconv.training.train", train)

    def tell(*data, **options):
        with pytest.raises(Trained) as caught:
            commands.train(*data, out=Path("run"), progress=Quiet(), **options)
        return caught.value.args

    return tell


def test_options_beside_a_recipe_win(tmp_path, told):
    path = written(
        tmp_path, 'data = "images"\nepochs = 7\nbatch = 3\nnetwork = "fcn8s"\n[augment]\nshear = 0.4\n'
    )
    config, data = told(recipe=path, batch=5, crop=99, settings=("clip=2.0", "augment.blur=0.0"))
    assert data == tmp_path / "images"
    assert (config.epochs, config.batch, config.network, config.clip) == (7, 5, "fcn8s", 2.0)
    assert (config.augment.crop, config.augment.shear, config.augment.blur) == ((99, 99), 0.4, 0.0)
    config, data = told(Path("other"), recipe=path, turns="none")
    assert (data, config.augment, config.turns) == (Path("other"), None, "none")


def test_settings_change_any_field(told):
    config, _ = told(
        Path("data"), settings=("weight_decay=0.5", 'loss="dice"', "widths=[3, 4]"), model="unet-published"
    )
    assert (config.weight_decay, config.loss, config.widths) == (0.5, "dice", (3, 4))
    assert config.border_weight == 10.0  # the network's usual
    config, _ = told(Path("data"), weights="none")
    assert config.weights is None
    assert math.isclose(config.validation, 0.2)


def test_text_needs_no_quotes_since_shells_take_them_away(told):
    settings = ("compile=off", "loss = cross_entropy + 0.5*dice", "weights=none.safetensors", "cache='disk'")
    config, _ = told(Path("data"), settings=(*settings, "average=0.5"))
    assert (config.compile, config.loss, config.cache) == ("off", "cross_entropy + 0.5*dice", "disk")
    assert (config.weights, config.average) == ("none.safetensors", 0.5)
    for line in ("epochs=nan", "epochs=true", "compile=of", "a b=off"):
        with pytest.raises(ConfigError):
            told(Path("data"), settings=(line,))


def test_without_data_or_folder_both_ways_are_said():
    with pytest.raises(ConfigError, match=r"no data; .*--resume RUN"):
        commands.train(out=Path("run"), progress=Quiet())
    with pytest.raises(ConfigError, match="no folder for the run"):
        commands.train(Path("data"), progress=Quiet())
