"""Backbones: maps of the strides they say, at any size; weights in, strictly; other channels."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fullyconv.backbones import (
    SOURCES,
    Backbone,
    _maps,
    build_backbone,
    is_backbone_name,
    torchvision_network,
)
from fullyconv.backbones._weights import adapt_channels
from fullyconv.errors import ConfigError, MachineError, ModelFileError, SurgeryError
from fullyconv.models._ladder import measured_grids

NAMES: dict[str, tuple[int, ...]] = {
    "vgg16": (2, 4, 8, 16, 32),
    "alexnet": (8, 16, 32),
    "resnet18": (2, 4, 8, 16, 32),
    "resnet34": (2, 4, 8, 16, 32),
    "resnet50": (2, 4, 8, 16, 32),
    "mobilenet_v2": (2, 4, 8, 16, 32),
    "squeezenet1_1": (2, 4, 8, 16),
    "densenet121": (2, 4, 8, 16, 32),
    "efficientnet_b0": (2, 4, 8, 16, 32),
    "convnext_tiny": (4, 8, 16, 32),
    "timm:resnet10t": (2, 4, 8, 16, 32),
    "timm:mobilenetv3_small_050": (2, 4, 8, 16, 32),
    "timm:regnetx_002": (2, 4, 8, 16, 32),
    "timm:convnext_atto": (4, 8, 16, 32),
    "timm:tf_efficientnet_lite0": (2, 4, 8, 16, 32),
    "timm:ghostnet_050": (2, 4, 8, 16, 32),
    "timm:repvgg_a0": (2, 4, 8, 16, 32),
    "timm:selecsls42": (2, 4, 8, 16, 32),  # its map of stride 64 is left out
    "timm:dla46x_c": (1, 2, 4, 8, 16, 32),
}
SMALL = "squeezenet1_1"


def images(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(height * width))


@pytest.fixture(scope="module")
def small() -> Backbone:
    torch.manual_seed(0)
    return build_backbone(SMALL).eval()


@pytest.fixture(params=NAMES)
def named(request: pytest.FixtureRequest) -> tuple[str, Backbone]:
    return request.param, build_backbone(request.param).eval()


@torch.no_grad()
def test_maps_have_the_strides_and_channels_it_says(named: tuple[str, Backbone]) -> None:
    name, backbone = named
    assert backbone.strides == NAMES[name]
    assert backbone.name in (name, f"torchvision:{name}")
    least = backbone.least_size
    for height, width in [(least, least), (least + backbone.strides[-1], 2 * least)]:
        maps = backbone(images(height, width))
        assert tuple(found.shape[1] for found in maps) == backbone.channels
        for found, stride in zip(maps, backbone.strides, strict=True):
            # Unpadded layers lose some; every map still has the coarsest's size times the ratio, about.
            assert 1 <= found.shape[2] <= -(-height // stride)
            assert 1 <= found.shape[3] <= -(-width // stride)
            assert torch.isfinite(found).all()
    assert backbone.least_size % backbone.strides[-1] == 0


def test_known_channels() -> None:
    assert build_backbone("resnet18").channels == (64, 64, 128, 256, 512)
    assert build_backbone("timm:resnet18").channels == (64, 64, 128, 256, 512)
    with torch.device("meta"):
        assert build_backbone("vgg16").channels == (64, 128, 256, 512, 512)


def test_maps_are_those_of_the_classifier_itself() -> None:
    import timm
    import torchvision

    torch.manual_seed(0)
    backbone = build_backbone("resnet18").eval()
    whole = torchvision.models.resnet18().eval()
    whole.load_state_dict(backbone.trunk.state_dict(), strict=False)
    x = images(40, 70)
    stem = whole.relu(whole.bn1(whole.conv1(x)))
    deep = whole.layer4(whole.layer3(whole.layer2(whole.layer1(whole.maxpool(stem)))))
    torch.testing.assert_close(backbone(x)[0], stem)
    torch.testing.assert_close(backbone(x)[-1], deep)

    other = build_backbone("timm:test_resnet").eval()
    features = timm.create_model("test_resnet", features_only=True).eval()
    features.load_state_dict(other.trunk.state_dict(), strict=False)
    for ours, theirs in zip(other(x), features(x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_vgg_gives_the_maps_after_its_poolings_as_in_the_paper() -> None:
    with torch.device("meta"):
        kept = build_backbone("vgg16").trunk
    convolutions = [layer for layer in kept.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 13
    assert not any(isinstance(layer, nn.Linear) for layer in kept.modules())


def test_a_name_in_both_libraries_is_torchvisions() -> None:
    assert list(SOURCES) == ["torchvision", "timm"]
    assert build_backbone("alexnet").name == "torchvision:alexnet"
    assert is_backbone_name("timm:resnet18")
    for name in ("resnet18", "timm:hf-hub:a/b", "torchvision:deeplabv3_resnet50", "os:path", "", ":"):
        assert not is_backbone_name(name)


def test_networks_of_every_kind_can_be_built_without_memory() -> None:
    kinds = {re.match("[a-z]+", name)[0]: name for name in sorted(SOURCES["torchvision"][0](), reverse=True)}  # type: ignore[index]  # every name begins with a letter
    assert len(kinds) > 12
    for name in kinds.values():
        with torch.device("meta"):
            network = torchvision_network(
                name, **({"init_weights": False} if name[:2] in ("go", "in") else {})
            )
        assert {parameter.device.type for parameter in network.parameters()} == {"meta"}, name


def test_unknown_names_are_refused_with_near_ones() -> None:
    with pytest.raises(ConfigError, match="resnet18"):
        build_backbone("resnet81")
    with pytest.raises(ConfigError, match="torchvision or timm"):
        build_backbone("hf-hub:someone/something")


def test_a_network_without_growing_maps_is_refused() -> None:
    with pytest.raises(ConfigError, match="fails on an image of 3 channels"):
        build_backbone("timm:vit_tiny_patch16_224")


# One's own network


class Branches(nn.Module):
    """Maps of strides 1, 2 and 4, a residual sum, a vector at the end."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.same = nn.Conv2d(6, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.down(self.first(x)))
        x = self.last(self.pool(x + self.same(x)))
        return self.head(x.mean((2, 3)))


