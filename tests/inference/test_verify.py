"""The proof and the estimate that are said before anything is written."""

import json

import numpy as np
import pytest
from pictures import blocks

from fullyconv import commands
from fullyconv.errors import ConfigError
from fullyconv.images import write_image
from fullyconv.inference import Outputs, Predictor, Shares, estimate_files, verify_tiles
from fullyconv.inference.pieces import in_step
from fullyconv.inference.sources import ArraySource
from fullyconv.models import UNet
from fullyconv.progress import Quiet

F32 = {"engine": "torch", "precision": "f32"}


def test_tiles_of_this_network_equal_the_whole(small_unet):
    found = verify_tiles(Predictor(small_unet, **F32), ArraySource(blocks(300, 220)))
    assert found.holds
    assert found.crop == (300, 220)
    assert found.tiles > 1
    assert found.max_difference <= 1e-4
    assert "tiles equal the whole" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["holds"] is True


def test_tiles_that_differ_are_called_so(small_unet, monkeypatch):
    def shifted(run, windows):
        for tag, answer in in_step(run, windows):
            yield tag, np.roll(answer, 1, axis=1)

    monkeypatch.setattr("fullyconv.inference.verify.in_step", shifted)
    found = verify_tiles(Predictor(small_unet, **F32), ArraySource(blocks(300, 220)))
    assert not found.holds
    assert found.different_clear_labels > 0
    assert "DIFFER" in str(found)


def test_approximate_tiles_are_measured_and_explained():
    model = UNet(2, widths=(4, 8), norm="instance").eval()
    found = verify_tiles(Predictor(model, **F32), ArraySource(blocks(200, 200)))
    assert found.reasons
    assert "approximate: " in str(found)


def test_an_image_that_needs_no_tiles_cannot_be_verified(small_unet):
    with pytest.raises(ConfigError, match="taken whole"):
        verify_tiles(Predictor(small_unet, **F32), ArraySource(blocks(12, 9)))


def test_an_estimate_counts_all_images_and_times_a_tile_of_the_largest(small_unet, tmp_path):
    sizes = {"a.png": (40, 50), "b.png": (300, 200)}
    for name, size in sizes.items():
        write_image(tmp_path / name, blocks(*size))
    outputs = Outputs(shares=Shares((0, 1, 2)))
    predictor = Predictor(small_unet, **F32, tile=128)
    found = estimate_files(predictor, sorted(tmp_path.iterdir()), tmp_path / "out", outputs)
    assert (found.images, found.pixels, found.largest) == (2, 2000 + 60_000, (300, 200))
    assert max(found.tile) <= 128
    assert found.tiles >= 6
    assert found.overlap_cost > 1
    assert found.seconds > 0
    assert found.memory > 10**8
    assert found.outputs[0] == str(tmp_path / "out" / "masks" / "b.png")
    assert "nothing was written" in str(found)
    json.dumps(found.to_dict())
    assert not (tmp_path / "out").exists()


def test_the_command_s_options_reach_what_they_name(small_unet_file, tmp_path):
    write_image(tmp_path / "a.png", blocks(100, 90))
    options = {"out": tmp_path / "out", "engine": "torch", "precision": "f32", "progress": Quiet()}
    image = tmp_path / "a.png"
    assert commands.predict(small_unet_file, image, verify=True, **options).holds
    assert commands.predict(small_unet_file, image, dry_run=True, tile=64, **options).tiles > 1
    assert not (tmp_path / "out").exists()
    done = commands.predict(
        small_unet_file,
        image,
        probabilities="uint8",
        classes=("sea",),
        polygons=True,
        overlays=False,
        **options,
    )
    assert done.to_dict() == {
        "masks": [str(tmp_path / "out" / "masks" / "a.png")],
        "probabilities": [str(tmp_path / "out" / "probabilities" / "a.tif")],
        "polygons": [str(tmp_path / "out" / "polygons" / "a.geojson")],
        "exact": True,
        "approximate": [],
    }
    with pytest.raises(ConfigError, match="classes moon"):
        commands.predict(small_unet_file, image, probabilities="uint8", classes=("moon",), **options)
    with pytest.raises(ConfigError, match="--probabilities"):
        commands.predict(small_unet_file, image, classes=("sea",), **options)
