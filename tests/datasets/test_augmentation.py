"""Laws of augmented crops: image and labels move alike, exact moves are exact, nothing is invented."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fullyconv.datasets import AUGMENTATIONS, AugmentConfig, draw_crop
from fullyconv.datasets._geometry import Motion, _draw_elastic, draw_motion, move, reflect
from fullyconv.datasets._photometry import _turn_around_gray, change_values
from fullyconv.errors import ConfigError

STILL = AugmentConfig.plain((16, 16))
sides = st.integers(1, 40)


def rng(seed=0):
    return np.random.default_rng(seed)


def scene(height, width, channels=1, dtype=np.uint8):
    image = rng().integers(0, 200, (height, width, channels)).astype(dtype)
    return image, image[..., 0].astype(np.int64)


def moving(crop, **changes):
    """Return a configuration that moves pixels but keeps their values."""
    settings = {"warp": 1.0, "rotation": 30.0, "scale": (0.6, 1.7), "shear": 0.2, "elastic": 3.0}
    return AugmentConfig(**{"crop": crop, **_no_color(), **settings, **changes})


def _no_color():
    names = (
        "brightness",
        "contrast",
        "gamma",
        "color",
        "saturation",
        "hue",
        "gray",
        "invert",
        "noise",
        "blur",
    )
    return dict.fromkeys(names, 0.0)


def draw(image, labels, config, seed=0, ignore_index=255):
    return draw_crop(image, labels, config=config, rng=rng(seed), ignore_index=ignore_index)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 99), st.sampled_from(["plain", "turned", "warped"]))
def test_crops_have_their_shape_and_no_invented_label(height, width, rows, columns, seed, kind):
    image, labels = scene(height, width, channels=2)
    config = {
        "plain": AugmentConfig.plain((rows, columns)),
        "turned": moving((rows, columns), warp=0.0),
        "warped": moving((rows, columns)),
    }[kind]
    pixels, moved = draw(image, labels, config, seed)
    assert pixels.shape == (2, rows, columns)
    assert pixels.dtype == torch.float32
    assert moved.shape == (rows, columns)
    assert moved.dtype == torch.int64
    assert set(moved.unique().tolist()) <= set(labels.ravel().tolist())
    assert pixels.min() >= image.min() - 1e-3
    assert pixels.max() <= image.max() + 1e-3


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_exact_crops_move_image_and_labels_alike(height, width, rows, columns, seed):
    image, labels = scene(height, width)
    pixels, moved = draw(image, labels, moving((rows, columns), warp=0.0), seed)
    assert (pixels[0] == moved).all()


def test_a_plain_crop_is_a_window_of_the_input():
    image, labels = scene(20, 23, channels=3)
    seen = set()
    for seed in range(60):
        pixels, moved = draw(image, labels, STILL, seed)
        windows = np.lib.stride_tricks.sliding_window_view(labels, (16, 16))
        ((top, left),) = np.argwhere((windows == moved.numpy()).all((2, 3)))
        assert (pixels.permute(1, 2, 0).numpy() == image[top : top + 16, left : left + 16]).all()
        seen.add((top, left))
    assert {top for top, _ in seen} == set(range(5))
    assert {left for _, left in seen} == set(range(8))


def test_a_crop_of_the_whole_image_is_the_image():
    image, labels = scene(16, 16, channels=3, dtype=np.uint16)
    pixels, moved = draw(image, labels, STILL)
    assert (pixels.permute(1, 2, 0).numpy() == image).all()
    assert (moved.numpy() == labels).all()


@pytest.mark.parametrize(
    ("flips", "quarter_turns", "count"),
    [("both", True, 8), ("both", False, 4), ("horizontal", False, 2), ("none", True, 4), ("none", False, 1)],
)
def test_flips_and_quarter_turns_draw_exactly_their_group(flips, quarter_turns, count):
    image, labels = scene(6, 6)
    config = moving((6, 6), warp=0.0, flips=flips, quarter_turns=quarter_turns)
    drawn = {draw(image, labels, config, seed)[1].numpy().tobytes() for seed in range(80)}
    allowed = [np.rot90(turned, k) for turned in (labels, labels[:, ::-1]) for k in range(4)]
    assert len(drawn) == count
    assert drawn <= {np.ascontiguousarray(array).tobytes() for array in allowed}
    assert flips != "horizontal" or np.ascontiguousarray(labels[:, ::-1]).tobytes() in drawn


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 99))
def test_copying_equals_resampling_at_whole_places(rows, columns, seed):
    image, labels = scene(15, 18, channels=2)
    motion = draw_motion(labels.shape, moving((rows, columns), warp=0.0), rng(seed))
    copied = move(image, labels, motion, None)
    resampled = Motion(motion.crop, motion.center, motion.matrix.astype(float), None, exact=False)
    sampled = move(image, labels, resampled, None)
    torch.testing.assert_close(sampled[0], copied[0], atol=2e-2, rtol=0)
    assert (sampled[1] == copied[1]).all()


@pytest.mark.parametrize("seed", range(12))
def test_warped_crops_move_image_and_labels_alike(seed):
    # On a ramp, bilinear interpolation gives the place itself and the nearest label its rounding.
    rows, columns = np.mgrid[:300, :300]
    image = np.stack([rows, columns], 2).astype(np.float32)
    config = moving((64, 48), scale=(0.8, 1.25))
    places, by_row = draw(image, rows, config, seed)
    _, by_column = draw(image, columns, config, seed)
    assert (places[0] - by_row).abs().max() <= 0.5 + 1e-3
    assert (places[1] - by_column).abs().max() <= 0.5 + 1e-3
    assert not (places[0] == by_row).all()


@pytest.mark.parametrize("seed", range(6))
def test_resampling_equals_scipy_inside_and_beyond_the_border(seed):
    image, labels = scene(30, 41)
    motion = draw_motion(labels.shape, moving((37, 33)), rng(seed))
    pixels, moved = move(image, labels, motion, None)
    offsets = np.stack(np.mgrid[:37, :33]) - np.array([18.0, 16.0])[:, None, None]
    places = np.einsum("ij,jhw->ihw", motion.matrix, offsets) + np.array(motion.center)[:, None, None]
    places += motion.displacement
    expected = ndimage.map_coordinates(image[..., 0].astype(float), places, order=1, mode="mirror")
    assert np.abs(pixels[0].numpy() - expected).max() < 0.05
    nearest = np.rint(places).astype(int)
    assert (moved == labels[reflect(nearest[0], 30), reflect(nearest[1], 41)]).all()


@settings(max_examples=40, deadline=None)
@given(sides, sides, st.integers(1, 20), st.integers(0, 12), st.integers(0, 99), st.sampled_from([0.0, 1.0]))
def test_a_margin_adds_context_around_the_crop(height, width, side, margin, seed, warp):
    """On ramps the label is its own place: it lies within the image, and its image `margin` further in."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns], 2).astype(np.float32)
    still = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0), "elastic": 0.0}
    config = moving((side, side), margin=margin, warp=warp, **still)
    pixels, by_row = draw(image, rows, config, seed)
    assert pixels.shape == (2, *config.image_size) == (2, side + 2 * margin, side + 2 * margin)
    inner = pixels[:, margin : margin + side, margin : margin + side]
    assert by_row.shape == (side, side)
    assert (inner[0] - by_row).abs().max() <= 0.5 + 1e-3
    without = draw(image, rows, dataclasses.replace(config, margin=0), seed)
    torch.testing.assert_close(inner, without[0], atol=1e-2, rtol=0)
    assert (without[1] == by_row).float().mean() > 0.9


