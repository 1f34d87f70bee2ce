"""A poisoned folder per fault; the message is what people see, so it is held to the letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fullyconv.datasets import open_dataset
from fullyconv.errors import DataError


def test_the_folder_that_is_poisoned_below_is_right(folder):
    assert len(open_dataset(folder.pairs("a", "b", "c").root).samples) == 3


def no_mask(folder: Any) -> str:
    (folder.root / "masks/b.png").unlink()
    return "images/b.png: it has no mask; fix: add masks/b.png or remove the image"


def no_image(folder: Any) -> str:
    (folder.root / "images/b.png").unlink()
    return "masks/b.png: it has no image; fix: add the image to images/ or remove the mask"


def doubled_stem(folder: Any) -> str:
    folder.save("images/b.tif", np.zeros((8, 10), np.uint8))
    return "images: b.png and b.tif have the same stem; fix: keep one of them"


def other_size(folder: Any) -> str:
    folder.save("masks/b.png", np.full((10, 8), 255, np.uint8))
    return (
        "masks/b.png: it is 10×8, its image images/b.png is 8×10; fix: save the mask at the size of its image"
    )


def other_size_after_orientation(folder: Any) -> str:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    folder.save("images/b.png", np.zeros((8, 10), np.uint8), exif=exif)
    return (
        "masks/b.png: it is 8×10, its image images/b.png is 10×8 when turned upright; the camera stored "
        "it as 8×10 with EXIF orientation 6, and the mask was painted on that; fix: turn the mask as the "
        f"image is: fullyconv check {folder.root} --fix {folder.root}-fixed"
    )


def stray_value(folder: Any) -> str:
    mask = np.zeros((8, 10), np.uint8)
    mask[0, 0], mask[2, 7], mask[5, 1] = 255, 254, 254
    folder.save("masks/b.png", mask)
    return (
        "masks/b.png: 2 pixels of value 254, first at row 2, column 7, which is no class; "
        "fix: save the mask with 0 and 255 only (no smoothing, nearest-neighbour resizing)"
    )


def many_stray_values(folder: Any) -> str:
    mask = np.arange(80, dtype=np.uint8).reshape(8, 10)  # 79 of 80 pixels: no smoothed border
    folder.save("masks/b.png", mask)
    return (
        "masks/b.png: 75 more values are no class; "
        "fix: save the mask with 0 and 255 only (no smoothing, nearest-neighbour resizing)"
    )


def value_outside_the_class_file(folder: Any) -> str:
    folder.text("classes.toml", '[[class]]\nname = "a"\nindex = 0\n[[class]]\nname = "b"\nindex = 255\n')
    mask = np.zeros((8, 10), np.uint8)
    mask[3, 4] = 7
    folder.save("masks/b.png", mask)
    return (
        "masks/b.png: 1 pixel of value 7, first at row 3, column 4, which is no class; "
        "fix: correct the mask, or add it to classes.toml as a class or under ignore"
    )


def negative_value(folder: Any) -> str:
    mask = np.zeros((8, 10), np.int32)
    mask[3, 4] = -1
    (folder.root / "masks/b.png").unlink()
    folder.save("masks/b.tif", mask)
    return (
        "masks/b.tif: 1 pixel of value -1, first at row 3, column 4, which is no class; "
        "fix: save the mask with 0 and 255 only (no smoothing, nearest-neighbour resizing)"
    )


def jpeg_mask(folder: Any) -> str:
    (folder.root / "masks/b.png").unlink()
    folder.save("masks/b.jpg", np.zeros((8, 10), np.uint8))
    return (
        "masks/b.jpg: it is compressed with loss (JPEG), so its values are no labels any more: 0 of 80 "
        "pixels hold no class's value; fix: save the original mask as PNG, or give each the nearest "
        f"class: fullyconv check {folder.root} --fix {folder.root}-fixed --snap"
    )


def four_channels(folder: Any) -> str:
    rgba = np.zeros((8, 10, 4), np.uint8)
    rgba[..., 3] = 200
    folder.save("images/b.png", rgba)
    return "images/b.png: it has 4 channels, most images have 1; fix: convert it to 1 channel or remove it"


def other_dtype(folder: Any) -> str:
    folder.save("images/b.png", np.zeros((8, 10), np.uint16))
    return (
        "images/b.png: its pixels are uint16, those of most images uint8; "
        "fix: convert it to uint8 in the range the others use, or remove it"
    )


FAULTS: tuple[Callable[[Any], str], ...] = (
    no_mask,
    no_image,
    doubled_stem,
    other_size,
    other_size_after_orientation,
    stray_value,
    many_stray_values,
    value_outside_the_class_file,
    negative_value,
    jpeg_mask,
    four_channels,
    other_dtype,
)


@pytest.mark.parametrize("poison", FAULTS)
def test_each_fault_has_its_message(folder, poison):
    folder.pairs("a", "b", "c")
    expected = poison(folder)
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    assert expected in error.value.problems
    if poison is not many_stray_values:
        assert error.value.problems == (expected,)


@pytest.mark.parametrize("name", ["images/b.png", "masks/b.png"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
def test_a_truncated_file_is_named(folder, name, keep):
    folder.pairs("a", "b", "c", size=(40, 50))
    path = folder.root / name
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    (problem,) = error.value.problems
    assert problem.startswith(f"{name}: ")
    assert str(folder.root) not in problem
    assert "; fix: " in problem


def test_all_faults_come_at_once(folder):
    folder.pairs("a", "b", "c", "d", "e", "f")
    folder.save("masks/a.png", np.zeros((3, 3), np.uint8))
    (folder.root / "masks/b.png").unlink()
    folder.text("images/c.png", "no image")
    folder.save("images/d.png", np.zeros((8, 10), np.uint16))
    folder.save("masks/e.png", np.full((8, 10), 3, np.uint8))
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    starts = [problem.partition(":")[0] for problem in error.value.problems]
    assert sorted(starts) == ["images/b.png", "images/c.png", "images/d.png", "masks/a.png", "masks/e.png"]
    assert str(error.value).startswith(f"{folder.root} has 5 problems")


@pytest.mark.parametrize("stems", [(), ("a",)])
def test_fewer_than_two_pairs_are_refused(folder, stems):
    folder.pairs(*stems)
    (folder.root / "images").mkdir(parents=True, exist_ok=True)
    with pytest.raises(DataError, match=r"[01] usable pairs? .*fix: add more"):
        open_dataset(folder.root)


def test_images_without_any_masks_folder_are_refused(folder):
    folder.save("images/a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match=r"images/a.png: it has no mask"):
        open_dataset(folder.root)
    folder.save("test/images/a.png", np.zeros((4, 4), np.uint8))
    folder.save("test/images/b.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match=r"no image has a mask"):
        open_dataset(folder.root)


def test_a_fault_of_the_class_file_comes_before_reading_images(folder):
    folder.pairs("a", "b").text("classes.toml", "x = 1")
    with pytest.raises(DataError, match=r"classes.toml: unknown key 'x'"):
        open_dataset(folder.root)
