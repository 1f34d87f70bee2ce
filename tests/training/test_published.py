"""The published U-Net through the whole loop: context around crops, border weights, mirrored validation."""

import dataclasses

import numpy as np
import PIL.Image
import pytest
import torch

from fullyconv.datasets import AUGMENTATIONS, AugmentConfig, CropSampler, open_dataset
from fullyconv.errors import ConfigError
from fullyconv.images import read_image
from fullyconv.inference import predict
from fullyconv.models import UNet, load
from fullyconv.progress import Quiet
from fullyconv.training import NETWORKS, RECIPES, TrainConfig, train
from fullyconv.training import choices as choices_module
from fullyconv.training.border import BorderWeights
from fullyconv.training.choices import choose_augmentation, choose_plan
from fullyconv.training.networks import choose_network


class Heard(Quiet):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def touching(tmp_path_factory):
    """Six images of two discs each with a gap of three pixels; the first also says which disc is which."""
    root = tmp_path_factory.mktemp("touching")
    for folder in ("images", "masks", "instances"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        height, width = rng.integers(50, 70, 2)
        rows, columns = np.mgrid[:height, :width]
        instances = np.zeros((height, width), np.uint8)
        for index, column in enumerate((15, 36)):
            instances[(rows - 25) ** 2 + (columns - column) ** 2 <= 9**2] = index + 1
        image = rng.normal(60, 15, (height, width)) + (instances > 0) * 90
        PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"images/{number}.png")
        PIL.Image.fromarray(((instances > 0) * 255).astype(np.uint8)).save(root / f"masks/{number}.png")
        if number == 0:
            instances[instances == 2] = 1  # one object of two parts: no gap to weigh
            PIL.Image.fromarray(instances).save(root / f"instances/{number}.png")
    return open_dataset(root)


def all_training(dataset):
    samples = tuple(dataclasses.replace(sample, split="train") for sample in dataset.samples)
    return dataclasses.replace(dataset, samples=samples)


def brute_force(instances, w0, sigma):
    """w0 · exp(−(d1 + d2)² / 2σ²) between objects, by the distance to every pixel of every object."""
    added = np.zeros(instances.shape)
    objects = [np.argwhere(instances == number) for number in np.unique(instances[instances > 0])]
    if len(objects) < 2:
        return added
    for place in np.argwhere(instances == 0):
        near = sorted(np.sqrt(((each - place) ** 2).sum(1).min()) for each in objects)
        added[tuple(place)] = w0 * np.exp(-((near[0] + near[1]) ** 2) / (2 * sigma**2))
    return added


@pytest.mark.parametrize("warp", [0.0, 1.0])
def test_weights_of_crops_equal_the_formula(touching, warp):
    samples = touching.samples
    weigh = BorderWeights.balanced(touching, samples, w0=10.0, sigma=5.0)
    counts = np.sum([touching.pixels[sample.name] for sample in samples], 0)
    balance = counts.sum() / (2 * counts)
    assert weigh.class_weights == pytest.approx(tuple(balance))
    expected = {}
    for number, sample in enumerate(samples):
        labels = touching.load(sample)[1]
        columns = np.arange(labels.shape[1])[None]
        instances = np.where(labels > 0, np.where((columns > 25) & (number > 0), 2, 1), 0)
        expected[sample.name] = balance[labels] + brute_force(instances, 10.0, 5.0)
        assert weigh(sample, labels) == pytest.approx(expected[sample.name], abs=1e-4)
    assert expected["0"].max() < 5  # its two discs are one object
    assert expected["1"].max() > 8

    config = dataclasses.replace(AUGMENTATIONS["published"]((24, 24)), margin=6, warp=warp)
    sampler = CropSampler(touching, samples, config, seed=0, length=12, weigh=weigh)
    for item, chosen in enumerate(sampler.schedule(0)):
        crop, labels, weights = sampler[item]
        assert crop.shape == (1, 36, 36)
        assert labels.shape == weights.shape == (24, 24)
        of_image = np.unique(expected[samples[chosen].name].astype(np.float32).round(3))
        assert np.isin(weights.numpy().round(3), of_image).mean() > 0.99
        assert (weights[labels == 1] == np.float32(balance[1])).all()


