"""Archives are unpacked whole and once; what is dangerous is refused before a byte is written."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import layout_samples as samples
import pytest

from fullyconv.datasets import _archives, open_dataset
from fullyconv.datasets._archives import cache_folder, unpack
from fullyconv.errors import DataError, MachineError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLYCONV_CACHE", str(tmp_path / "cache"))


def packed(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def with_names(path: Path, *names: str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def patched(path: Path, old: bytes, new: bytes) -> Path:
    """Change a name in both directories of an archive, as no honest program does."""
    assert len(old) == len(new)
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


@pytest.mark.parametrize("name", ["cvat", "coco", "folders"])
def test_an_archive_is_read_as_the_folder_it_holds(name, tmp_path: Path):
    root = tmp_path / name
    samples.SAMPLES[name][1](root)
    plain = open_dataset(root)
    dataset = open_dataset(packed(tmp_path / "export.zip", root))
    assert dataset.fingerprint() == plain.fingerprint()
    assert [sample.name for sample in dataset.samples] == [sample.name for sample in plain.samples]
    assert any(note.startswith("export.zip was unpacked into ") for note in dataset.notes)


def test_unpacking_is_private_and_done_once(tmp_path: Path):
    archive = with_names(tmp_path / "a.zip", "folder/", "folder/a.txt", "b.txt")
    folder = unpack(archive)
    assert folder.parent == cache_folder() == tmp_path / "cache/archives"
    assert (folder / "folder/a.txt").read_bytes() == b"x"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "b.txt").write_bytes(b"y")
    assert unpack(archive) == folder
    assert (folder / "b.txt").read_bytes() == b"y"
    assert unpack(with_names(tmp_path / "a.zip", "c.txt")) != folder
    assert [child.name for child in folder.parent.iterdir() if child.name.startswith(".")] == []


@pytest.mark.parametrize(
    "name",
    ["../up.txt", "a/../../up.txt", "/root.txt", "C:/x.txt", "c:x.txt", "..\\up.txt", "\\\\host\\x",
     "a\\b.txt", "a//b.txt", "./a.txt", "a/./b.txt", ".."],
)  # fmt: skip
def test_names_that_lead_out_or_mean_two_things_are_refused(name, tmp_path: Path):
    archive = with_names(tmp_path / "bad.zip", "good.txt", name)
    with pytest.raises(DataError, match=r"bad\.zip: the name"):
        unpack(archive)
    assert not cache_folder().exists()
    assert not (tmp_path / "up.txt").exists()


def test_a_name_that_ends_at_a_zero_byte_is_refused(tmp_path: Path):
    archive = patched(with_names(tmp_path / "bad.zip", "a.pngX.txt"), b"a.pngX.txt", b"a.png\0.txt")
    with pytest.raises(DataError, match="the name 'a"):
        unpack(archive)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a/X.png", "a/x.png"), "differ by case only"),
        (("A/x.png", "a/y.png"), "the folders 'a' and 'A' differ by case only"),
        (("caf\u00e9.png", "cafe\u0301.png"), "differ by case only"),
        (("a", "a/x.png"), "'a' is a file and a folder"),
        (("a/x.png", "A"), "is a file and a folder"),
    ],
    ids=["file", "folder", "accent", "file and folder", "folder and file"],
)
def test_names_that_are_one_on_other_systems_are_refused(names, said, tmp_path: Path):
    with pytest.raises(DataError, match=said):
        unpack(with_names(tmp_path / "bad.zip", *names))
    assert not cache_folder().exists()


def test_a_name_twice_is_refused(tmp_path: Path):
    archive = patched(with_names(tmp_path / "bad.zip", "one.png", "two.png"), b"two.png", b"one.png")
    with pytest.raises(DataError, match="not at all"):
        unpack(archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(kind, tmp_path: Path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("images")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc")
    with pytest.raises(DataError, match="'images' is a link or a device"):
        unpack(path)


def test_encrypted_archives_are_refused_with_what_to_do(tmp_path: Path):
    path = tmp_path / "bad.zip"
    with_names(path, "a.txt")
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + place] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'a\.txt' is encrypted.*To fix: unpack it with its password"):
        unpack(path)


def test_bombs_are_refused_by_what_they_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.bin", bytes(2**20))
    assert unpack(path)  # small ones may be as empty as they like
    monkeypatch.setattr(_archives, "HARMLESS_BYTES", 2**16)
    path.write_bytes(path.read_bytes() + b"")
    monkeypatch.setenv("FULLYCONV_CACHE", str(tmp_path / "other"))
    with pytest.raises(DataError, match="more than 200 times"):
        unpack(path)
    monkeypatch.setattr(_archives, "MOST_BYTES", 2**19)
    with pytest.raises(DataError, match="1048576 bytes when unpacked"):
        unpack(path)
    monkeypatch.setattr(_archives, "MOST_FILES", 2)
    with pytest.raises(DataError, match="3 files, more than 2"):
        unpack(with_names(tmp_path / "many.zip", "a", "b", "c"))
    assert not (tmp_path / "other").exists()


def test_an_archive_that_lies_about_its_size_leaves_nothing(tmp_path: Path):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bin", bytes(100_000))
    path.write_bytes(path.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="damaged"):
        unpack(path)
    assert list(cache_folder().iterdir()) == []


@pytest.mark.parametrize("keep", [0, 30, 0.5, 0.9])
def test_damaged_archives_are_refused_and_leave_nothing(keep, tmp_path: Path):
    path = with_names(tmp_path / "a.zip", "a.txt", "b.txt", content=bytes(500))
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(DataError, match=r"a\.zip: it is damaged"):
        open_dataset(path)
    assert not cache_folder().exists()


def test_damaged_content_is_refused_and_leaves_nothing(tmp_path: Path):
    path = with_names(tmp_path / "a.zip", "a.txt", content=b"0123456789")
    patched(path, b"0123456789", b"0123456780")
    with pytest.raises(DataError, match="damaged"):
        unpack(path)
    assert list(cache_folder().iterdir()) == []


def test_a_full_disk_is_said_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_archives, "_SPARE_BYTES", 2**60)
    with pytest.raises(MachineError, match="FULLYCONV_CACHE"):
        unpack(with_names(tmp_path / "a.zip", "a.txt"))
