"""Many images of many sizes through one stream; tiles that fit in memory."""

import re

import numpy as np
import pytest
import torch
from pictures import blocks

from fullyconv.errors import ConfigError, ImageError, MachineError
from fullyconv.images import write_image
from fullyconv.inference import Prediction, Predictor, predict
from fullyconv.inference.fitting import Fitting
from fullyconv.inference.memory import activation_bytes, parse_bytes, resident, show_bytes
from fullyconv.inference.sources import ArraySource, Crop, middle, spread_parts
from fullyconv.models import UNet
from fullyconv.outlines import to_geojson

F32 = {"engine": "torch", "precision": "f32"}
SIZES = [(40, 57), (1, 1), (200, 90), (33, 128), (64, 64)]


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_many_images_are_each_as_alone_and_in_order(small_unet, engine):
    images = [blocks(*size, seed=number) for number, size in enumerate(SIZES)]
    predictor = Predictor(small_unet, engine=engine, precision="f32", tile=96)
    found = list(predictor.predict_many(iter(images), probabilities=True))
    for image, prediction in zip(images, found, strict=True):
        alone = predict(small_unet, image, **F32, probabilities=True, tile=None)
        assert np.abs(prediction.probabilities - alone.probabilities).max() < 1e-5
        assert prediction.image is not None
        assert np.array_equal(prediction.image, image)


def test_images_are_taken_a_few_at_a_time(small_unet):
    taken = []

    def images():
        for number in range(50):
            taken.append(number)
            yield blocks(20, 20, seed=number)

    found = Predictor(small_unet, **F32).predict_many(images())
    next(found)
    assert len(taken) < 8
    assert sum(1 for _ in found) == 49


def test_images_that_cannot_be_used_come_as_errors_in_their_place(small_unet, tmp_path):
    write_image(tmp_path / "good.png", blocks(30, 30))
    given = [blocks(20, 20), blocks(20, 20).astype(np.uint16), tmp_path / "none.png", tmp_path / "good.png"]
    outcomes = list(Predictor(small_unet, **F32).try_many(given))
    assert [type(outcome) for outcome in outcomes] == [Prediction, ImageError, ImageError, Prediction]
    with pytest.raises(ImageError, match="uint16"):
        list(Predictor(small_unet, **F32).predict_many(given))


def test_a_file_is_read_window_by_window_and_closed(small_unet, tmp_path):
    image = blocks(300, 200)
    write_image(tmp_path / "a.tif", image)
    prediction = predict(small_unet, tmp_path / "a.tif", **F32, tile=128)
    assert np.array_equal(prediction.labels, predict(small_unet, image, **F32, tile=128).labels)
    assert np.array_equal(prediction.image, image)
    assert prediction.to_geojson() == to_geojson(prediction.labels, prediction.classes)


def test_weights_trained_meanwhile_are_used(small_unet):
    model = UNet(2, widths=(4, 4)).eval()
    predictor = Predictor(model, engine="openvino", precision="f32")
    image = blocks(64, 64)
    predictor.predict(image)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.0, 1e6]))
    assert (predictor.predict(image).labels == 1).all()


# --- memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2_000_000_000), ("1.5 GiB", 3 * 2**29), ("900m", 900_000_000), (17, 17)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-2GB", "0", "2 TB?"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="--max-memory"):
        parse_bytes(text)


def test_sizes_are_shown_in_three_figures():
    assert [show_bytes(size) for size in (17, 1500, 2.5e6, 1.234e9)] == [
        "17 B",
        "1.5 kB",
        "2.5 MB",
        "1.23 GB",
    ]


def test_activations_are_counted_while_they_are_alive():
    chain = UNet(2, 1, widths=(4, 4), norm=None).eval()
    small, large = (activation_bytes(chain, (side, side)) for side in (64, 128))
    assert large == 4 * small
    # The skip with 4 channels, what it is joined with, and their concatenation are alive at one time.
    assert 4 * 64 * 64 * 16 <= small <= 4 * 64 * 64 * 32
    assert resident() > 10**8


def test_a_smaller_memory_means_smaller_tiles_until_none_fits(small_unet):
    free = Fitting(small_unet)
    free.at_once = 1
    size = (3000, 3100)
    roomy = free.plan(size, size)
    tight = Fitting(small_unet, max_memory=resident() + free.window_bytes((400, 400)) + 10**5)
    tight.at_once = 1
    small = tight.plan(size, size)
    assert np.prod(small.tile_size) < np.prod(roomy.tile_size)
    assert tight.window_bytes(small.tile_size) <= tight.room
    none = Fitting(small_unet, max_memory=10**6)
    none.at_once = 1
    with pytest.raises(MachineError, match=r"1 MB \(--max-memory\)") as caught:
        none.plan(size, size)
    found = re.search(r"use --max-memory (\d+MB) or more", caught.value.fix)
    enough = Fitting(small_unet, max_memory=parse_bytes(found[1]))
    enough.at_once = 1
    assert enough.plan(size, size).count > 1


def test_tiles_computed_at_once_share_the_work(small_unet):
    fitting = Fitting(small_unet)
    fitting.at_once = 2
    plan = fitting.plan((2048, 2048), (2048, 2048))
    assert plan.count % 2 == 0
    assert plan.overlap_cost < 1.05
    assert plan.exact


# --- sources ------------------------------------------------------------------------------------------


def test_crops_are_parts_of_their_source():
    array = np.arange(60).reshape(6, 10, 1)
    crop = Crop(ArraySource(array), slice(1, 5), slice(2, 20))
    assert crop.size == (4, 8)
    assert np.array_equal(crop.read(slice(1, 3), slice(0, 5)), array[2:4, 2:7])
    assert np.array_equal(middle(ArraySource(array), (2, 40)).read(slice(0, 9), slice(0, 99)), array[2:4])
    parts = spread_parts(ArraySource(array), (2, 4), 3)
    assert {part.size for part in parts} == {(2, 4)}
    assert len(parts) == 9
    assert parts[-1].read(slice(0, 2), slice(0, 4))[-1, -1, 0] == 59


@pytest.mark.parametrize("shape", [(4,), (0, 3, 1), (1, 2, 3, 4)])
def test_arrays_that_are_no_image_are_refused(shape):
    with pytest.raises(ImageError, match="shape"):
        ArraySource(np.zeros(shape))
