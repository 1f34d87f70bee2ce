import pytest
import torch
from safetensors.torch import save_file

from fullyconv.backbones import build_backbone
from fullyconv.datasets import AugmentConfig, open_dataset, split_dataset
from fullyconv.errors import ConfigError
from fullyconv.models import FCN, UNet, load, save
from fullyconv.progress import Quiet
from fullyconv.training import TrainConfig, train
from fullyconv.training import choices as choices_module
from fullyconv.training.networks import NETWORKS, RECIPES, choose_network
from fullyconv.training.optimization import parameter_groups

SMALL = TrainConfig(epochs=1, batch=2, precision="f32", augment=AugmentConfig(crop=(48, 48)))


class Heard(Quiet):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch):
    monkeypatch.setattr(choices_module, "LEAST_STEPS", 3)


@pytest.fixture(scope="module")
def dataset(made_data):
    return split_dataset(open_dataset(made_data), seed=0)


def test_every_network_has_a_recipe_of_its_name():
    assert NETWORKS.keys() == RECIPES.keys()
    assert all(recipe.network == name for name, recipe in RECIPES.items())


@pytest.mark.parametrize(("wanted", "mean"), [("none", 0.0), (None, 255 * 0.485), ("weights", 255 * 0.485)])
def test_the_normalisation_can_be_chosen(dataset, tmp_path, wanted, mean):
    weights = tmp_path / "trunk.safetensors"
    save_file(build_backbone("squeezenet1_1").trunk.state_dict(), weights)
    config = RECIPES["fcn8s"].replace(backbone="squeezenet1_1", weights=str(weights), normalization=wanted)
    assert choose_network(dataset, config, Quiet()).normalization.mean[0] == pytest.approx(mean)
    measured = choose_network(dataset, config.replace(normalization="measured"), Quiet())
    assert measured.normalization == choose_network(dataset, TrainConfig(), Quiet()).normalization


def test_a_normalisation_of_weights_needs_a_network_that_has_some(dataset):
    with pytest.raises(ConfigError, match="normalisation by the weights"):
        choose_network(dataset, TrainConfig(normalization="weights"), Quiet())


@pytest.mark.parametrize("stride", [32, 16, 8, 4])
def test_an_fcn_is_built_by_name_and_said(dataset, stride):
    heard = Heard()
    config = RECIPES[f"fcn{stride}s"].replace(backbone="squeezenet1_1" if stride == 8 else None)
    network = choose_network(dataset, config, heard)
    assert isinstance(network, FCN)
    assert network.finest == stride
    assert any(f"FCN-{stride}s" in line and "--backbone" in line for line in heard.lines)


def test_an_unknown_network_is_refused(dataset):
    with pytest.raises(ConfigError, match=r"network 'vit'; expected one of .*fcn8s"):
        choose_network(dataset, TrainConfig(network="vit"), Quiet())


def test_a_frozen_backbone_stays_and_the_head_learns(made_data, tmp_path):
    network = FCN("squeezenet1_1", 2, 16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = SMALL.replace(frozen_epochs=1)
    train(network, made_data, out=tmp_path / "run", config=config, progress=Quiet())
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("backbone.") for name in changed)


def test_a_backbone_is_trained_after_its_frozen_epochs(made_data, tmp_path):
    network = FCN("squeezenet1_1", 2, 16)
    before = {name: value.clone() for name, value in network.backbone.named_parameters()}
    train(
        network,
        made_data,
        out=tmp_path / "run",
        config=SMALL.replace(epochs=2, frozen_epochs=1),
        progress=Quiet(),
    )
    assert any(not torch.equal(before[name], value) for name, value in network.backbone.named_parameters())


def test_a_network_without_backbone_says_that_nothing_is_frozen(made_data, tmp_path):
    heard = Heard()
    config = SMALL.replace(frozen_epochs=1)
    train(UNet(2, 3, widths=(4, 8)), made_data, out=tmp_path / "run", config=config, progress=heard)
    assert any("no backbone (--frozen-epochs)" in line for line in heard.lines)


def test_the_backbone_has_its_own_rate():
    network = FCN("squeezenet1_1", 2, 16)
    groups = parameter_groups(network, TrainConfig(backbone_rate=0.1))
    inner = set(network.backbone.parameters())
    for group in groups:
        assert {parameter in inner for parameter in group["params"]} == {group["share"] == 0.1}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_going_on_keeps_every_weight_for_the_same_classes(dataset, tmp_path):
    source = UNet(dataset.classes, 3, widths=(4, 8))
    save(source, tmp_path / "m.safetensors")
    network = choose_network(dataset, TrainConfig(start=str(tmp_path / "m.safetensors")), Quiet())
    loaded = load(tmp_path / "m.safetensors").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    "source", [UNet(5, 3, widths=(4, 8)), FCN("squeezenet1_1", 5, 16)], ids=["unet", "fcn"]
)
def test_going_on_with_other_classes_has_a_new_head_and_says_so(dataset, tmp_path, source):
    save(source, tmp_path / "m.safetensors")
    heard = Heard()
    network = choose_network(dataset, TrainConfig(start=str(tmp_path / "m.safetensors")), heard)
    assert network.classes == dataset.classes
    old = source.state_dict()
    new = [name for name, value in network.state_dict().items() if not _same(value, old[name])]
    assert new
    assert all(name.startswith("head") for name in new)
    assert "new for 2 classes in place of 5: " + ", ".join(new) in heard.lines[-1]


def _same(a, b):
    return a.shape == b.shape and torch.equal(a, b)


def test_staged_training_goes_on_with_the_next_finer_skip(dataset, tmp_path):
    source = FCN("squeezenet1_1", dataset.classes, 16).eval()
    torch.nn.init.normal_(source.head.get_parameter(next(name for name, _ in source.head.named_parameters())))
    save(source, tmp_path / "m.safetensors")
    config = TrainConfig(network="fcn8s", start=str(tmp_path / "m.safetensors"))
    finer = choose_network(dataset, config, Quiet()).eval()
    assert finer.finest == 8
    images = torch.rand(1, 3, 70, 90) * 255
    with torch.inference_mode():
        assert torch.allclose(finer(images), source(images), atol=1e-4)


def test_going_on_from_a_model_of_other_images_is_refused(dataset, tmp_path):
    save(UNet(2, 1, widths=(4, 8)), tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match=r"1 channels, uint8; expected 3 channels, uint8"):
        choose_network(dataset, TrainConfig(start=str(tmp_path / "m.safetensors")), Quiet())
