"""What `check` answers, what it remembers, and that it changes nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullyconv import cli
from fullyconv.datasets import Problem, _checks, check, open_dataset
from fullyconv.errors import DataError


def test_the_report_says_what_was_understood(discs):
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(discs.root / "masks/e.png")
    report = check(discs.root)
    lines = str(report).splitlines()
    assert lines[0].startswith(f"{discs.root}: ")
    assert "  images   12: 9 train, 3 val" in lines
    assert "  sizes    96×96 (12)" in lines
    assert "  pixels   1 channel uint8" in lines
    background, foreground = report.classes
    assert (background.name, foreground.images) == ("background", 11)
    assert background.share + foreground.share == pytest.approx(1)
    assert foreground.pixels == sum(np.count_nonzero(Image.open(p)) for p in (discs.root / "masks").iterdir())
    assert lines[-6:-2] == [
        "no errors",
        "",
        "1 warning",
        "  Empty masks (1); expected: something painted in most masks",
    ]


def test_the_report_in_json_has_everything(discs):
    Image.fromarray(np.zeros((96, 90), np.uint8)).save(discs.root / "masks/e.png")
    found = json.loads(json.dumps(check(discs.root).to_dict()))
    assert (found["samples"], found["splits"], found["errors"]) == (12, {"train": 9, "val": 3}, 1)
    assert (found["sizes"], found["channels"], found["dtypes"]) == ({"96×96": 12}, {"1": 12}, {"uint8": 12})
    problem = found["problems"][0]
    assert problem == {
        "given": "it is 96×90, its image images/e.png is 96×96",
        "fix": "save the mask at the size of its image",
        "where": "masks/e.png",
        "severity": "error",
        "kind": "sizes",
        "others": [],
        "expected": "masks of the size of their images",
    }


def test_many_problems_of_a_kind_are_counted_and_a_common_fix_is_said_once(discs):
    for path in (discs.root / "masks").iterdir():
        Image.fromarray(np.zeros((96, 90), np.uint8)).save(path)
    text = str(check(discs.root))
    assert text.count("save the mask at the size of its image") == 1
    assert "    ... and 4 more (--json lists all)" in text


def test_errors_stop_training_and_warnings_are_told_by_the_dataset(discs):
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(discs.root / "masks/e.png")
    notes = open_dataset(discs.root).notes
    assert notes[-1].startswith("empty masks: masks/e.png: it is empty")
    (discs.root / "images/e.png").write_text("no image")
    with pytest.raises(DataError) as error:
        open_dataset(discs.root)
    assert len(error.value.problems) == 1


def test_a_problem_reads_like_a_line():
    assert str(Problem("it is gone", "bring it back")) == "it is gone; fix: bring it back"
    line = "a b/c: d.png: it is 3: gone; fix: bring; fix: it back"
    parsed = _checks._problem.parse_problem(line)
    assert (parsed.where, parsed.given) == ("a b/c", "d.png: it is 3: gone")
    assert str(parsed) == line


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """A cache of this test alone."""
    monkeypatch.setenv("FULLYCONV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "facts.sqlite"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of samples that are decoded from now on."""
    names: list[str] = []
    take = _checks._kept.take_facts

    def watched(sample):
        names.append(sample.name)
        return take(sample)

    monkeypatch.setattr(_checks._kept, "take_facts", watched)
    return names


def test_what_was_decoded_is_remembered_by_content(discs, kept, decoded):
    first = check(discs.root)
    assert sorted(decoded) == list("abcdefghijkl")
    decoded.clear()
    again = check(discs.root)
    assert decoded == []
    assert again.to_dict() == first.to_dict()
    assert again.evidence.facts == first.evidence.facts
    discs.root.rename(discs.root.parent / "moved")
    check(discs.root.parent / "moved")
    assert decoded == []
    image = discs.root.parent / "moved/images/e.png"
    Image.fromarray(np.full((96, 96), 3, np.uint8)).save(image)
    assert [p.where for p in check(discs.root.parent / "moved").warnings] == ["images/e.png"]
    assert decoded == ["e"]
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(discs.root.parent / "moved/masks/f.png")
    check(discs.root.parent / "moved")
    assert decoded == ["e", "f"]


@pytest.mark.parametrize("damage", ["text", "truncated", "other format", "read-only"])
def test_a_damaged_cache_is_no_obstacle(discs, kept, decoded, damage):
    first = check(discs.root).to_dict()
    if damage == "text":
        kept.write_text("no database at all, but a text that is long enough to be read as one" * 20)
    elif damage == "truncated":
        kept.write_bytes(kept.read_bytes()[:5000])
    elif damage == "other format":
        with sqlite3.connect(kept) as store:
            store.execute("UPDATE kept SET facts = '{}'")
        store.close()
    else:
        kept.unlink()
        kept.parent.rmdir()
        kept.parent.write_text("a file in the place of the folder")
    decoded.clear()
    assert check(discs.root).to_dict() == first
    assert len(decoded) == 12
    if damage in ("text", "other format"):  # it was made anew
        check(discs.root)
        assert len(decoded) == 12


def test_without_a_cache_nothing_is_written(discs, decoded, tmp_path, monkeypatch):
    monkeypatch.setenv("FULLYCONV_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    check(discs.root)
    check(discs.root)
    assert len(decoded) == 24
    assert not (tmp_path / "xdg").exists()
    monkeypatch.delenv("FULLYCONV_CACHE")
    check(discs.root)
    assert (tmp_path / "xdg/fullyconv/facts.sqlite").is_file()


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = 0
    try:
        cli.main([str(each) for each in arguments])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_verb_exits_with_2_for_errors_and_with_0_for_warnings(discs, capsys):
    assert run(capsys, "check", discs.root)[0] == 0
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(discs.root / "masks/e.png")
    code, out, _ = run(capsys, "check", discs.root)
    assert (code, "1 warning" in out) == (0, True)
    (discs.root / "images/e.png").write_text("no image")
    code, out, _ = run(capsys, "check", discs.root, "--json")
    assert (code, json.loads(out)["errors"]) == (2, 1)
    code, _, err = run(capsys, "check", discs.root / "nowhere")
    assert (code, "is not there" in err) == (2, True)
    code, _, err = run(capsys, "check", discs.root, "--snap")
    assert (code, f"add --fix {discs.root}-fixed" in err) == (2, True)


def test_the_verb_writes_a_copy_and_a_sheet_and_judges_the_copy(discs, capsys, tmp_path):
    Image.open(discs.root / "masks/e.png").save(discs.root / "masks/e.jpg")
    (discs.root / "masks/e.png").unlink()
    before = {path: path.read_bytes() for path in discs.root.rglob("*") if path.is_file()}
    sheet, out = tmp_path / "sheet.html", tmp_path / "out"
    code, text, _ = run(capsys, "check", discs.root, "--fix", out, "--snap", "--sheet", sheet)
    assert code == 0
    assert "Masks compressed with loss (1)" in text
    assert f"{out}: 12 pairs written" in text
    assert text.rstrip().endswith("no warnings")
    assert sheet.is_file()
    assert {path: path.read_bytes() for path in discs.root.rglob("*") if path.is_file()} == before
    code, text, err = run(capsys, "check", discs.root, "--json", "--sheet", sheet)
    assert (code, text) == (2, "")
    assert "already exists" in err
