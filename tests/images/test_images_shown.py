"""Channels, tensors, overlays, and finding files."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullyconv.errors import ConfigError, ImageError
from fullyconv.images import conform, find_images, from_tensor, overlay, to_tensor
from fullyconv.labels import ClassTable

TABLE = ClassTable(("background", "red", "green"), ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
GRAY = np.arange(20, dtype=np.uint8).reshape(4, 5, 1)
RGB = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)


def with_alpha(image, value):
    return np.concatenate([image, np.full_like(image[..., :1], value)], axis=2)


# conform


@pytest.mark.parametrize(
    ("image", "channels", "expected", "note"),
    [
        (GRAY, 1, GRAY, ""),
        (GRAY[..., 0], 1, GRAY, ""),
        (RGB, 3, RGB, ""),
        (with_alpha(RGB, 7), 4, with_alpha(RGB, 7), ""),
        (GRAY, 3, GRAY.repeat(3, 2), "gray repeated to RGB"),
        (GRAY.repeat(3, 2), 1, GRAY, "equal RGB channels reduced to gray"),
        (with_alpha(RGB, 255), 3, RGB, "opaque alpha dropped"),
        (with_alpha(GRAY, 255), 1, GRAY, "opaque alpha dropped"),
        (with_alpha(GRAY, 255), 3, GRAY.repeat(3, 2), "opaque alpha dropped, gray repeated to RGB"),
        (
            with_alpha(GRAY.repeat(3, 2), 255),
            1,
            GRAY,
            "opaque alpha dropped, equal RGB channels reduced to gray",
        ),
        (with_alpha(RGB.astype("f4"), 1), 3, RGB.astype("f4"), "opaque alpha dropped"),
        (with_alpha(RGB.astype("u2"), 65535), 3, RGB.astype("u2"), "opaque alpha dropped"),
    ],
)
def test_conform_changes_only_what_loses_nothing(image, channels, expected, note):
    array, said = conform(image, channels, dtype=image.dtype)
    assert np.array_equal(array, expected)
    assert array.dtype == image.dtype
    assert said == note


@pytest.mark.parametrize(
    ("image", "channels", "words"),
    [
        (with_alpha(RGB, 254), 3, "20 transparent"),
        (with_alpha(RGB.astype("u2"), 255), 3, "transparent"),
        (RGB, 1, "has 3 channel"),
        (RGB[..., [0, 0, 1]], 1, "has 3 channel"),
        (RGB[..., [0, 1, 0]], 1, "has 3 channel"),
        (RGB, 4, "has 3 channel"),
        (GRAY, 2, "has 1 channel"),
        (np.zeros((3, 3, 7)), 3, "has 7 channel"),
        (np.zeros(3), 1, "shape"),
    ],
)
def test_conform_refuses_what_would_lose_or_invent(image, channels, words):
    with pytest.raises(ImageError, match=rf"photo\.png.*{words}"):
        conform(image, channels, name="photo.png")


def test_conform_never_rescales():
    with pytest.raises(ImageError, match=r"uint16 values.*uint8"):
        conform(GRAY.astype(np.uint16), 1, np.uint8)
    with pytest.raises(ImageError, match=r"uint8 values.*float32"):
        conform(GRAY, 1, "float32")


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_conforming_twice_changes_nothing_more(has, wants, dtype):
    image = np.ones((3, 4, has), dtype) if dtype == np.float32 else np.full((3, 4, has), np.iinfo(dtype).max)
    try:
        once, _ = conform(image, wants)
    except ImageError:
        return
    twice, note = conform(once, wants)
    assert once.shape == (3, 4, wants)
    assert np.array_equal(once, twice)
    assert note == ""


# Tensors


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(["u1", "u2", "i2", "f4", ">u2"]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=3, max_dims=3, max_side=8))
    )
)
def test_tensors_hold_the_same_values_and_come_back(array):
    tensor = to_tensor(array)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert tuple(tensor.shape) == (array.shape[2], *array.shape[:2])
    back = from_tensor(tensor)
    assert np.array_equal(back, array.astype(np.float32), equal_nan=True)
    row, column, channel = (size - 1 for size in array.shape)
    assert tensor[channel, row, column].numpy() == array[-1, -1, -1] or np.isnan(array[-1, -1, -1])


def test_tensors_share_no_memory_and_take_what_training_holds():
    image = np.zeros((2, 3, 1), np.float32)
    to_tensor(image)[0, 0, 0] = 5
    assert image[0, 0, 0] in (0, 5)
    half = torch.ones(3, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    assert from_tensor(half).dtype == np.float32
    assert from_tensor(torch.zeros(1, 2, 3, dtype=torch.uint8)).dtype == np.uint8


# overlay


def test_background_stays_and_regions_are_tinted_inside_an_outline():
    image = np.full((12, 12, 3), 100, np.uint8)
    labels = np.zeros((12, 12), int)
    labels[2:10, 2:10] = 1
    shown = overlay(image, labels, TABLE, opacity=0.25)
    assert (shown[labels == 0] == 100).all()
    assert (shown[3:9, 3:9] == (125, 75, 75)).all()
    rim = (labels == 1) & ~np.pad(np.ones((6, 6), bool), 3)
    assert (shown[rim] == (200, 0, 0)).all()
    assert (image == 100).all()


def test_between_two_classes_each_draws_its_own_side():
    labels = np.array([[1, 1, 1, 2, 2, 2]])
    shown = overlay(np.zeros((1, 6), np.uint8), labels, TABLE, opacity=0)
    assert shown[0].tolist() == [[0, 0, 0], [0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 0], [0, 0, 0]]


def test_ignored_pixels_are_outlined_in_white():
    labels = np.zeros((9, 9), int)
    labels[2:7, 2:7] = 255
    shown = overlay(np.full((9, 9, 1), 50, np.uint8), labels, TABLE)
    assert (shown[3:6, 3:6] == 50).all()
    assert (shown[2, 2:7] == 255).all()
    assert (shown[labels == 0] == 50).all()


def test_outlines_grow_with_the_image():
    labels = np.zeros((2048, 20), np.uint8)
    labels[:, 8:] = 1
    shown = overlay(np.zeros((2048, 20), np.uint8), labels, TABLE, opacity=0)
    assert (shown[0, :, 0] == 200).sum() == 3


def test_an_overlay_takes_little_more_memory_than_its_picture():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (2000, 1000), np.uint8)
    image = rng.integers(0, 256, (2000, 1000, 3), np.uint8)
    tracemalloc.start()
    try:
        shown = overlay(image, labels, TABLE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * shown.nbytes
    for top in (300, 700):
        assert np.array_equal(shown[top + 9], overlay(image[top:], labels[top:], TABLE)[9])


@settings(deadline=None, max_examples=60)
@given(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    st.integers(1, 6),
    st.sampled_from(["u1", "u2", "i2", "f4", "f8"]),
    st.data(),
)
def test_any_image_can_be_shown(size, channels, dtype, data):
    image = data.draw(hnp.arrays(dtype, (*size, channels)))
    labels = data.draw(hnp.arrays(np.uint8, size, elements=st.sampled_from([0, 1, 2, 255])))
    shown = overlay(image, labels, TABLE)
    assert shown.shape == (*size, 3)
    assert shown.dtype == np.uint8
    if dtype == "u1":
        plain = image[..., :3] if channels >= 3 else image[..., :1].repeat(3, 2)
        assert np.array_equal(shown[labels == 0], plain[labels == 0])


def test_other_dtypes_use_the_whole_range():
    ramp = np.linspace(1000, 3000, 400).astype(np.uint16).reshape(20, 20)
    shown = overlay(ramp, np.zeros((20, 20), bool), TABLE)
    assert shown.min() == 0
    assert shown.max() == 255
    assert (np.diff(shown[..., 0].ravel().astype(int)) >= 0).all()


def test_overlays_that_make_no_sense_are_refused():
    with pytest.raises(ImageError, match="equal height and width"):
        overlay(RGB, np.zeros((5, 4), int), TABLE)
    with pytest.raises(ConfigError, match="opacity"):
        overlay(RGB, np.zeros((4, 5), int), TABLE, opacity=1.5)
    with pytest.raises(ConfigError, match="labels"):
        overlay(RGB, np.full((4, 5), 9), TABLE)


# find_images


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.png",
        "a.JPG",
        "notes.txt",
        ".hidden.png",
        "deep/c.tif",
        "deep/deeper/d.tif",
        "odd[1].png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def test_files_folders_and_patterns_are_found_sorted_and_once(folder):
    def names(*paths):
        return [each.relative_to(folder).as_posix() for each in find_images(paths)]

    assert names(folder) == ["a.JPG", "b.png", "odd[1].png"]
    assert names(str(folder)) == names(folder, folder / "b.png", f"{folder}/*.png")
    assert names(folder / "notes.txt") == ["notes.txt"]
    assert names(folder / "odd[1].png") == ["odd[1].png"]
    assert names(f"{folder}/**/*.tif") == ["deep/c.tif", "deep/deeper/d.tif"]
    assert names(f"{folder}/**") == ["a.JPG", "b.png", "deep/c.tif", "deep/deeper/d.tif", "odd[1].png"]
    assert find_images(folder) == find_images(str(folder)) == find_images([folder])
    assert names(folder / "deep") == ["deep/c.tif"]


def test_what_names_nothing_is_refused(folder):
    for paths, words in [
        ([], "no paths"),
        (folder / "gone.png", r"gone\.png: no such file"),
        (folder / "empty", "no image files"),
        (f"{folder}/*.bmp", "no image files"),
        ([folder, folder / "gone"], "gone"),
    ]:
        with pytest.raises(ImageError, match=words):
            find_images(paths)
