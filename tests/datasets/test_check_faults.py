"""A poisoned dataset per fault: what `check` says of it is held to the letter, and it says nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fullyconv.datasets import CHECKS, check

NAMES = tuple("abcdefghijkl")
VALIDATION = NAMES[:3]


def read(folder: Any, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder.root / name))


def as_index(folder: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write every mask anew from its 0 and 1."""
    for name in NAMES:
        folder.save(f"masks/{name}.png", change(read(folder, f"masks/{name}.png") // 255).astype(np.uint8))


class Said(NamedTuple):
    severity: str
    line: str


def unreadable(folder: Any) -> Said:
    path = folder.root / "images/e.png"
    path.write_bytes(path.read_bytes()[:40])
    return Said("error", "images/e.png: damaged or cut off (")


def smoothed_borders(folder: Any) -> Said:
    image = Image.open(folder.root / "masks/e.png").filter(ImageFilter.GaussianBlur(1))
    image.save(folder.root / "masks/e.png")
    values = np.asarray(image)
    strange = (values > 0) & (values < 255)
    row, column = np.argwhere(strange)[0]
    return Said(
        "error",
        f"masks/e.png: {strange.sum()} of 9216 pixels hold {len(np.unique(values[strange]))} values that "
        f"are no class, first value {values[row, column]} at row {row}, column {column}: smoothed "
        "borders; fix: save the mask with nearest-neighbour resizing and without anti-aliasing, or give "
        f"each the nearest class: fullyconv check {folder.root} --fix {folder.root}-fixed --snap",
    )


def jpeg_masks_everywhere(folder: Any) -> Said:
    for name in NAMES:
        path = folder.root / f"masks/{name}.png"
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    values = read(folder, "masks/a.jpg")
    return Said(
        "error",
        "masks/a.jpg: it is compressed with loss (JPEG), so its values are no labels any more: "
        f"{((values > 0) & (values < 255)).sum()} of 9216 pixels hold no class's value; fix: save the "
        f"original mask as PNG, or give each the nearest class: fullyconv check {folder.root} --fix "
        f"{folder.root}-fixed --snap",
    )


def transparent_mask(folder: Any) -> Said:
    rgba = np.zeros((96, 96, 4), np.uint8)
    rgba[3:, :, 3] = 255
    folder.save("masks/e.png", rgba)
    return Said(
        "error",
        "masks/e.png: the image has 288 transparent pixel(s), the first at row 0, column 0; "
        "fix: flatten it onto a background and save it without alpha",
    )


def rgb_masks_without_names(folder: Any) -> Said:
    colors = np.array([[0, 0, 0], [200, 30, 30]], np.uint8)
    for name in NAMES:
        folder.save(f"masks/{name}.png", colors[read(folder, f"masks/{name}.png") // 255])
    return Said(
        "error",
        "the masks are RGB and there is no classes.toml; fix: write classes.toml beside the masks' "
        "folder and change "
        'the names:\n[[class]]\nname = "background"\ncolor = [0, 0, 0]\n\n[[class]]\nname = "class 1"\n'
        "color = [200, 30, 30]\n",
    )


def smoothed_rgb_masks(folder: Any) -> Said:
    colors = np.array([[0, 0, 0], [200, 30, 30]], np.uint8)
    for name in NAMES:
        painted = Image.fromarray(colors[read(folder, f"masks/{name}.png") // 255])
        painted.filter(ImageFilter.GaussianBlur(0.8)).save(folder.root / f"masks/{name}.png")
    different = len(
        np.unique(np.concatenate([read(folder, f"masks/{n}.png").reshape(-1, 3) for n in NAMES]), axis=0)
    )
    return Said(
        "error",
        f"the masks are RGB and hold {different} different colours, most of them at smoothed or "
        "compressed borders; fix: write classes.toml beside the masks' folder and change the names:\n"
        '[[class]]\nname = "background"\ncolor = [0, 0, 0]\n\n'
        '[[class]]\nname = "class 1"\ncolor = [200, 30, 30]\n',
    )


def counted_from_one(folder: Any) -> Said:
    as_index(folder, lambda mask: 1 + mask + (np.arange(96) > 60)[:, None])
    return Said(
        "warning",
        "no pixel has the value 0, the classes seem to be counted from 1 to 3; fix: save the masks with "
        "the values 0 to 2, or write classes.toml beside the masks' folder:\n"
        '[[class]]\nname = "class 1"\ncolor = [230, 159, 0]\nindex = 1\n\n'
        '[[class]]\nname = "class 2"\ncolor = [86, 180, 233]\nindex = 2\n\n'
        '[[class]]\nname = "class 3"\ncolor = [0, 158, 115]\nindex = 3\n',
    )


def names_counted_from_zero(folder: Any) -> Said:
    as_index(folder, lambda mask: 1 + mask)
    folder.text("classes.toml", '[[class]]\nname = "paper"\n\n[[class]]\nname = "ink"\n')
    return Said(
        "error",
        "the masks hold the values 1 to 2 and no 0, classes.toml names 2 classes counted from 0; fix: "
        "write the "
        'indices into classes.toml:\n[[class]]\nname = "paper"\ncolor = [0, 0, 0]\nindex = 1\n\n'
        '[[class]]\nname = "ink"\ncolor = [230, 159, 0]\nindex = 2\n',
    )


def void_is_a_class(folder: Any) -> Said:
    as_index(folder, lambda mask: mask + (np.arange(96) > 60)[:, None])
    text = "\n".join(f'[[class]]\nname = "{name}"\n' for name in ("void", "cell", "edge"))
    folder.text("classes.toml", text)
    return Said(
        "warning",
        "class 'void' (value 0) is learnt and scored like any other; fix: if it means no truth, take it "
        "out of the classes of classes.toml and write there: ignore = 0",
    )


def mostly_ignored(folder: Any) -> Said:
    def hide(mask: np.ndarray) -> np.ndarray:
        values = 1 + mask.astype(int)
        values[:56] = 255
        values[60:70] = 0
        return values

    as_index(folder, hide)
    return Said(
        "warning",
        "58.3% of all pixels are ignored (value 255), neither learnt nor scored; fix: if value 255 is a "
        "class, name it in classes.toml with its index or colour, and ignore another value",
    )


def empty_mask(folder: Any) -> Said:
    folder.save("masks/e.png", np.zeros((96, 96), np.uint8))
    return Said(
        "warning",
        "masks/e.png: it is empty: every pixel is 'background'; fix: keep it if nothing is to be seen in "
        "the image, else paint it",
    )


def nearly_empty_mask(folder: Any) -> Said:
    mask = np.zeros((96, 96), np.uint8)
    mask[5, 7] = 255
    folder.save("masks/e.png", mask)
    return Said(
        "warning",
        "masks/e.png: it is nearly empty: 1 of 9216 pixels are not 'background'; fix: look whether the "
        "rest was forgotten, or is a slip of the brush",
    )


def ignored_mask(folder: Any) -> Said:
    as_index(folder, lambda mask: mask + (np.arange(96) > 60)[:, None])
    folder.save("masks/e.png", np.full((96, 96), 255, np.uint8))
    return Said("warning", "masks/e.png: every pixel is ignored; fix: paint it, or remove image and mask")


def absent_class(folder: Any) -> Said:
    as_index(folder, lambda mask: mask)
    folder.text("classes.toml", "".join(f'[[class]]\nname = "{name}"\n' for name in ("paper", "ink", "gold")))
    return Said(
        "warning",
        "no pixel of class 'gold'; fix: add masks that have some, or take it out of classes.toml (give "
        "the others an index)",
    )


def class_only_in_validation(folder: Any) -> Said:
    as_index(folder, lambda mask: mask)
    for name in VALIDATION:
        folder.save(f"masks/{name}.png", read(folder, f"masks/{name}.png") * 2)
    return Said(
        "warning",
        "no pixel of class 'class 2' in the split train, so it cannot be learnt; fix: move an image that "
        "has some to train",
    )


def rare_class(folder: Any) -> Said:
    as_index(folder, lambda mask: mask)
    mask = read(folder, "masks/e.png").copy()
    mask[4, 4] = 2
    folder.save("masks/e.png", mask)
    return Said(
        "warning",
        "class 'class 2' is very rare: 1 pixel (9e-06 of all) in 1 image; fix: add images with it, merge "
        "it with another class, or train with --class-weights median",
    )


def class_in_few_images(folder: Any) -> Said:
    as_index(folder, lambda mask: mask)
    mask = read(folder, "masks/e.png").copy()
    mask[:9, :9] = 2
    folder.save("masks/e.png", mask)
    return Said(
        "warning",
        "class 'class 2' is in only 1 image of 12; fix: add images with it, so that training and "
        "validation both have some",
    )


def one_class_beside_ignored(folder: Any) -> Said:
    text = "".join(f'[[class]]\nname = "{name}"\n' for name in ("paper", "ink", "gold"))
    folder.text("classes.toml", text)
    return Said(
        "error",
        "every mask holds only 'paper', so there is nothing to tell apart; fix: check that the masks are "
        "the right files, and the values in classes.toml",
    )


def constant_image(folder: Any) -> Said:
    folder.save("images/e.png", np.full((96, 96), 7, np.uint8))
    return Said(
        "warning",
        "images/e.png: every pixel has the same value, so it shows nothing; fix: export it again, or "
        "remove image and mask",
    )


def nan_image(folder: Any) -> Said:
    for name in NAMES:
        values = read(folder, f"images/{name}.png").astype(np.float32)
        if name == "e":
            values[3, 4], values[5, 6] = np.nan, np.inf
        folder.save(f"images/{name}.tif", values)
        (folder.root / f"images/{name}.png").unlink()
    return Said(
        "error",
        "images/e.tif: 2 values are NaN or infinite, first at row 3, column 4; fix: replace them with a "
        "number, or remove the image",
    )


def identical_across_splits(folder: Any) -> Said:
    folder.save("images/e.png", read(folder, "images/a.png"))
    folder.save("masks/e.png", read(folder, "masks/a.png"))
    return Said(
        "error",
        "images/a.png: it is in val, and identical to images/e.png in train; fix: keep it in one split, "
        "or the scores tell more than is true",
    )


def brightened_across_splits(folder: Any) -> Said:
    folder.save("images/e.png", (read(folder, "images/a.png") * 0.7 + 20).astype(np.uint8))
    folder.save("masks/e.png", read(folder, "masks/a.png"))
    return Said(
        "warning",
        "images/a.png: it is in val, and nearly identical to images/e.png in train; fix: keep it in one "
        "split, or the scores tell more than is true",
    )


def cropped_across_splits(folder: Any) -> Said:
    for part, resample in (("images", Image.Resampling.BICUBIC), ("masks", Image.Resampling.NEAREST)):
        cropped = Image.open(folder.root / f"{part}/a.png").crop((3, 2, 93, 94))
        cropped.resize((96, 96), resample).save(folder.root / f"{part}/e.png")
    return Said(
        "warning",
        "images/a.png: it is in val, and nearly identical to images/e.png in train; fix: keep it in one "
        "split, or the scores tell more than is true",
    )


def mirrored_across_splits(folder: Any) -> Said:
    for part in ("images", "masks"):
        folder.save(f"{part}/e.png", read(folder, f"{part}/a.png")[:, ::-1])
    return Said(
        "warning",
        "images/a.png: it is in val, and nearly identical to images/e.png in train; fix: keep it in one "
        "split, or the scores tell more than is true",
    )


def identical_without_splits(folder: Any) -> Said:
    for name in ("train", "val"):
        (folder.root / f"splits/{name}.txt").unlink()
    folder.save("images/e.png", read(folder, "images/a.png"))
    folder.save("masks/e.png", read(folder, "masks/a.png"))
    return Said(
        "warning",
        "images/a.png: it is identical to images/e.png; a random split may train on one and score on the "
        "other; fix: keep one of them, or give them one group (--groups)",
    )


def one_pair_swapped(folder: Any) -> Said:
    image, mask = read(folder, "images/e.png"), read(folder, "masks/e.png")
    folder.save("images/e.png", mask)
    folder.save("masks/e.png", image)
    return Said(
        "error",
        "images/e.png: it looks like a mask, and masks/e.png like its image; fix: swap the two files",
    )


def all_swapped(folder: Any) -> Said:
    (folder.root / "images").rename(folder.root / "other")
    (folder.root / "masks").rename(folder.root / "images")
    (folder.root / "other").rename(folder.root / "masks")
    return Said(
        "error",
        "all 12 images look like masks and all masks like images, as images/a.png and masks/a.png; fix: "
        "swap the two folders",
    )


def one_mask_shifted(folder: Any) -> Said:
    folder.save("masks/e.png", np.roll(read(folder, "masks/e.png"), (-6, 9), (0, 1)))
    return Said(
        "warning",
        "masks/e.png: it fits its image best when moved 6 down and 9 to the left (pixels): probably it "
        "is shifted; fix: look at the sheet (--sheet FILE.html); if it is, export the mask again",
    )


def all_masks_shifted(folder: Any) -> Said:
    for name in NAMES:
        folder.save(f"masks/{name}.png", np.roll(read(folder, f"masks/{name}.png"), 5, 1))
    return Said(
        "warning",
        "12 of 12 masks fit their images best when moved 5 to the left (pixels): the masks are probably "
        "shifted against the images; fix: look at the sheet (--sheet FILE.html); if they are, export the "
        "masks with the same crop and origin as the images",
    )


def rename(folder: Any, old: str, new: str) -> None:
    for part in ("images", "masks"):
        (folder.root / f"{part}/{old}.png").rename(folder.root / f"{part}/{new}.png")
    for path in (folder.root / "splits").iterdir():
        lines = [new if line == old else line for line in path.read_text("utf-8").splitlines()]
        path.write_text("\n".join(lines), "utf-8")


def space_in_a_name(folder: Any) -> Said:
    rename(folder, "e", "e 1")
    return Said(
        "warning",
        "images/e 1.png: spaces in the name (as in 1 other file); it is read rightly here, but scripts "
        "and archives may not; fix: rename image and mask alike, with letters, digits, - and _",
    )


def accent_in_a_name(folder: Any) -> Said:
    rename(folder, "e", "é")
    return Said(
        "warning",
        "images/é.png: letters outside of ASCII in the name (as in 1 other file); it is read rightly "
        "here, but scripts and archives may not; fix: rename image and mask alike, with letters, digits, "
        "- and _",
    )


def case_twins(folder: Any) -> Said:
    rename(folder, "e", "D")
    return Said(
        "warning",
        "images/D.png: images/d.png differs only in case or accents, which other systems do not tell "
        "apart; fix: rename one of the pairs",
    )


def mask_of_other_case(folder: Any) -> Said:
    (folder.root / "masks/e.png").rename(folder.root / "masks/E.png")
    return Said(
        "error",
        "masks/E.png: it has no image; fix: the names differ only in case or accents: mv 'masks/E.png' "
        "'masks/e.png'",
    )


def turned_by_exif(folder: Any) -> Said:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(folder.scene(4)[0][:80]).save(folder.root / "images/e.png", exif=exif)
    folder.save("masks/e.png", folder.scene(4)[1][:80])
    return Said(
        "error",
        "masks/e.png: it is 80×96, its image images/e.png is 96×80 when turned upright; the camera "
        "stored it as 80×96 with EXIF orientation 6, and the mask was painted on that; fix: turn the "
        f"mask as the image is: fullyconv check {folder.root} --fix {folder.root}-fixed",
    )


def mixed_channels(folder: Any) -> Said:
    folder.save("images/e.png", np.dstack([folder.scene(4)[0]] * 3 + [np.full((96, 96), 9, np.uint8)]))
    return Said(
        "error",
        "images/e.png: it has 4 channels, most images have 1; fix: convert it to 1 channel or remove it",
    )


def mixed_dtypes(folder: Any) -> Said:
    folder.save("images/e.png", folder.scene(4)[0].astype(np.uint16) * 200)
    return Said(
        "error",
        "images/e.png: its pixels are uint16, those of most images uint8; fix: convert it to uint8 in "
        "the range the others use, or remove it",
    )


POISONS = {
    "files": (
        unreadable,
        transparent_mask,
    ),
    "values": (smoothed_borders,),
    "compression": (jpeg_masks_everywhere,),
    "meaning": (
        rgb_masks_without_names,
        smoothed_rgb_masks,
        counted_from_one,
        names_counted_from_zero,
    ),
    "ignored": (
        void_is_a_class,
        mostly_ignored,
    ),
    "empty": (
        empty_mask,
        nearly_empty_mask,
        ignored_mask,
    ),
    "classes": (
        absent_class,
        class_only_in_validation,
        rare_class,
        class_in_few_images,
        one_class_beside_ignored,
    ),
    "content": (
        constant_image,
        nan_image,
    ),
    "leakage": (
        identical_across_splits,
        brightened_across_splits,
        cropped_across_splits,
        mirrored_across_splits,
        identical_without_splits,
    ),
    "swapped": (
        one_pair_swapped,
        all_swapped,
    ),
    "alignment": (
        one_mask_shifted,
        all_masks_shifted,
    ),
    "names": (
        space_in_a_name,
        accent_in_a_name,
        case_twins,
    ),
    "pairs": (mask_of_other_case,),
    "sizes": (turned_by_exif,),
    "channels": (mixed_channels,),
    "dtypes": (mixed_dtypes,),
}

# What a poison brings with it besides.
ALSO = {
    one_pair_swapped: {"values"},
    all_swapped: {"meaning", "classes"},
    one_class_beside_ignored: {"ignored", "empty"},
    mask_of_other_case: {"pairs"},
}


def test_nothing_is_wrong_before_it_is_poisoned(discs):
    report = check(discs.root)
    assert report.problems == ()
    assert report.exit_code == 0
    assert "no errors" in str(report)


@pytest.mark.parametrize(
    ("kind", "poison"), [(kind, poison) for kind, poisons in POISONS.items() for poison in poisons]
)
def test_each_fault_has_its_kind_severity_and_message(discs, kind, poison):
    said = poison(discs)
    report = check(discs.root)
    found = [problem for problem in report.problems if problem.kind == kind]
    lines = [str(problem) for problem in found]
    assert any(
        line == said.line or (poison is unreadable and line.startswith(said.line)) for line in lines
    ), lines
    assert {problem.severity for problem in found} == {said.severity}
    assert {problem.kind for problem in report.problems} - {kind} <= ALSO.get(poison, set())
    assert report.exit_code == (2 if any(p.severity == "error" for p in report.problems) else 0)
    assert said.line.partition("; fix: ")[0].partition(": ")[2] in str(report) or len(lines) > 8


def test_every_check_has_a_poison():
    assert POISONS.keys() == CHECKS.keys() - {"amount"}  # which is in test_faults
