"""Weights move by name and shape; whatever has no place is named, and then nothing moves."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fullyconv.errors import SurgeryError
from fullyconv.surgery.linear import linear_to_conv
from fullyconv.surgery.transplants import transplant


class Classifier(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.classifier = nn.Linear(8, classes)


class Dense(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.classifier = nn.Conv2d(2, classes, 2)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def refusal(source: Any, target: nn.Module, **options: Any) -> str:
    """Return the message of a refused transplant, after checking that nothing was copied."""
    before = state(target)
    with pytest.raises(SurgeryError) as caught:
        transplant(source, target, **options)
    assert_equal(state(target), before)
    return str(caught.value)


def trained(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.randint(1, 100, tensor.shape))
    return network


@settings(max_examples=20, deadline=None)
@given(widths=st.lists(st.integers(1, 4), min_size=2, max_size=5))
def test_twins_become_equal(widths: list[int]) -> None:
    def build() -> nn.Module:
        layers = pairwise(widths)
        return nn.Sequential(
            *[nn.Sequential(nn.Conv2d(a, b, 3), nn.BatchNorm2d(b), nn.ReLU()) for a, b in layers]
        )

    source, target = trained(build()), build()
    report = transplant(source, target)
    assert_equal(state(target), state(source))
    assert report.copied == tuple(source.state_dict())
    assert report.reshaped == report.renamed == report.left == report.kept == ()


def test_a_fully_connected_layer_becomes_the_kernel_linear_to_conv_makes() -> None:
    source, target = trained(Classifier()), Dense()
    report = transplant(source, target)
    assert report.reshaped == ("classifier.weight",)
    assert torch.equal(target.classifier.weight, linear_to_conv(source.classifier, (2, 2)).weight)  # type: ignore[union-attr, arg-type]  # what the test built is known
    assert torch.equal(target.classifier.bias, source.classifier.bias)  # type: ignore[arg-type, union-attr]  # what the test built is known
    assert torch.equal(target.trunk[1].running_mean, source.trunk[1].running_mean)  # type: ignore[index, union-attr]  # what the test built is known


def test_the_target_is_written_in_place_and_the_source_is_not_shared() -> None:
    source, target = trained(Classifier()), Classifier()
    parameter = target.classifier.weight
    transplant(source.state_dict(), target)
    assert target.classifier.weight is parameter
    nn.init.zeros_(source.classifier.weight)  # type: ignore[union-attr, arg-type]  # what the test built is known
    assert parameter.min() >= 1


def test_every_problem_is_named_at_once() -> None:
    source = nn.ModuleDict({"same": nn.Linear(2, 2), "extra": nn.Linear(2, 2), "wide": nn.Linear(4, 2)})
    target = nn.ModuleDict({"same": nn.Linear(2, 2), "missing": nn.Linear(2, 2), "wide": nn.Linear(3, 2)})
    message = refusal(source, target, ignore=["nowhere"], rename={"nothing": "same"})
    for problem in (
        "extra.weight is not in the target",
        "extra.bias is not in the target",
        "missing.weight of the target is not in the source",
        "missing.bias of the target is not in the source",
        "wide.weight is 2×4 in the source, 2×3 in the target",
        "ignore 'nowhere' fits nothing",
        "rename 'nothing' fits nothing",
    ):
        assert problem in message
    assert "same.weight" not in message


@pytest.mark.parametrize(
    ("layer", "place"),
    [
        (nn.Linear(8, 4), nn.Conv2d(4, 4, 2, groups=2)),
        (nn.Linear(16, 2), nn.ConvTranspose2d(2, 4, 2, bias=False)),
        (nn.Linear(8, 4), nn.Conv2d(4, 2, 2)),
        (nn.Conv2d(2, 4, 2), nn.Linear(8, 4)),
        (nn.Linear(4, 2), nn.Linear(2, 4)),
        (nn.BatchNorm2d(4), nn.BatchNorm2d(1)),
    ],
)
def test_equal_counts_alone_explain_nothing(layer: nn.Module, place: nn.Module) -> None:
    message = refusal(nn.Sequential(layer), nn.Sequential(place))
    assert "0.weight is" in message


def test_renaming_moves_everything_below_a_name_and_the_longest_wins() -> None:
    source = nn.ModuleDict(
        {"features": nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), "fc": nn.Linear(1, 1)}
    )
    target = nn.ModuleDict({"trunk": nn.ModuleDict({"0": nn.Linear(1, 1)}), "neck": nn.Linear(1, 1)})
    target["fc"] = nn.Linear(1, 1)
    report = transplant(source, target, rename={"features": "trunk", "features.1": "neck"})
    moved = dict(report.renamed)
    assert moved["features.0.weight"] == "trunk.0.weight"
    assert moved["features.1.bias"] == "neck.bias"
    assert "fc.weight" not in moved
    for old, new in moved.items():
        assert torch.equal(target.state_dict()[new], source.state_dict()[old])


def test_two_sources_for_one_place_are_refused() -> None:
    source = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    message = refusal(source, nn.ModuleDict({"b": nn.Linear(1, 1)}), rename={"a": "b"})
    assert "b.weight and a.weight (renamed to b.weight) both go to the same place" in message


def test_what_is_ignored_stays_on_both_sides() -> None:
    source, target = trained(Classifier(classes=10)), Classifier(classes=3)
    assert "10×8 in the source, 3×8 in the target" in refusal(source, target)
    before = state(target)
    report = transplant(source, target, ignore=["classifier"])
    assert report.left == report.kept == ("classifier.weight", "classifier.bias")
    assert torch.equal(target.classifier.weight, before["classifier.weight"])
    assert torch.equal(target.trunk[0].weight, source.trunk[0].weight)  # type: ignore[index, union-attr]  # what the test built is known
    text = str(report)
    assert text.startswith(f"{len(report.copied)} tensors copied")
    assert "left in the source: classifier.weight, classifier.bias" in text


def test_names_end_at_dots() -> None:
    source = nn.ModuleDict({"fc": nn.Linear(1, 1), "fc2": nn.Linear(1, 1)})
    target = nn.ModuleDict({"fc": nn.Linear(1, 1)})
    assert "fc2.weight is not in the target" in refusal(source, target, ignore=["fc"])


def test_digits_are_not_lost() -> None:
    precise, rough = nn.Linear(2, 2).double(), nn.Linear(2, 2)
    assert "torch.float64 in the source, torch.float32 in the target" in refusal(precise, rough)
    transplant(rough, precise)
    assert precise.weight.dtype == torch.float64
    assert torch.equal(precise.weight, rough.weight.double())


def test_tensors_without_values_are_refused() -> None:
    ready = nn.Linear(2, 2)
    assert "weight has no values in the source" in refusal(nn.Linear(2, 2, device="meta"), ready)
    assert "weight has no values in the source" in refusal(nn.LazyLinear(2), ready)
    assert "weight has no values in the source" in refusal({"weight": 1, "bias": ready.bias}, ready)
    with pytest.raises(SurgeryError, match="no values in the target"):
        transplant(ready, nn.Linear(2, 2, device="meta"))


def test_tied_tensors_need_equal_sources() -> None:
    source = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    target = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    target["b"].weight = target["a"].weight
    assert "b.weight and a.weight differ, but are one tensor in the target" in refusal(source, target)
    source["b"].weight = source["a"].weight
    transplant(source, target)
    assert torch.equal(target["a"].weight, source["a"].weight)  # type: ignore[arg-type]  # what the test built is known
