"""The contact sheet: one file that needs nothing else, the flagged pictures first."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullyconv.datasets import check, write_sheet
from fullyconv.errors import InputError

VOID = {"meta", "img", "input", "link", "br"}


class Page(HTMLParser):
    """Collects what the tests ask for, and holds that tags close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text("utf-8")
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.feed(self.text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.addresses += [value for key, value in attrs if key in ("src", "href") and value]
        if tag == "img":
            self.images.append(found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @property
    def names(self) -> list[str]:
        return re.findall(r"<figcaption><code>(.*?)</code>", self.text)


def sheet(folder, **options) -> Page:
    path = folder.root.parent / "sheet.html"
    write_sheet(check(folder.root), path, **options)
    return Page(path)


def decode(image: dict[str, str | None]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode((image["src"] or "").partition(",")[2])))


def test_every_picture_is_in_the_file_with_its_mask_and_a_text(discs):
    page = sheet(discs)
    assert page.names == list("abcdefghijkl")
    assert len(page.images) == 24
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "http" not in page.text.replace("http-equiv", "")
    assert [image["alt"] for image in page.images[:2]] == ["a", "mask of a"]
    drawn = np.asarray(decode(page.images[1]).convert("RGBA"))
    mask = np.asarray(Image.open(discs.root / "masks/a.png"))
    assert ((drawn[..., 3] > 0) <= (mask > 0)).mean() > 0.99
    assert (drawn[mask > 0][:, :3] == (230, 159, 0)).all()
    assert "No errors and no warnings." in page.text


def test_flagged_pictures_come_first_with_their_problems(discs):
    discs.save("masks/k.png", np.zeros((96, 96), np.uint8))
    (discs.root / "images/f.png").write_text("no image")
    discs.save("masks/h.png", np.zeros((50, 60), np.uint8))
    page = sheet(discs, most=5)
    assert page.names[:3] == ["f", "h", "k"]
    assert len(page.names) == 5
    assert "5 of 12, flagged first" in page.text
    assert page.text.count("the image cannot be read") == 1
    assert page.text.count('class="beside"') == 1
    assert page.text.count('class="card flagged"') == 3


def test_pixels_without_a_class_are_shown_in_a_colour_of_their_own(discs):
    mask = np.asarray(Image.open(discs.root / "masks/e.png")).copy()
    mask[10:20, 10:20] = 77
    discs.save("masks/e.png", mask)
    page = sheet(discs)
    drawn = np.asarray(decode(page.images[1]).convert("RGBA"))
    assert (drawn[10:20, 10:20, :3] == (255, 0, 170)).all()
    assert "no class</li>" in page.text


def test_masks_that_are_not_understood_and_images_of_any_kind_are_shown(discs):
    for path in (discs.root / "masks").iterdir():
        Image.fromarray(np.arange(9216, dtype=np.uint16).reshape(96, 96)).save(path)
    for path in (discs.root / "images").iterdir():
        Image.fromarray(np.asarray(Image.open(path)).astype(np.float32) / 9).save(path.with_suffix(".tif"))
        path.unlink()
    assert len(sheet(discs).images) == 24


def test_names_are_no_markup(discs):
    for part in ("images", "masks"):
        (discs.root / f"{part}/a.png").rename(discs.root / f"{part}/<script>&.png")
    discs.text("splits/val.txt", "<script>&\nb\nc")
    page = sheet(discs)
    assert "&lt;script&gt;&amp;" in page.text
    assert page.text.count("<script>") == 1


def test_large_pictures_are_made_small_and_a_file_is_not_replaced_unasked(discs):
    image, mask = discs.scene(1, 1000)
    discs.save("images/a.png", image)
    discs.save("masks/a.png", mask)
    page = sheet(discs)
    assert decode(page.images[0]).size == decode(page.images[1]).size == (320, 320)
    with pytest.raises(InputError, match="already exists"):
        sheet(discs)
    sheet(discs, overwrite=True)
