import json
import math
import shutil

import numpy as np
import PIL.Image
import pytest
import torch

from fullyconv.datasets import AugmentConfig
from fullyconv.errors import ConfigError, DataError, InputError
from fullyconv.images import read_image
from fullyconv.models import UNet, load
from fullyconv.progress import Quiet
from fullyconv.training import TrainConfig, read_recipe, train
from fullyconv.training import choices as choices_module
from fullyconv.training.optimization import parameter_groups, running_average

SMALL = TrainConfig(
    epochs=2, widths=(8, 16), batch=4, precision="f32", workers=0, augment=AugmentConfig(crop=(48, 48))
)


class Heard(Quiet):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch):
    monkeypatch.setattr(choices_module, "LEAST_STEPS", 12)


@pytest.fixture(scope="module")
def run(made_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    heard = Heard()
    config = SMALL.replace(epochs=4)
    return train(None, made_data, out=out, config=config, progress=heard), out, heard


def test_a_run_learns(run):
    result, _, _ = run
    assert result.evaluation.scores.mean_iu > 0.8
    assert result.evaluation.scores.mean_iu > result.evaluation.constant.mean_iu + 0.2


def test_a_run_leaves_a_model_its_history_its_split_and_pictures(run, made_data):
    result, out, _ = run
    model = load(result.model)
    assert model.provenance.scores["mean_iu"] == pytest.approx(result.evaluation.scores.mean_iu)
    assert model.provenance.training_size == (48, 48)
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert history[-1]["epoch"] == result.epochs == 4
    assert max(row["mean_iu"] for row in history) == result.evaluation.scores.mean_iu
    train_names, val_names = (
        (out / "split" / f"{name}.txt").read_text().split() for name in ("train", "val")
    )
    assert sorted(train_names + val_names) == [f"{number:02}" for number in range(12)]
    for folder in ("epoch-1", "last"):
        picture = read_image(out / "overlays" / folder / f"{val_names[0]}.png")
        assert picture.shape[2] == 3
    recipe = read_recipe(out / "recipe.toml")
    assert (recipe.config.batch, recipe.config.epochs, recipe.data) == (4, 4, made_data)


def test_every_choice_is_said_with_its_option(run):
    _, _, heard = run
    said = "\n".join(heard.lines)
    for option in (
        "--widths",
        "--batch",
        "--epochs",
        "--minutes",
        "--workers",
        "--validation",
        "--classes",
        "--normalization",
        "--loss",
        "--learning-rate",
        "--seed",
        "--set cache",
        "--set compile",
    ):
        assert option in said


def test_the_kept_model_is_the_best_of_the_history_again(run, made_data):
    from fullyconv.datasets import open_dataset, split_dataset
    from fullyconv.evaluation import evaluate

    result, _, _ = run
    dataset = split_dataset(open_dataset(made_data), validation=0.2, seed=0)
    again = evaluate(result.model, dataset, split="val")
    assert again.scores.mean_iu == pytest.approx(result.evaluation.scores.mean_iu, abs=1e-6)


def test_the_same_seed_gives_the_same_weights(made_data, tmp_path):
    config = SMALL.replace(epochs=1)
    files = [
        train(None, made_data, out=tmp_path / name, config=config, progress=Quiet()).model for name in "ab"
    ]
    first, second = (load(file).state_dict() for file in files)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_minutes_end_a_run(made_data, tmp_path):
    config = SMALL.replace(epochs=None, minutes=0.1)
    result = train(None, made_data, out=tmp_path / "run", config=config, progress=Quiet())
    assert 4 < result.seconds < 12
    assert result.steps > 0


def test_a_run_that_is_out_of_time_at_once_still_leaves_a_model(made_data, tmp_path):
    config = SMALL.replace(epochs=None, minutes=0.01)
    result = train(None, made_data, out=tmp_path / "run", config=config, progress=Quiet())
    assert 1 <= load(result.model).provenance.steps <= result.steps  # those of the best epoch


def test_runs_of_both_precisions_follow_each_other_in_one_process(made_data, tmp_path):
    for precision in ("f32", "bf16", "f32"):
        config = SMALL.replace(epochs=1, precision=precision)
        out = tmp_path / f"{precision}-{len(list(tmp_path.iterdir()))}"
        assert train(None, made_data, out=out, config=config, progress=Quiet()).steps == 12


def test_a_given_network_is_trained(made_data, tmp_path):
    network = UNet(2, 3, widths=(4, 8))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train(network, made_data, out=tmp_path / "run", config=SMALL.replace(epochs=1), progress=Quiet())
    assert not torch.equal(before["head.weight"], network.state_dict()["head.weight"])


def test_a_folder_in_use_is_refused_and_left_alone(made_data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="a new or an empty folder"):
        train(None, made_data, out=tmp_path, config=SMALL, progress=Quiet())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_network_of_other_classes_is_refused(made_data, tmp_path):
    with pytest.raises(ConfigError, match="a network of 3 classes; expected the 2 of"):
        train(UNet(3, 3, widths=(4, 8)), made_data, out=tmp_path / "run", config=SMALL, progress=Quiet())


def test_a_loss_that_is_no_number_stops_the_run(made_data, tmp_path):
    network = UNet(2, 3, widths=(4, 8))
    with torch.no_grad():
        network.head.bias.fill_(math.nan)
    with pytest.raises(ConfigError, match=r"a loss of nan at step 1; .*--learning-rate"):
        train(network, made_data, out=tmp_path / "run", config=SMALL, progress=Quiet())


def test_bad_data_is_refused_before_training(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    PIL.Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "data" / "images" / "a.png")
    with pytest.raises(DataError):
        train(None, tmp_path / "data", out=tmp_path / "run", config=SMALL, progress=Quiet())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(made_data, tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=f"{tmp_path / 'file'}"):
        train(None, made_data, out=tmp_path / place, config=SMALL, progress=Quiet())
    assert (tmp_path / "file").read_text() == "in the way"


def test_one_crop_a_step_leaves_batch_statistics_alone(made_data, tmp_path):
    network = UNet(2, 3, widths=(4, 8))
    before = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
    heard = Heard()
    config = SMALL.replace(epochs=1, batch=1)
    train(network, made_data, out=tmp_path / "run", config=config, progress=heard)
    assert before
    assert all(torch.equal(value, dict(network.named_buffers())[name]) for name, value in before.items())
    assert any("batch normalisation: kept" in line for line in heard.lines)


def test_rare_classes_weigh_more_when_told(made_data, tmp_path):
    heard = Heard()
    config = SMALL.replace(epochs=1, class_weights="inverse")
    train(None, made_data, out=tmp_path / "run", config=config, progress=heard)
    line = next(line for line in heard.lines if line.startswith("class weights: "))
    background, foreground = (float(part.split()[-1]) for part in line.split(": ")[1].split(","))
    assert foreground > 3 * background
    with pytest.raises(ConfigError, match=r"class_weights = 'most'.*median, inverse"):
        TrainConfig(class_weights="most")


def test_only_weights_decay():
    groups = parameter_groups(UNet(2, 3, widths=(4, 8)), TrainConfig(weight_decay=0.1))
    for group in groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] == 0.1}


