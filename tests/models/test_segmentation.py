from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from fullyconv.errors import ConfigError
from fullyconv.labels import ClassTable
from fullyconv.models import Architecture, Normalization, Provenance, SegmentationModel, UNet


class Same(SegmentationModel):
    """Gives back what the network would see."""

    def scores(self, images: Tensor) -> Tensor:
        return images


def test_raw_values_are_normalised_inside() -> None:
    model = Same(2, 2, Normalization(mean=(10.0, 100.0), std=(2.0, 50.0)))
    raw = torch.tensor([12.0, 200.0]).view(1, 2, 1, 1)
    assert model(raw).flatten().tolist() == [1.0, 2.0]
    assert torch.equal(model(raw.to(torch.uint8)), model(raw))


def test_by_default_raw_values_stay() -> None:
    raw = torch.rand(1, 3, 4, 5) * 65535
    assert torch.equal(Same(2, 3, Normalization())(raw), raw)


def test_one_number_serves_all_channels() -> None:
    model = Same(2, 4, Normalization(mean=(3.0,), std=(2.0, 2.0, 2.0, 4.0)))
    assert model.normalization == Normalization((3.0,) * 4, (2.0, 2.0, 2.0, 4.0))


def test_normalisation_follows_the_network_and_is_no_weight() -> None:
    model = Same(2, 1, Normalization((1.0,), (2.0,)))
    assert not model.state_dict()
    assert model.double().mean.dtype == torch.float64
    assert model.to("meta").std.device.type == "meta"


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (float("nan"),)},
        {"mean": (float("inf"),)},
        {"std": (0.0,)},
        {"std": (-1.0,)},
        {"std": (float("inf"),)},
        {"mean": ()},
        {"mean": (1.0, 2.0)},
        {"std": (1.0, 2.0, 3.0, 4.0)},
    ],
    ids=str,
)
def test_a_normalisation_that_cannot_be_is_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ConfigError):
        Same(2, 3, Normalization(**wrong))


def test_classes_as_table_names_or_number() -> None:
    for classes in (ClassTable(("a", "b")), ["a", "b"]):
        assert Same(classes, 1, Normalization()).classes == ClassTable(("a", "b"))
    assert len(Same(300, 1, Normalization()).classes) == 300


@pytest.mark.parametrize("channels", [0, -1])
def test_an_image_has_channels(channels: int) -> None:
    with pytest.raises(ConfigError):
        Same(2, channels, Normalization())


def test_provenance_keeps_scores_in_order_and_range() -> None:
    assert list(Provenance(scores={"pixel_accuracy": 1, "mean_iu": 0.5}).scores) == [
        "mean_iu",
        "pixel_accuracy",
    ]
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError):
            Provenance(scores={"mean_iu": value})


def test_an_architecture_is_closed_and_cannot_change() -> None:
    class Kind(Architecture):
        depth: int

    kind = Kind(kind="a", depth=2)
    assert kind.options() == {"depth": 2}
    with pytest.raises(ValidationError):
        kind.depth = 3
    with pytest.raises(ValidationError):
        Kind(kind="a", depth=2, run="os.system")  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(ValidationError):
        Kind(kind="a", depth="2")  # type: ignore[arg-type]  # wrong on purpose


def test_the_options_rebuild_the_network() -> None:
    model = UNet(2, 3, widths=(4, 8), norm="group", dropout=0.25, upsampling="bilinear")
    again = UNet(
        model.classes, model.channels, normalization=model.normalization, **model.architecture.options()
    )
    assert again.architecture == model.architecture
