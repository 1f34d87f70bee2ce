"""What tells that two images show the same, and that a mask is beside its image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fullyconv.datasets import check
from fullyconv.datasets._checks._registration import find_offset
from fullyconv.datasets._checks._thumbnails import (
    LIKENESS,
    SIDE,
    compare_thumbnails,
    find_alike,
    take_thumbnail,
)


def texture(seed: int, size: tuple[int, int] = (120, 150)) -> np.ndarray:
    """Smooth blobs, H×W×3."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def recompressed(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


VARIATIONS = {
    "darker": lambda image: (image * 0.6).astype(np.uint8),
    "gamma": lambda image: (255 * (image / 255) ** 0.7).astype(np.uint8),
    "16 bit": lambda image: image.astype(np.uint16) * 200,
    "float": lambda image: image.astype(np.float32) / 255,
    "gray": lambda image: np.asarray(Image.fromarray(image).convert("L"))[..., None],
    "recompressed": recompressed,
    "cropped": lambda image: image[4:-3, 2:-5],
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "a quarter turn": np.rot90,
    "three quarters": lambda image: np.rot90(image, 3),
    "half a turn, brighter, recompressed": lambda image: recompressed(255 - (255 - image[::-1, ::-1]) // 2),
    "mirrored at the diagonal": lambda image: image.transpose(1, 0, 2),
    "mirrored and cropped": lambda image: image[4:-3, -3:4:-1],
    "half as large": lambda image: np.asarray(Image.fromarray(image).resize((75, 60))),
}


def alike(*images: np.ndarray) -> list[tuple[int, int]]:
    found = find_alike([take_thumbnail(image) for image in images], range(len(images)))
    return [(one, other) for one, other, _ in found]


@pytest.mark.parametrize("vary", VARIATIONS.values(), ids=VARIATIONS)
def test_a_varied_copy_is_found_among_others(vary):
    images = [texture(seed) for seed in range(8)]
    assert alike(*images) == []
    assert alike(*images, vary(images[3])) == [(3, 8)]


def test_a_crop_scaled_up_again_is_alike_down_to_its_details():
    fine = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    picture = Image.fromarray(fine).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    cropped = picture.crop((3, 2, 61, 59)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    one, other = (np.asarray(each, np.float32) for each in (picture, cropped))
    assert compare_thumbnails(one, other) > 0.9
    assert compare_thumbnails(other, one) > 0.9


def test_the_same_light_with_other_details_is_not_alike():
    light = np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 1.5
    noise = np.random.default_rng(0).normal(0, 12, (2, SIDE, SIDE))
    one, other = (light + noise).astype(np.float32)
    assert compare_thumbnails(one, other) < 0.3


def test_one_bright_cell_on_black_is_no_copy_of_another():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:128, :128]
    fields = []
    for row, column in [(20, 20), (20, 107), (107, 21), (106, 107), (21, 22), (60, 64), (66, 62)]:
        field = rng.normal(6, 2, rows.shape)
        # A bright one where mirrored or turned fields have theirs, and a faint one anywhere.
        for peak, (y, x) in ((120, (row, column)), (30, rng.uniform(10, 118, 2))):
            tall, wide = rng.uniform(20, 60, 2)
            field += peak * np.exp(-((rows - y) ** 2) / tall - (columns - x) ** 2 / wide)
        fields.append(field.clip(0, 255).astype(np.uint8)[..., None])
    assert alike(*fields) == []
    mirrored = fields[2][:, ::-1]
    assert alike(*fields, mirrored) == [(2, 7)]


def test_copies_on_the_same_side_are_not_asked_for():
    pictures = [take_thumbnail(texture(seed)) for seed in (1, 1, 2)]
    assert list(find_alike(pictures, ["train", "train", "val"])) == []
    ((one, other, likeness),) = find_alike(pictures, ["train", "val", "val"])
    assert (one, other) == (0, 1)
    assert likeness > 0.99 > LIKENESS
    assert list(find_alike([], [])) == []


def shapes(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Overlapping rectangles of classes 0 to 3."""
    rng = np.random.default_rng(seed)
    codes = np.zeros(size, np.uint8)
    for label in (1, 2, 3, 1, 2, 3):
        top, left = rng.integers(0, size[0] - 30), rng.integers(0, size[1] - 30)
        codes[top : top + rng.integers(12, 30), left : left + rng.integers(12, 30)] = label
    return codes


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(-14, 14), st.integers(-14, 14))
def test_the_offset_is_what_the_mask_was_moved_by(seed, rows, columns):
    codes = shapes(seed, (140, 160))
    noise = np.random.default_rng(seed).normal(0, 6, (140, 160))
    image = (40 + 50 * codes + noise).clip(0, 255).astype(np.uint8)[..., None]
    moved = np.roll(codes, (-rows, -columns), (0, 1))
    offset = find_offset(image[16:-16, 16:-16], moved[16:-16, 16:-16])
    assert offset is not None
    assert max(abs(offset.rows - rows), abs(offset.columns - columns)) <= 1


def test_large_images_are_measured_at_a_fraction_of_their_size():
    codes = np.kron(shapes(5, (140, 160)), np.ones((9, 9), np.uint8))[:-4, :-2]
    image = (40 + 50 * codes)[..., None].astype(np.uint16)
    offset = find_offset(image, np.roll(codes, 30, 0))
    assert offset is not None
    assert abs(offset.rows + 30) <= 3
    assert abs(offset.columns) <= 3


@pytest.mark.parametrize("what", ["flat image", "flat mask", "tiny", "not finite"])
def test_no_offset_is_told_where_there_is_nothing_to_see(what):
    codes = shapes(1, (64, 64))
    image = codes[..., None].astype(np.float32)
    if what == "flat image":
        image = np.ones_like(image)
    elif what == "flat mask":
        codes = np.zeros_like(codes)
    elif what == "tiny":
        image, codes = image[:8, :8], codes[:8, :8]
    else:
        image[3, 4] = np.nan
    assert find_offset(image, codes) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nuclei", "camvid", "em-membranes"])
def test_real_data_raises_no_false_alarm(shared_data, name):
    assert check(shared_data / name).problems == ()