def test_a_published_unet_learns_discs_and_predicts_them_in_tiles(made_data, tmp_path, monkeypatch):
    monkeypatch.setattr(choices_module, "LEAST_STEPS", 20)
    config = RECIPES["unet-published"].replace(
        widths=(4, 8, 8, 8, 8), batch=2, epochs=4, precision="f32", learning_rate=1e-2, average=0.9
    )
    config = config.replace(augment=AUGMENTATIONS[config.variation]((40, 40)))
    heard = Heard()
    result = train(None, made_data, out=tmp_path / "run", config=config, progress=heard)
    assert result.evaluation.scores.mean_iu > 0.75
    assert result.evaluation.scores.mean_iu > result.evaluation.constant.mean_iu + 0.2

    model = load(result.model)
    assert isinstance(model, UNet)
    assert (model.margin, model.stride) == (92, 16)
    assert model.provenance.training_size == (236, 236)
    said = "\n".join(heard.lines)
    assert "unpadded network: 236×236 seen, 52×52 scored" in said
    assert "w0 10 (--border-weight), objects from instances/ for 0 of 10 images" in said

    image = read_image(made_data / "images" / "03.png")
    whole = predict(model, image, precision="f32", tile=None, probabilities=True)
    tiled = predict(model, image, precision="f32", tile=220, probabilities=True)
    assert whole.labels.shape == image.shape[:2]
    assert np.abs(whole.probabilities - tiled.probabilities).max() < 1e-5


def test_every_network_can_be_chosen_and_has_a_recipe(made_data):
    dataset = all_training(open_dataset(made_data))
    assert NETWORKS.keys() == RECIPES.keys()
    for name, recipe in RECIPES.items():
        assert recipe.network == name
        assert recipe.variation in AUGMENTATIONS
        network = choose_network(dataset, recipe.replace(widths=(4, 4)), Quiet())
        assert network.normalization.mean[0] == pytest.approx(72, abs=5)
        assert len(network.classes) == 2
    with pytest.raises(ConfigError, match=r"'lenet'; expected one of .*unet, unet-published"):
        choose_network(dataset, TrainConfig(network="lenet"), Quiet())


def test_the_published_widths_are_the_default_of_the_published_network(made_data, monkeypatch):
    dataset = all_training(open_dataset(made_data))
    with torch.device("meta"):
        monkeypatch.setattr("fullyconv.training.networks.channel_statistics", lambda *_, **__: ([0.0], [1.0]))
        network = choose_network(dataset, RECIPES["unet-published"], Quiet())
    assert network.architecture == UNet.published(2, 3).architecture


def test_crops_are_enlarged_to_what_the_network_takes(touching):
    plain = TrainConfig(precision="f32", augment=AugmentConfig(crop=(50, 47), margin=3))
    for network, crop, margin in (
        (UNet(2, 1, widths=(2, 2)), (50, 47), 0),
        (UNet(2, 1, widths=(2, 2, 2), padding="valid"), (52, 48), 20),
    ):
        plan = choose_plan(network, all_training(touching), plain, torch.device("cpu"), Quiet())
        assert (plan.augment.crop, plan.augment.margin) == (crop, margin)
        assert network(torch.zeros(1, 1, *plan.augment.image_size)).shape[2:] == crop


def test_variations_by_name_keep_the_turns(made_data):
    dataset = open_dataset(made_data)
    chosen = choose_augmentation(
        dataset, seed=0, progress=Quiet(), crop=64, turns="mirror", variation="published"
    )
    assert (chosen.elastic, chosen.crop) == (10.0, (64, 64))
    assert (chosen.flips, chosen.quarter_turns, chosen.rotation) == ("horizontal", False, 10)
    with pytest.raises(ConfigError, match="variation 'wild'"):
        choose_augmentation(dataset, seed=0, progress=Quiet(), variation="wild")


def test_a_backbone_by_name_is_the_encoder_and_its_weights_bring_their_normalisation(made_data, tmp_path):
    dataset = all_training(open_dataset(made_data))
    config = TrainConfig(backbone="timm:test_resnet")
    network = choose_network(dataset, config, Quiet())
    assert network.backbone.name == "timm:test_resnet"
    assert network.normalization.mean[0] == pytest.approx(72, abs=5)
    torch.save(network.backbone.trunk.state_dict(), tmp_path / "weights.pth")
    heard = Heard()
    again = choose_network(dataset, config.replace(weights=str(tmp_path / "weights.pth")), heard)
    assert again.normalization.mean == network.backbone.normalization[0]
    assert again.architecture.freeze_batch_norm
    first, second = (each.backbone.state_dict() for each in (network, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "normalisation: that of the weights (--normalization)" in heard.lines
    with pytest.raises(ConfigError, match="has its own encoder"):
        choose_network(dataset, config.replace(network="unet-published"), Quiet())