class GivesMaps(nn.Module):
    channels, strides = (4, 6), (1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.branches = Branches()

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.branches.first(x)
        return [fine, self.branches.down(fine)]


def test_own_layers_are_found_by_the_last_map_at_each_stride() -> None:
    module = Branches()
    backbone = build_backbone(module)
    assert (backbone.strides, backbone.channels, backbone.name) == ((1, 2, 4), (4, 6, 8), None)
    assert "trunk.first.weight" in dict(backbone.named_parameters())
    assert dict(backbone.named_parameters())["trunk.first.weight"] is module.first.weight
    x = images(8, 12)
    torch.testing.assert_close(backbone(x)[0], module.first(x))


def test_own_layers_by_name() -> None:
    module = Branches()
    backbone = build_backbone(module, layers=["down", "pool"])
    assert (backbone.strides, backbone.channels) == ((2, 4), (6, 6))
    torch.testing.assert_close(backbone(images(9, 7))[0], module.down(module.first(images(9, 7))))
    assert "last" not in dict(backbone.trunk.named_children())
    with pytest.raises(ConfigError, match="'nowhere'"):
        build_backbone(module, layers=["nowhere"])
    with pytest.raises(ConfigError, match="coarser than the one before"):
        build_backbone(module, layers=["down", "same"])


def test_own_module_that_gives_maps_is_taken_as_it_is() -> None:
    module = GivesMaps()
    backbone = build_backbone(module)
    assert backbone.trunk is module
    assert (backbone.strides, backbone.channels) == ((1, 2), (4, 6))
    assert build_backbone(backbone) is backbone


def test_own_network_that_cannot_be_traced_is_told_what_to_do() -> None:
    class Deciding(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if len(list(x)) > 5 else 2 * x)

    with pytest.raises(SurgeryError, match="`channels` and `strides`"):
        build_backbone(Deciding())


def test_own_network_of_vectors_is_refused() -> None:
    class Vector(GivesMaps):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x.mean((2, 3))]

    with pytest.raises(ConfigError, match="whose size grows with the image"):
        build_backbone(Vector())


def test_a_copy_computes_the_same_and_shares_nothing(small: Backbone) -> None:
    again = copy.deepcopy(small)
    for ours, theirs in zip(small(images(40, 33)), again(images(40, 33)), strict=True):
        assert torch.equal(ours, theirs)
    assert not {p.data_ptr() for p in small.parameters()} & {p.data_ptr() for p in again.parameters()}


def test_building_changes_no_mode_statistic_or_random_weight() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2, stride=2))
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    build_backbone(module)
    assert [part.training for part in module] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# Weights


def save(tensors: dict[str, Tensor], file: Path) -> Path:
    safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, file)
    return file


def trunk_tensors(name: str = SMALL) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return dict(build_backbone(name).trunk.state_dict())


