"""Ensembles and mirror images: tiles stay exact, and every engine gives the mean."""

import numpy as np
import pytest
import torch
from pictures import blocks
from torch import nn

from fullyconv.images import read_image, write_image
from fullyconv.inference import Outputs, Predictor, Shares, predict, predict_files, verify_tiles
from fullyconv.inference.sources import ArraySource
from fullyconv.models import FCN, Averaged, Normalization, SegmentationModel, UNet, save
from fullyconv.progress import Quiet

F32 = {"engine": "torch", "precision": "f32"}


class OneSided(SegmentationModel):
    """A network that looks 20 columns to the left, none to the right, and two rows up and down."""

    stride = 1

    def __init__(self):
        super().__init__(2, 3, Normalization((120.0,), (60.0,)))
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 2, (5, 21))

    def scores(self, images):
        return self.layer(nn.functional.pad(images, (20, 0, 2, 2)))


def whole_and_tiled(model, image, flips, tile):
    whole = predict(model, image, flips=flips, tile=None, probabilities=True, **F32)
    tiled = predict(model, image, flips=flips, tile=tile, probabilities=True, **F32)
    assert tiled.exact
    return np.abs(whole.probabilities - tiled.probabilities).max()


def columns_halo(model, flips, tile, image):
    plan = Predictor(model, flips=flips, tile=tile, **F32).plan(ArraySource(image))
    assert plan.columns.count > 2
    return plan.columns.halo


@pytest.mark.parametrize("flips", ["none", "horizontal", "both"])
def test_mirrored_tiles_equal_the_mirrored_whole(small_unet, flips):
    image = np.random.default_rng(0).integers(0, 256, (61, 233, 3)).astype(np.uint8)
    one_sided = OneSided().eval()
    assert columns_halo(one_sided, flips, 70, image) == ((20, 0) if flips == "none" else (20, 20))
    assert whole_and_tiled(one_sided, image, flips, 70) < 1e-5
    assert whole_and_tiled(small_unet, image, flips, 40) < 1e-5
    assert whole_and_tiled([small_unet, small_unet], image, flips, 41) < 1e-5


def test_without_the_wider_halo_mirrored_tiles_would_differ(monkeypatch):
    monkeypatch.setattr(Averaged, "mirrored", (False, False))
    image = np.random.default_rng(0).integers(0, 256, (61, 233, 3)).astype(np.uint8)
    assert whole_and_tiled(OneSided().eval(), image, "horizontal", 70) > 1e-3


@pytest.mark.slow
def test_mirrored_tiles_of_a_strided_network_equal_the_whole():
    torch.manual_seed(0)
    model = FCN("resnet18", 3, 8, normalization=Normalization((120.0,), (60.0,))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    assert whole_and_tiled(model, blocks(90, 731, side=40), "both", 640) < 1e-4


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_every_engine_gives_the_mean(small_unet, engine):
    torch.manual_seed(7)
    other = UNet(small_unet.classes, widths=(4, 4), normalization=Normalization((90.0,), (30.0,))).eval()
    image = blocks(70, 90, side=20)
    every = []
    for member in (small_unet, other):
        for axes in ([], [1]):
            seen = np.ascontiguousarray(np.flip(image, axes))
            found = predict(member, seen, probabilities=True, **F32).probabilities
            every.append(np.flip(found, axes))
    predictor = Predictor([small_unet, other], flips="horizontal", engine=engine, precision="f32")
    found = predictor.predict(image, probabilities=True).probabilities
    assert np.abs(found - np.mean(every, 0)).max() < 1e-5


def test_the_proof_of_tiles_covers_mirror_images(small_unet):
    proof = verify_tiles(Predictor(small_unet, flips="both", **F32), ArraySource(blocks(300, 260)))
    assert proof.holds
    assert proof.tiles > 1


def test_weights_trained_meanwhile_are_used(small_unet):
    model = UNet(2, widths=(4, 4)).eval()
    predictor = Predictor(model, flips="both", **F32)
    image = blocks(64, 64)
    predictor.predict(image)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.0, 1e6]))
    assert (predictor.predict(image).labels == 1).all()


def test_folds_predict_files_large_and_small(small_unet, tmp_path, monkeypatch):
    monkeypatch.setattr("fullyconv.inference.files.LARGE", 40_000)  # the second image is a job of tiles
    monkeypatch.setattr("fullyconv.inference.fitting.WHOLE_PIXELS", 40_000)
    members = []
    for number in (1, 2):
        torch.manual_seed(number)
        members.append(UNet(small_unet.classes, widths=(4, 6)).eval())
        (tmp_path / "folds" / f"fold-{number}").mkdir(parents=True)
        save(members[-1], tmp_path / "folds" / f"fold-{number}" / "model.safetensors")
    images = {"small": blocks(60, 70), "large": blocks(260, 300)}
    for name, image in images.items():
        write_image(tmp_path / f"{name}.png", image)
    outputs = Outputs("png", False, Shares((0, 1, 2), "uint8"))
    files = [tmp_path / f"{name}.png" for name in images]
    options = {"flips": "horizontal", **F32}
    written = predict_files(tmp_path / "folds", files, tmp_path / "out", outputs, progress=Quiet(), **options)
    for name, image in images.items():
        expected = predict(members, image, flips="horizontal", tile=None, probabilities=True, **F32)
        shares = read_image(written.files[name]["probabilities"]).astype(int)
        assert np.abs(shares - np.rint(expected.probabilities * 255)).max() <= 1