@pytest.mark.parametrize("warp", [0.0, 1.0])
@pytest.mark.parametrize("margin", [0, 5])
@pytest.mark.parametrize("border", ["mirror", "ignore"])
def test_weights_move_like_the_labels(warp, margin, border):
    _, labels = scene(30, 33)
    weights = labels.astype(np.float32) / 8
    config = moving((25, 19), warp=warp, margin=margin, border=border)
    for seed in range(8):
        pixels, moved, weighed = draw_crop(
            labels[..., None], labels, config=config, rng=rng(seed), ignore_index=255, weights=weights
        )
        assert weighed.dtype == torch.float32
        known = moved != 255
        assert (weighed[known] * 8 == moved[known]).all()
        assert all(map(torch.equal, draw(labels[..., None], labels, config, seed), (pixels, moved)))


def test_the_published_variation_deforms_by_ten_pixels_and_keeps_the_size():
    config = AUGMENTATIONS["published"]((388, 388))
    assert (config.elastic, config.scale, config.warp) == (10.0, (1.0, 1.0), 1.0)
    angles = []
    for seed in range(200):
        matrix = draw_motion((600, 600), config, rng(seed)).matrix
        assert abs(np.linalg.det(matrix)) == pytest.approx(1)
        angles.append(np.arctan2(matrix[0, 1], matrix[0, 0]))
    # Rotations are all angles: each eighth of a turn is drawn.
    assert np.histogram(angles, 8, (-np.pi, np.pi))[0].min() > 5


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_preset_draws_crops_of_the_size_asked_for(name):
    image, labels = scene(40, 40, channels=3)
    pixels, moved = draw(image, labels, AUGMENTATIONS[name]((16, 24)))
    assert pixels.shape[1:] == moved.shape == (16, 24)


