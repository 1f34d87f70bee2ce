"""Classifiers by name and file: what is read, what is refused, and where missing weights belong."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from fullyconv.classifiers import load_classifier
from fullyconv.errors import ConfigError, MachineError, ModelFileError, SurgeryError
from fullyconv.models import Normalization, UNet, save
from fullyconv.models.dense import build_classifier

SMALL = "timm/test_resnet"


def weights_of(classes=7, name="test_resnet"):
    torch.manual_seed(classes)
    return build_classifier("timm", name, classes).state_dict()


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(weights_of(), path)
    return path


@pytest.mark.parametrize(
    ("name", "library", "size", "mean"),
    [
        ("squeezenet1_1", "torchvision", 224, 123.675),
        ("torchvision/squeezenet1_1", "torchvision", 224, 123.675),
        ("efficientnet_b1", "torchvision", 240, 123.675),
        ("timm/test_resnet", "timm", 160, 127.5),
        ("timm/test_resnet.r160_in1k", "timm", 160, 127.5),
        ("test_resnet", "timm", 160, 127.5),
        ("timm/inception_v3", "timm", 299, 127.5),
    ],
)
def test_a_name_brings_size_normalisation_and_class_names(name, library, size, mean):
    classifier = load_classifier(name, weights="none")
    assert classifier.library == library
    assert classifier.input_size == (size, size)
    assert classifier.normalization.mean[0] == pytest.approx(mean)
    assert classifier.classes == len(classifier.class_names) == 1000
    assert classifier.class_names[281] == "tabby"
    assert not classifier.module.training


def test_googlenet_sees_what_torchvision_s_own_pretrained_form_sees():
    own = models.googlenet(weights=None, transform_input=True, init_weights=False).eval()
    with torch.no_grad():
        for name, tensor in own.state_dict().items():
            if name.endswith("running_var"):
                tensor.fill_(0.02)  # so that an untrained network does not fade its input away
    load = load_classifier("googlenet", weights="none")
    load.module.load_state_dict({k: v for k, v in own.state_dict().items() if not k.startswith("aux")})
    image = torch.rand(1, 3, 64, 64) * 255
    preset = models.GoogLeNet_Weights.DEFAULT.transforms()
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (preset.mean, preset.std))
    ours_mean, ours_std = (
        torch.tensor(part).view(1, 3, 1, 1) for part in (load.normalization.mean, load.normalization.std)
    )
    with torch.no_grad():
        expected = own((image / 255 - mean) / std)
        got = load.module((image - ours_mean) / ours_std)
    assert expected.std() > 0
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_auxiliary_heads_in_a_file_are_left_out(tmp_path):
    state = models.googlenet(weights=None, num_classes=4, init_weights=False, aux_logits=True).state_dict()
    save_file(state, tmp_path / "g.safetensors")
    classifier = load_classifier("googlenet", weights=tmp_path / "g.safetensors")
    assert classifier.classes == 4
    assert torch.equal(classifier.module.state_dict()["fc.weight"], state["fc.weight"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    ],
    ids=["plain", "state_dict", "model", "parallel"],
)
@pytest.mark.parametrize("suffix", [".pt", ".anything"])
def test_torch_files_of_tensors_are_read(tmp_path, wrap, suffix):
    state = weights_of(5)
    torch.save(wrap(state), tmp_path / f"w{suffix}")
    classifier = load_classifier(SMALL, weights=tmp_path / f"w{suffix}")
    assert (classifier.classes, classifier.class_names) == (5, None)
    for name, tensor in classifier.module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_safetensors_are_read_and_options_override(weights):
    gray = Normalization((1.0,), (2.0,))
    names = list("abcdefg")
    classifier = load_classifier(SMALL, weights=weights, input_size=96, normalization=gray, class_names=names)
    assert classifier.input_size == (96, 96)
    assert classifier.normalization == gray
    assert classifier.class_names == tuple(names)
    with pytest.raises(ConfigError, match="2 class names for a classifier of 7"):
        load_classifier(SMALL, weights=weights, class_names=["a", "b"])


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, writer):
    trap = tmp_path / "sprung"
    content = {"weight": torch.zeros(1), "trap": Trap(trap)}
    path = tmp_path / "w.pt"
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ModelFileError, match="save_file"):
        load_classifier(SMALL, weights=path)
    assert not trap.exists()


def test_a_whole_pickled_network_is_refused(tmp_path):
    torch.save(build_classifier("timm", "test_resnet", 3), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="run code"):
        load_classifier(SMALL, weights=tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04 not really", b"\x80", (2**40).to_bytes(8, "little") + b"{}"]
)
def test_what_is_no_file_of_weights_is_named(tmp_path, content):
    path = tmp_path / "w.bin"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"w\.bin"):
        load_classifier(SMALL, weights=path)


def test_a_missing_file_and_a_list_are_named(tmp_path):
    with pytest.raises(ModelFileError, match="No such file"):
        load_classifier(SMALL, weights=tmp_path / "none.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(ModelFileError, match="holds a list"):
        load_classifier(SMALL, weights=tmp_path / "list.pt")


def test_every_difference_is_listed_at_once(tmp_path):
    state = weights_of()
    del state["fc.bias"]
    state["conv1.0.weight"] = torch.zeros(9, 9, 3, 3)
    state["surplus"] = torch.zeros(2)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SurgeryError) as caught:
        load_classifier(SMALL, weights=tmp_path / "w.safetensors")
    for name in ("fc.bias", "conv1.0.weight", "surplus", "timm/test_resnet"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("squeezenet1_2", "torchvision/squeezenet1_1"),
        ("timm/resnt18", "timm/resnet18"),
        ("keras/resnet18", "timm/resnet18"),
        ("resnet18.safetensors", "one of resnet18.a1_in1k"),
        ("timm/test_resnet.mine", "r160_in1k"),
        ("hf-hub:someone/model", "resnet18"),
    ],
)
def test_an_unknown_name_brings_near_ones(name, near):
    with pytest.raises(ConfigError, match=near):
        load_classifier(name, weights="none")


def test_torchvision_s_cache_is_used_and_named_where_it_is_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_, **__):
        raise URLError("offline")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    file = Path(models.SqueezeNet1_1_Weights.DEFAULT.url).name
    with pytest.raises(MachineError) as caught:
        load_classifier("squeezenet1_1")
    place = tmp_path / "hub" / "checkpoints" / file
    for said in (str(place), "offline", "--weights FILE", models.SqueezeNet1_1_Weights.DEFAULT.url):
        assert said in str(caught.value)
    state = build_classifier("torchvision", "squeezenet1_1", 1000).state_dict()
    torch.save(state, place)
    got = load_classifier("squeezenet1_1").module.state_dict()
    assert torch.equal(got["features.0.weight"], state["features.0.weight"])


def test_timm_s_hub_is_named_where_it_cannot_be_reached(monkeypatch):
    def offline(name, pretrained, **_):
        assert pretrained
        raise OSError(f"no network for {name}")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(MachineError) as caught:
        load_classifier("timm/resnet18.a1_in1k")
    for said in ("timm/resnet18.a1_in1k", "model.safetensors", "hf download", "--weights FILE"):
        assert said in str(caught.value)


def test_a_model_file_gives_the_classifier_back(tmp_path, weights):
    first = load_classifier(SMALL, weights=weights, input_size=64, class_names=list("abcdefg"))
    save(first.to_model(output_stride=8), tmp_path / "m.safetensors")
    again = load_classifier(tmp_path / "m.safetensors")
    for field in ("library", "name", "input_size", "channels", "classes", "normalization", "class_names"):
        assert getattr(again, field) == getattr(first, field)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.module(image), first.module(image))
    with pytest.raises(ConfigError, match="weights besides"):
        load_classifier(tmp_path / "m.safetensors", weights=weights)


def test_other_files_are_refused_with_a_way_on(tmp_path, weights):
    save(UNet(2, widths=(4, 8)), tmp_path / "unet.safetensors")
    with pytest.raises(ConfigError, match="kind 'unet'"):
        load_classifier(tmp_path / "unet.safetensors")
    with pytest.raises(ModelFileError, match="--weights"):
        load_classifier(weights)