@pytest.mark.parametrize(("width", "share"), [(4, 40.0), (64, 2.5), (256, 1.0)])
def test_score_layers_of_few_channels_learn_faster(width, share):
    network = UNet(2, 3, widths=(width, 8, 8), deep_supervision=True)
    scoring = {network.head.weight: share, network.auxiliary_heads[0].weight: 20.0}
    found = {
        parameter: group["share"]
        for group in parameter_groups(network, TrainConfig())
        for parameter in group["params"]
    }
    assert {weight: found[weight] for weight in scoring} == scoring
    assert sum(rate == 1.0 for rate in found.values()) >= len(found) - 4


def test_the_running_average_forgets_its_start_and_copies_counters():
    average, counter = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    update = running_average(0.9)
    for count in range(1, 200):
        update([average], [torch.ones(1)], torch.tensor(count))
        update([counter], [torch.tensor([count])], torch.tensor(count))
    assert average.item() == pytest.approx(1, abs=1e-4)
    assert counter.item() == 199


def test_images_with_a_top_are_not_turned_over(made_data, monkeypatch):
    from fullyconv.datasets import open_dataset

    dataset = open_dataset(made_data)
    for upright, turns in ((True, "mirror"), (False, "all")):
        monkeypatch.setattr(choices_module, "looks_upright", lambda *_, answer=upright, **__: answer)
        heard = Heard()
        chosen = choices_module.choose_augmentation(dataset, seed=0, progress=heard)
        assert chosen.quarter_turns is not upright
        assert chosen.flips == ("horizontal" if upright else "both")
        assert f": {turns}," in heard.lines[0]
        assert "--turns" in heard.lines[0]
        assert heard.lines[1] == "crops: 256×256 (--crop)"
    assert choices_module.choose_augmentation(dataset, seed=0, progress=heard, turns="none").flips == "none"


def test_names_with_folders_are_drawn_into_folders(tmp_path, made_data):
    for split, numbers in (("train", range(6)), ("val", range(6, 8))):
        for folder in ("images", "masks"):
            (tmp_path / "data" / split / folder).mkdir(parents=True)
            for number in numbers:
                name = f"{number:02}.png"
                shutil.copy(made_data / folder / name, tmp_path / "data" / split / folder / name)
    train(None, tmp_path / "data", out=tmp_path / "run", config=SMALL.replace(epochs=1), progress=Quiet())
    assert (tmp_path / "run" / "overlays" / "last" / "val" / "06.png").is_file()


@pytest.mark.parametrize(
    ("seconds", "chosen"), [({"f32": 3.0, "bf16": 1.0}, "bf16"), ({"f32": 1.0, "bf16": 3.0}, "f32")]
)
def test_the_faster_precision_is_chosen_where_bfloat16_is_native(seconds, chosen, monkeypatch):
    class Trial:
        def __init__(self, model, crop, device, precision):
            self.precision = precision

        def step(self):
            return seconds[self.precision]

    monkeypatch.setattr(choices_module, "Trial", Trial)
    monkeypatch.setattr(choices_module, "has_native_bf16", lambda: True)
    heard = Heard()
    pick = choices_module._faster_precision
    assert pick(UNet(2, 3, widths=(4, 8)), (16, 16), torch.device("cpu"), heard) == chosen
    assert heard.lines == [
        f"precision: {chosen}; for a step of two crops f32 {seconds['f32'] * 1000:.0f} ms, "
        f"bf16 {seconds['bf16'] * 1000:.0f} ms (--precision)"
    ]
    monkeypatch.setattr(choices_module, "has_native_bf16", lambda: False)
    assert pick(UNet(2, 3, widths=(4, 8)), (16, 16), torch.device("cpu"), heard) == "f32"