def test_scale_enlarges_objects():
    image = np.zeros((400, 400, 1), np.uint8)
    image[190:210, 190:210] = 1
    for scale, side in ((2.0, 40), (0.5, 10)):
        config = moving((200, 200), rotation=0.0, shear=0.0, elastic=0.0, scale=(scale, scale))
        areas = [int(draw(image, image[..., 0], config, seed)[1].sum()) for seed in range(40)]
        assert max(areas) == pytest.approx(side**2, rel=0.1)


def test_elastic_displacements_pass_through_their_grid_and_have_their_size():
    config = moving((65, 33), elastic=4.0)
    draws = np.stack([draw_motion((99, 99), config, rng(seed)).displacement for seed in range(300)])
    assert draws.shape == (300, 2, 65, 33)
    knots = draws[:, :, ::32, ::16]
    assert knots.std() == pytest.approx(4.0, rel=0.05)
    assert np.abs(np.diff(draws, axis=2)).max() < 1.5


def test_elastic_displacement_of_equal_vectors_is_a_shift():
    config = moving((31, 20))

    class Ones:
        def normal(self, mean, sigma, shape):
            return np.ones(shape)

    assert np.allclose(_draw_elastic(config, Ones()), 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9))
def test_reflection_equals_numpy_padding(length):
    padded = np.pad(np.arange(length), 30, mode="reflect")
    assert (reflect(np.arange(-30, length + 30), length) == padded).all()


def test_small_images_are_mirrored_for_image_and_labels():
    image, labels = scene(5, 7)
    pixels, moved = draw(image, labels, STILL)
    assert (pixels[0] == moved).all()
    assert set(moved.unique().tolist()) == set(labels.ravel().tolist())


@pytest.mark.parametrize("warp", [0.0, 1.0])
def test_beyond_the_border_labels_can_be_ignored_while_the_image_is_mirrored(warp):
    image, labels = scene(8, 8)
    config = moving((24, 24), warp=warp, rotation=10.0, scale=(1.0, 1.0), elastic=0.0, border="ignore")
    pixels, moved = draw(image, labels.astype(np.uint8), config, ignore_index=65535)
    inside = moved != 65535
    assert 40 <= inside.sum() <= 90
    assert (pixels[0][~inside] > 0).any()
    mirrored, all_moved = draw(image, labels, dataclasses.replace(config, border="mirror"))
    assert (pixels == mirrored).all()
    assert (moved[inside] == all_moved[inside]).all()


def test_a_crop_is_a_pure_function_of_its_arguments():
    image, labels = scene(50, 60, channels=3)
    config = AugmentConfig(crop=(32, 32), rare=1.0, gray=0.5, invert=0.5)
    before = image.copy(), labels.copy()
    for seed in range(10):
        first, second = draw(image, labels, config, seed), draw(image, labels, config, seed)
        assert (first[0] == second[0]).all()
        assert (first[1] == second[1]).all()
    assert (draw(image, labels, config, 1)[0] != draw(image, labels, config, 2)[0]).any()
    assert (image == before[0]).all()
    assert (labels == before[1]).all()


