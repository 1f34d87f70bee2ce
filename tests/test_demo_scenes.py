"""Handwriting and the scenes made of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fullyconv.demo import handwriting as handwriting_module
from fullyconv.demo.handwriting import CLASSES, Handwriting
from fullyconv.demo.scenes import draw_scene, large_scene, write_scenes
from fullyconv.errors import ConfigError, MachineError
from fullyconv.images import read_image, read_mask

TRAINING = Handwriting(held_out=False)


@pytest.fixture
def writing() -> Handwriting:
    return TRAINING


def test_training_and_held_out_digits_are_all_the_digits_and_share_none() -> None:
    images, digits = handwriting_module._all_digits()
    sets = [Handwriting(held_out=held_out) for held_out in (False, True)]
    assert sum(len(each) for each in sets) == len(images) == 1797
    for each in sets:
        assert set(each.digits) == set(range(10))
    counted = sum(np.bincount(each.digits, minlength=10) for each in sets)
    assert np.array_equal(counted, np.bincount(digits))
    # The same stroke in both sets would betray a shared image (no two of the 1,797 are equal).
    drawn = [{each.stroke(index, 16).tobytes() for index in range(len(each))} for each in sets]
    assert len(drawn[0] | drawn[1]) == 1797


def test_a_stroke_is_the_digit_image(writing: Handwriting) -> None:
    """Brought back to 8×8 cells, a drawing looks like one of the images of its digit."""
    images, digits = handwriting_module._all_digits()
    cells = [_to_cells(image / 16) for image in images]
    for index in range(20):
        drawn = _to_cells(writing.stroke(index, 64))
        alike = np.corrcoef(drawn, cells)[0, 1:]
        assert digits[int(np.argmax(alike))] == writing.digits[index]
        assert max(alike) > 0.8


def _to_cells(ink: np.ndarray) -> np.ndarray:
    """Cut to the ink and bring to 8×8 cells, in one row."""
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0.35) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    cells = np.mgrid[0:8, 0:8].reshape(2, -1) * (np.array([cut.shape]).T - 1) / 7
    blurred = ndimage.gaussian_filter(cut.astype(float), np.array(cut.shape) / 20)
    return ndimage.map_coordinates(blurred, cells, order=1)


@given(
    index=st.integers(0, len(TRAINING) - 1),
    height=st.floats(8, 80),
    angle=st.floats(-20, 20),
    slant=st.floats(-0.3, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_strokes_are_coverage_cut_to_the_ink(index: int, height: float, angle: float, slant: float) -> None:
    stroke = TRAINING.stroke(index, height, angle=angle, slant=slant)
    assert stroke.dtype == np.float32
    assert 0.3 * height < stroke.shape[0] < 1.5 * height + 3
    assert stroke.min() >= 0
    assert stroke.max() <= 1
    for edge in (stroke[0], stroke[-1], stroke[:, 0], stroke[:, -1]):
        assert edge.max() > 0.5


def test_a_stroke_turns_counter_clockwise_and_leans_right(writing: Handwriting) -> None:
    index = int(np.flatnonzero(writing.digits == 1)[5])

    def lean(stroke: np.ndarray) -> float:
        rows, columns = np.nonzero(stroke > 0.5)
        return float(np.polyfit(-rows, columns, 1)[0])  # columns to the right per row upwards

    upright = lean(writing.stroke(index, 64))
    assert lean(writing.stroke(index, 64, angle=15)) < upright - 0.1
    assert lean(writing.stroke(index, 64, slant=0.3)) > upright + 0.1


def test_scikit_learn_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    handwriting_module._all_digits.cache_clear()
    with pytest.raises(MachineError, match=r"pip install 'fullyconv\[demo\]'"):
        Handwriting(held_out=False)


@given(height=st.integers(1, 200), width=st.integers(1, 200), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_scenes_of_any_size(height: int, width: int, seed: int) -> None:
    scene = draw_scene(TRAINING, np.random.default_rng(seed), (height, width))
    assert scene.image.shape == (height, width, 3)
    assert scene.image.dtype == np.uint8
    assert scene.labels.shape == (height, width)
    assert scene.labels.max(initial=0) <= 10
    for place in scene.placements:
        row, column = place.centre
        assert 0 <= row < height
        assert 0 <= column < width


def test_each_placement_has_its_ink_and_all_ink_has_a_placement(writing: Handwriting) -> None:
    scene = draw_scene(writing, np.random.default_rng(4), (400, 400))
    assert len(scene.placements) > 10
    accounted = np.zeros(scene.labels.shape, bool)
    for place in scene.placements:
        top = round(place.centre[0] - (place.height - 1) / 2)
        rows = scene.labels[top : top + place.height]
        assert (rows == place.digit + 1).any()
        assert scene.labels[top - 1 : top, round(place.centre[1])].sum() == 0
        accounted[top : top + place.height] |= rows == place.digit + 1
    assert np.array_equal(accounted, scene.labels > 0)


def test_ink_is_darker_than_the_paper_around_it(writing: Handwriting) -> None:
    for seed in range(8):
        scene = draw_scene(writing, np.random.default_rng(seed), (200, 300))
        ink = scene.labels > 0
        near = ndimage.binary_dilation(ink, iterations=6) & ~ndimage.binary_dilation(ink, iterations=2)
        gray = scene.image.mean(axis=2)
        assert gray[ink].mean() < gray[near].mean() - 30


def test_heights_are_kept_and_spread(writing: Handwriting) -> None:
    scene = draw_scene(writing, np.random.default_rng(1), (800, 800), heights=(20, 24))
    heights = np.array([place.height for place in scene.placements])
    assert heights.min() >= 14
    assert heights.max() <= 30
    spread = np.array(
        [p.height for p in draw_scene(writing, np.random.default_rng(1), (800, 800)).placements]
    )
    assert spread.min() < 16
    assert spread.max() > 36


def test_pages_are_full_and_nothing_touches(writing: Handwriting) -> None:
    scene = draw_scene(writing, np.random.default_rng(1), (512, 512))
    assert len(scene.placements) > 100
    marked, count = ndimage.label(scene.labels > 0)
    assert count >= 0.9 * len(scene.placements)
    assert all(len(np.unique(scene.labels[marked == piece])) == 1 for piece in range(1, count + 1))


def test_write_scenes_makes_a_plain_folder(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", 10, seed=3)
    table = tomllib.loads((folder / "classes.toml").read_text())
    assert [entry["name"] for entry in table["class"]] == list(CLASSES.names)
    counts = {}
    for split in ("train", "val"):
        images = sorted((folder / split / "images").iterdir())
        masks = sorted((folder / split / "masks").iterdir())
        assert [path.stem for path in images] == [path.stem for path in masks]
        counts[split] = len(images)
        sizes = set()
        for image_path, mask_path in zip(images, masks, strict=True):
            image, mask = read_image(image_path), read_mask(mask_path)
            assert image.dtype == np.uint8
            assert image.shape[:2] == mask.values.shape
            assert 0 < mask.values.max() <= 10
            sizes.add(image.shape[:2])
        assert len(sizes) > 1
    assert counts == {"train": 8, "val": 2}


def test_the_seed_decides_every_pixel(tmp_path: Path) -> None:
    first, again, other = (
        write_scenes(tmp_path / name, 2, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )

    def content(folder: Path) -> dict[str, bytes]:
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}

    assert content(first) == content(again) != content(other)


def test_write_scenes_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        write_scenes(tmp_path / "one", 1)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not empty"):
        write_scenes(tmp_path, 4)


def test_large_scene_is_reproducible_and_full() -> None:
    scene = large_scene(7, (600, 900))
    assert np.array_equal(scene.image, large_scene(7, (600, 900)).image)
    assert set(np.unique(scene.labels)) == set(range(11))
