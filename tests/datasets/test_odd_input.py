"""Odd input: names that would write on a terminal, tiny images, nonsense, what may not be read."""

from __future__ import annotations

import os
import sys
import zipfile

import pytest

from fullyconv.datasets import _finding, check, write_corrected, write_sheet
from fullyconv.datasets._sources import printable
from fullyconv.errors import DataError


def rename(folder, old: str, new: bytes) -> None:
    for part in ("images", "masks"):
        path = folder.root / part / f"{old}.png"
        try:
            path.rename(path.with_name(os.fsdecode(new + b".png")))
        except OSError:
            pytest.skip("this file system does not take such names")


def test_what_is_printed_of_a_name():
    assert printable("a\nb\x1b[31m\udcff\u202e é 日本") == r"a\nb\x1b[31m\udcff\u202e é 日本"


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be made there")
@pytest.mark.parametrize(
    ("name", "shown"), [(b"a\nb", r"a\nb"), (b"a\x1b[31mb", r"a\x1b[31mb"), (b"\xff\xfe", r"\udcff\udcfe")]
)
def test_controls_in_names_are_spelled_out_and_warned_of(discs, tmp_path, name, shown):
    for path in (discs.root / "splits").iterdir():
        path.unlink()
    rename(discs, "e", name)
    report = check(discs.root)
    (line,) = (str(problem) for problem in report.warnings if "controls" in problem.given)
    assert line == (
        f"images/{shown}.png: line breaks or other controls in the name (as in 1 other file); it is read "
        "rightly here, but scripts and archives may not; fix: rename image and mask alike, with letters, "
        "digits, - and _"
    )
    str(report).encode()
    assert "\x1b" not in str(report)
    write_sheet(report, tmp_path / "sheet.html")
    assert f"<code>{shown}</code>" in (tmp_path / "sheet.html").read_text("utf-8")
    assert write_corrected(report, tmp_path / "fixed").samples == 12


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be made there")
def test_a_missing_partner_of_such_a_name_is_one_line(discs):
    (discs.root / "images/e.png").rename(discs.root / "images/e\n\x1b[31m.png")
    (problem,) = (each for each in check(discs.root).errors if each.given == "it has no mask")
    assert str(problem) == (
        r"images/e\n\x1b[31m.png: it has no mask; fix: add masks/e\n\x1b[31m.png or remove the image"
    )


def test_an_archive_without_a_layout_is_named_not_its_folder_in_the_cache(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("inner.zip", b"PK")
    with pytest.raises(DataError) as raised:
        check(tmp_path / "data.zip")
    assert raised.value.given == f"{tmp_path / 'data.zip'} holds no layout that is known\n    inner.zip"
    assert raised.value.fix == "pack a folder of one of these"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3)])
def test_images_of_a_pixel_are_no_obstacle(folder, size):
    assert check(folder.pairs("a", "b", "c", size=size).root).evidence.layout.samples


def test_json_that_is_nearly_coco_is_no_crash(folder):
    folder.text("a.json", '{"images": [1, null], "annotations": [null, 3], "categories": [5]}')
    with pytest.raises(DataError, match=r"holds no layout that is known\n    a.json"):
        check(folder.root)


def test_annotations_that_are_none_are_named(folder):
    folder.text("a.json", '{"images": [], "annotations": [null, 3], "categories": [{"id": 1, "name": "x"}]}')
    given = "2 annotations without an outline of 3 corners or more, run lengths, or a known category: None, 3"
    assert next(problem.given for problem in check(folder.root).errors) == given


def test_a_folder_that_may_not_be_read_is_said(discs, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", f"{discs.root}/my masks")

    monkeypatch.setattr(_finding, "find_layout", refuse)
    with pytest.raises(DataError) as raised:
        check(discs.root)
    assert raised.value.given == f"{discs.root}/my masks: permission denied"
    assert raised.value.fix == f"chmod -R u+rX '{discs.root}/my masks'"
