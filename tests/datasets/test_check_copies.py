"""The corrected copy passes the check, holds what the data held, and appears whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fullyconv.datasets import check, find_instances, open_dataset, write_corrected
from fullyconv.datasets._checks import _correction
from fullyconv.errors import ConfigError, DataError
from fullyconv.images import read_mask


def corrected(folder, *, snap: bool = False):
    out = folder.root.parent / "fixed"
    correction = write_corrected(check(folder.root), out, snap=snap)
    assert check(out).errors == ()
    return correction, open_dataset(out)


def loaded(dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {sample.name: dataset.load(sample) for sample in dataset.samples}


def test_a_copy_of_right_data_is_equal(discs):
    before = open_dataset(discs.root)
    correction, after = corrected(discs)
    assert (correction.samples, correction.changes, correction.left_out) == (12, (), ())
    assert after.classes == before.classes
    assert [(s.name, s.split) for s in after.samples] == [(s.name, s.split) for s in before.samples]
    for name, (image, labels) in loaded(before).items():
        assert (loaded(after)[name][0] == image).all()
        assert (loaded(after)[name][1] == labels).all()
    assert {path.suffix for path in (after.root / "masks").iterdir()} == {".png"}


def test_snapping_restores_masks_that_were_compressed_or_smoothed(discs):
    truth = {path.stem: np.asarray(Image.open(path)) // 255 for path in (discs.root / "masks").iterdir()}
    for name in "abc":
        path = discs.root / f"masks/{name}.png"
        Image.open(path).save(path.with_suffix(".jpg"), quality=92)
        path.unlink()
    for name in "def":
        path = discs.root / f"masks/{name}.png"
        Image.open(path).filter(ImageFilter.GaussianBlur(0.6)).save(path)
    correction, after = corrected(discs, snap=True)
    assert len(correction.changes) == 6
    for name, (_, labels) in loaded(after).items():
        assert np.mean(labels != truth[name]) < 0.005


def test_without_snapping_such_masks_are_left_out_and_the_reason_is_told(discs):
    path = discs.root / "masks/e.png"
    Image.open(path).filter(ImageFilter.GaussianBlur(0.6)).save(path)
    strange = np.asarray(Image.open(path)) % 255 > 0
    correction, after = corrected(discs)
    assert correction.left_out == (
        f"images/e.png: {strange.sum()} pixels of its mask have no class "
        "(--snap gives each the nearest class)",
    )
    assert "e" not in {sample.name for sample in after.samples}


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_of_turned_photographs_are_turned(discs, orientation):
    image, mask = (array[:80] for array in discs.scene(4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(discs.root / "images/e.png", exif=exif)
    discs.save("masks/e.png", mask)
    correction, after = corrected(discs)
    assert correction.changes == (
        f"images/e.png: mask turned by EXIF orientation {orientation}, image written upright",
    )
    upright, labels = loaded(after)["e"]
    assert labels.shape == (96, 80)
    # The discs are 110 brighter than the rest: image and mask were turned alike.
    assert upright[..., 0][labels == 1].mean() > upright[..., 0][labels == 0].mean() + 90


def test_classes_counted_from_one_are_counted_from_zero(discs):
    for path in (discs.root / "masks").iterdir():
        mask = np.asarray(Image.open(path)) // 255
        Image.fromarray((1 + mask + (np.arange(96) > 60)[:, None]).astype(np.uint8)).save(path)
    before = open_dataset(discs.root)
    correction, after = corrected(discs)
    assert len(correction.changes) == 12
    assert after.classes.names == ("class 1", "class 2", "class 3")
    for name, (_, labels) in loaded(before).items():
        assert (loaded(after)[name][1] == labels - 1).all()


def test_names_become_plain_and_stay_apart():
    names = ["a b", "a_b", "é", "E", "train/x", "train_x", "日本", "stack:3", "A_B"]
    plain = _correction._plain_names(names)
    expected = "a_b a_b-2 e E-2 train_x train_x-2 image stack_3 A_B-3"
    assert list(plain.values()) == expected.split()


def test_of_twins_in_two_splits_the_one_that_is_trained_on_goes(discs):
    for part in ("images", "masks"):
        Image.open(discs.root / f"{part}/a.png").save(discs.root / f"{part}/e.png")
    correction, after = corrected(discs)
    assert correction.left_out == ("images/e.png: it is in another split as well",)
    assert len(after.split("val")) == 3


def test_what_cannot_be_put_right_is_left_out(discs):
    (discs.root / "images/e.png").write_text("no image")
    discs.save("masks/f.png", np.zeros((9, 9), np.uint8))
    discs.save("images/g.png", discs.scene(6)[0].astype(np.uint16))
    correction, _ = corrected(discs)
    named = [line.partition(":")[0] for line in correction.left_out]
    assert named == ["images/e.png", "images/f.png", "images/g.png"]


def test_rgb_masks_become_index_masks_of_the_same_classes(discs):
    colors = np.array([[9, 9, 9], [200, 30, 30]], np.uint8)
    for path in (discs.root / "masks").iterdir():
        Image.fromarray(colors[np.asarray(Image.open(path)) // 255]).save(path)
    names = '[[class]]\nname = "paper"\ncolor = [9, 9, 9]\n[[class]]\nname = "ink"\ncolor = [200, 30, 30]\n'
    discs.text("classes.toml", names)
    before = open_dataset(discs.root)
    _, after = corrected(discs)
    assert after.classes == before.classes
    assert (loaded(after)["a"][1] == loaded(before)["a"][1]).all()
    assert read_mask(after.root / "masks/a.png").palette is not None


@pytest.mark.parametrize("highest", [7, 70000])
def test_the_numbers_of_objects_come_along(discs, highest):
    numbers = np.zeros((96, 96), np.int32)
    numbers[:5], numbers[20:30] = 1, highest
    for name in "abcdefghijkl":
        discs.save(f"instances/{name}.tif", numbers)
    _, after = corrected(discs)
    sample = after.samples[0]
    _, labels = after.load(sample)
    assert (find_instances(sample, labels, ignore_index=255) == numbers).all()


@pytest.mark.parametrize("out", ["data/fixed", "data", "full"])
def test_a_place_within_the_data_or_with_something_in_it_is_refused(discs, tmp_path, out):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(ConfigError):
        write_corrected(check(discs.root), tmp_path / out)
    assert (tmp_path / "full/mine.txt").read_text() == "mine"


def test_a_failure_in_between_leaves_nothing_behind(discs, tmp_path, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_correction, "_write_texts", broken)
    with pytest.raises(KeyboardInterrupt):
        write_corrected(check(discs.root), tmp_path / "fixed")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_masks_that_are_not_understood_cannot_be_corrected(discs, tmp_path):
    for path in (discs.root / "masks").iterdir():
        Image.fromarray(np.arange(9216, dtype=np.uint16).reshape(96, 96)).save(path)
    with pytest.raises(DataError, match="object numbers"):
        write_corrected(check(discs.root), tmp_path / "fixed")


def test_classes_too_near_to_each_other_are_not_snapped(discs, tmp_path):
    for path in (discs.root / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    with pytest.raises(ConfigError, match="nearly equal"):
        write_corrected(check(discs.root), tmp_path / "fixed", snap=True)