def test_only_the_needed_window_is_read(tmp_path):
    image = np.lib.format.open_memmap(tmp_path / "i.npy", mode="w+", dtype=np.uint8, shape=(30000, 30000, 1))
    labels = np.lib.format.open_memmap(tmp_path / "l.npy", mode="w+", dtype=np.uint8, shape=(30000, 30000))
    tracemalloc.start()
    draw(image, labels, AugmentConfig(crop=(64, 64), warp=1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_value_changes_are_finite_for_every_dtype_even_on_constant_crops(dtype, channels):
    config = AugmentConfig(crop=(8, 8), rare=1.0, invert=0.5, gray=0.5)
    for image in (np.full((9, 9, channels), 7, dtype), scene(9, 9, channels, dtype)[0]):
        for seed in range(20):
            pixels, _ = draw(image, np.zeros((9, 9), int), config, seed)
            assert pixels.shape == (channels, 8, 8)
            assert pixels.isfinite().all()


@pytest.mark.parametrize("change", ["brightness", "contrast", "gamma", "color", "saturation", "hue"])
def test_amounts_do_not_depend_on_the_unit_and_the_zero_of_the_values(change):
    config = AugmentConfig(**{**_no_color(), change: 0.3, "rare": 0.0})
    values = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    values[0, 0, 0], values[0, 0, 1] = 0.0, 1.0
    small = change_values(values.clone(), np.dtype(np.float32), config, rng(3))
    large = change_values(values * 5000 + 300, np.dtype(np.float32), config, rng(3))
    torch.testing.assert_close(large, small * 5000 + 300, rtol=1e-4, atol=0.5)
    assert (small - values).abs().max() > 0.01


@pytest.mark.parametrize("change", ["saturation", "hue"])
def test_grey_stays_grey(change):
    config = AugmentConfig(**{**_no_color(), change: 0.5, "rare": 0.0})
    gray = torch.rand(1, 9, 9).expand(3, 9, 9) * 255
    torch.testing.assert_close(
        change_values(gray.clone(), np.dtype(np.uint8), config, rng()), gray, atol=1e-2, rtol=0
    )


def test_a_third_of_a_turn_of_hue_swaps_the_channels():
    turned = _turn_around_gray(2 * np.pi / 3) @ np.array([1.0, 2.0, 3.0])
    assert turned == pytest.approx([3.0, 1.0, 2.0])


def test_each_value_change_does_what_it_says():
    image = torch.arange(75, dtype=torch.float32).reshape(3, 5, 5)

    def changed(**amounts):
        return change_values(
            image.clone(),
            np.dtype(np.uint8),
            AugmentConfig(**{**_no_color(), "rare": 1.0, **amounts}),
            rng(1),
        )

    assert (changed() == image).all()
    assert (changed(invert=1.0) == 255 - image).all()
    assert (changed(gray=1.0) == image.mean(0)).all()
    brighter = changed(brightness=1.0)
    torch.testing.assert_close(brighter, image * (brighter[2, 4, 4] / image[2, 4, 4]))
    assert brighter[2, 4, 4] != image[2, 4, 4]
    contrasted = changed(contrast=1.0)
    torch.testing.assert_close(contrasted.mean((1, 2)), image.mean((1, 2)))
    assert changed(noise=1.0).sub(image).std() > 0.1
    impulse = torch.zeros(1, 31, 31)
    impulse[0, 15, 15] = 1
    config = AugmentConfig(**{**_no_color(), "blur": 2.0, "rare": 1.0})
    blurred = change_values(impulse, np.dtype(np.uint8), config, rng(1))
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert blurred.max() < 1


@pytest.mark.parametrize(
    "change",
    [
        {"crop": (0, 5)},
        {"scale": (1.5, 1.0)},
        {"scale": (0.0, 1.0)},
        {"warp": 1.5},
        {"elastic": -1.0},
        {"noise": float("nan")},
        {"flips": "vertical"},
        {"border": "zero"},
        {"margin": -1},
    ],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        AugmentConfig(**change)