@pytest.mark.parametrize("name", [SMALL, "timm:test_resnet"])
@pytest.mark.parametrize("form", ["safetensors", "pth", "nested"])
def test_weights_come_from_a_file_and_the_head_is_told(name: str, form: str, tmp_path: Path) -> None:
    tensors = trunk_tensors(name)
    head = {"classifier.1.weight": torch.ones(1000, 512, 1, 1)} if name == SMALL else {}
    head |= {} if name == SMALL else {"fc.bias": torch.ones(1000)}
    file = tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pth'}"
    if form == "safetensors":
        save(tensors | head, file)
    else:
        torch.save({"state_dict": tensors | head} if form == "nested" else tensors | head, file)
    backbone = build_backbone(name, weights=file)
    loaded = backbone.trunk.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())
    assert backbone.notes == (f"left out of {file.name}: {next(iter(head))}, the classifier's head",)
    save(tensors, tmp_path / "trunk.safetensors")
    assert build_backbone(name, weights=tmp_path / "trunk.safetensors").notes == ()


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    tensors = trunk_tensors()
    missing = {name: value for name, value in tensors.items() if name != "features.3.squeeze.bias"}
    with pytest.raises(ModelFileError, match=r"without features\.3\.squeeze\.bias"):
        build_backbone(SMALL, weights=save(missing, tmp_path / "a.safetensors"))
    with pytest.raises(ModelFileError, match=r"with unknown stem\.weight"):
        build_backbone(
            SMALL, weights=save(tensors | {"stem.weight": torch.ones(1)}, tmp_path / "b.safetensors")
        )
    wrong = tensors | {"features.0.bias": torch.ones(3)}
    with pytest.raises(ModelFileError, match=r"features\.0\.bias \(3,\) instead of \(64,\)"):
        build_backbone(SMALL, weights=save(wrong, tmp_path / "c.safetensors"))


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        build_backbone(SMALL, weights=tmp_path / "absent.safetensors")
    for name in ("broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(ModelFileError, match="cannot be read as weights"):
            build_backbone(SMALL, weights=tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelFileError, match="holds a list"):
        build_backbone(SMALL, weights=tmp_path / "list.pth")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


def test_a_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": Harmful()}, "harmful.pth")
    with pytest.raises(ModelFileError):
        build_backbone(SMALL, weights="harmful.pth")
    assert not Path("harm").exists()


def test_imagenet_weights_are_taken_from_where_they_are_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(MachineError, match="no route") as caught:
        build_backbone(SMALL, weights="imagenet")
    file = tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    assert str(file) in caught.value.fix
    torch.save(trunk_tensors(), file)
    build_backbone(SMALL, weights="imagenet")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(MachineError, match=r"timm/resnet18\.a1_in1k/resolve/main/model\.safetensors"):
        build_backbone("timm:resnet18", weights="imagenet")
    with pytest.raises(ConfigError, match="by its name"):
        build_backbone(Branches(), weights="imagenet")


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_real_weights_load(name: str, shared_data: Path) -> None:
    file = next((shared_data / "weights").glob(f"{name}*.safetensors"))
    backbone = build_backbone(name, weights=file)
    assert bool(backbone.notes) == (name == "squeezenet1_1")
    loaded, stored = backbone.trunk.state_dict(), safetensors.torch.load_file(file)
    assert all(torch.equal(value, stored[key]) for key, value in loaded.items())


# Channels


def test_one_channel_is_what_the_network_makes_of_gray() -> None:
    rgb = build_backbone("timm:test_resnet").eval()
    gray = copy.deepcopy(rgb)
    adapt_channels(gray.trunk, 1)
    x = images(33, 40, 1)
    for ours, theirs in zip(gray(x), rgb(x.repeat(1, 3, 1, 1)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_six_channels_are_two_times_rgb(small: Backbone) -> None:
    adapted = copy.deepcopy(small)
    adapt_channels(adapted.trunk, 6)
    x = images(40, 40)
    torch.testing.assert_close(adapted(x.repeat(1, 2, 1, 1))[-1], small(x)[-1], atol=1e-5, rtol=1e-4)


def test_named_backbones_of_other_channels() -> None:
    backbone = build_backbone(SMALL, channels=2)
    assert backbone.image_channels == 2
    assert backbone(images(33, 40, 2))[0].shape[1] == 64
    assert backbone.normalization is not None
    assert len(backbone.normalization[0]) == 2
    with pytest.raises(ConfigError, match="takes 4"):
        adapt_channels(Branches(4), 2)


def test_normalization_is_imagenets_in_raw_units() -> None:
    backbone = build_backbone(SMALL)
    assert backbone.normalization is not None
    mean, std = backbone.normalization
    assert mean == pytest.approx((123.675, 116.28, 103.53))
    assert std == pytest.approx((58.395, 57.12, 57.375))
    one = build_backbone(SMALL, channels=1).normalization
    assert one is not None
    assert one[0] == pytest.approx((sum(mean) / 3,))


# Fully connected layers


class LittleVGG(nn.Module):
    """VGG's form at a hundredth of its size: five poolings, three fully connected layers on 2×2 cells."""

    def __init__(self, side: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in [(3, 4), (4, 4), (4, 6), (6, 6), (6, 8)]:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(8 * side**2, 16),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(16, 12),
            nn.ReLU(),
            nn.Linear(12, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.features(x).flatten(1))
        return result


def test_fully_connected_layers_stay_as_convolutions() -> None:
    torch.manual_seed(0)
    classifier = LittleVGG().eval()
    backbone = build_backbone(classifier, fully_connected=True, published=True).eval()
    assert backbone.strides == (2, 4, 8, 16, 32)
    assert backbone.channels == (4, 4, 6, 6, 12)
    assert backbone.fully_connected
    assert backbone.published
    assert classifier.features[0].padding == (1, 1), "the classifier is left as it was"
    assert [layer.p for layer in backbone.modules() if isinstance(layer, nn.Dropout)] == [0.4, 0.4]
    # 100 pixels of zeros, less the one of padding it had, around the image: a cell's window is 64×64.
    x = images(64, 64)
    padded = nn.functional.pad(x, (99, 99, 99, 99))
    pooled = classifier.features(padded)[..., 3:5, 3:5]
    penultimate = classifier.classifier[:-1](pooled.flatten(1))
    torch.testing.assert_close(backbone(x)[-1][..., 3, 3], penultimate)


def test_fully_connected_layers_keep_the_size_where_not_published() -> None:
    backbone = build_backbone(LittleVGG(3), fully_connected=True).eval()
    assert backbone(images(64, 96))[-1].shape[-2:] == (2, 3)


def test_fully_connected_weights_come_from_the_classifiers_file(tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    whole = torchvision.models.alexnet(num_classes=3)
    file = tmp_path / "alexnet.pth"
    torch.save(whole.state_dict(), file)
    backbone = build_backbone("alexnet", weights=file, fully_connected=True)
    assert torch.equal(backbone.trunk.conv6.weight.flatten(1), whole.classifier[1].weight)
    assert torch.equal(backbone.trunk.conv7.bias, whole.classifier[4].bias)
    assert backbone.notes == (
        "left out of alexnet.pth: classifier.6.weight, classifier.6.bias, the classifier's head",
    )


@pytest.mark.parametrize(
    ("source", "complaint"),
    [("resnet18", "without fully connected"), ("timm:resnet18", "use 'torchvision:resnet18'")],
)
def test_networks_without_fully_connected_layers(source: str, complaint: str) -> None:
    with pytest.raises((SurgeryError, ConfigError), match=complaint):
        build_backbone(source, fully_connected=True)


def test_published_padding_is_that_of_fully_connected_networks() -> None:
    with pytest.raises(ConfigError, match="without fully connected layers"):
        build_backbone("vgg16", published=True)


def test_layers_of_a_named_network_can_be_chosen_but_not_rebuilt_from_the_name() -> None:
    backbone = build_backbone("squeezenet1_1", layers=["features.2", "features.12"])
    assert (backbone.strides, backbone.channels, backbone.name) == ((4, 16), (64, 512), None)
    assert build_backbone("squeezenet1_1").strides == (2, 4, 8, 16)


def test_a_second_backbone_of_a_name_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_backbone("squeezenet1_1")

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("fullyconv.backbones._backbone.read_maps", refuse)
    monkeypatch.setattr("fullyconv.backbones._backbone.least_size", refuse)
    second = build_backbone("squeezenet1_1")
    assert (second.strides, second.least_size) == (first.strides, first.least_size)
    with pytest.raises(AssertionError, match="measured again"):
        build_backbone("squeezenet1_1", channels=5)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "densenet121", "efficientnet_b0", "googlenet", "timm:nf_resnet26", "timm:hrnet_w18_small"],
)
def test_networks_without_values_are_measured_as_those_with(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for device in ("cpu", "meta"):
        monkeypatch.setattr(_maps, "_remembered", {})
        with torch.device(device):
            backbone = build_backbone(name)
            found.append(
                (
                    *(backbone.channels, backbone.strides, backbone.least_size),
                    [(key, tuple(value.shape)) for key, value in backbone.state_dict().items()],
                    measured_grids(backbone, 256),
                )
            )
    assert found[0] == found[1]
