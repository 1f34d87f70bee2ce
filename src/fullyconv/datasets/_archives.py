"""Zip archives of datasets, unpacked once into the user's cache, and never anywhere else.

An archive is refused before anything is written if a name in it would leave the folder, if two names differ
by case only, if it holds links or other things that are no files, if it is encrypted, or if it claims to
unpack to more than it can honestly hold.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from fullyconv.errors import DataError, MachineError

MOST_FILES = 1_000_000
MOST_BYTES = 2**40
# What images, masks and annotations are seldom compressed beyond; small archives may be anything.
MOST_RATIO = 200
HARMLESS_BYTES = 2**27

_BLOCK = 2**20
_SPARE_BYTES = 2**28


def is_archive(path: Path) -> bool:
    """Whether a path is a file that is a zip archive by its name and content."""
    return path.is_file() and path.suffix.lower() == ".zip"


def unpack(path: Path) -> Path:
    """Return the folder in the cache with the files of an archive; it is unpacked the first time.

    The folder is named by the archive's content, appears whole or not at all, and only its owner may enter.

    Raises
    ------
    DataError
        The archive is damaged or dangerous; nothing was written.
    MachineError
        The disk has not enough room.
    """
    target = cache_folder() / _digest(path)
    if target.is_dir():
        return target
    try:
        with zipfile.ZipFile(path) as archive:
            members = check_members(path, archive.infolist())
            _write(path, archive, members, target)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError) as error:
        raise _refused(path, f"it is damaged, or no zip archive ({error})", "download it again") from error
    return target


def cache_folder() -> Path:
    """Return where archives are unpacked: in FULLYCONV_CACHE, XDG_CACHE_HOME, or ``~/.cache``."""
    own = os.environ.get("FULLYCONV_CACHE")
    if own:
        return Path(own) / "archives"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fullyconv" / "archives"


def check_members(
    path: Path, members: Iterable[zipfile.ZipInfo]
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Return the files of an archive with their places, after looking at all of them.

    Raises
    ------
    DataError
        One of them is dangerous.
    """
    files: dict[str, PurePosixPath] = {}
    folders: dict[str, PurePosixPath] = {}
    found = []
    packed = unpacked = 0
    for member in members:
        name = _place(path, member)
        if member.is_dir():
            continue
        for folder in name.parents:
            twin = folders.setdefault(_folded(folder), folder)
            if twin != folder:
                raise _refused(path, f"the folders {str(folder)!r} and {str(twin)!r} differ by case only")
        key = _folded(name)
        if key in files:
            raise _refused(
                path, f"{member.filename!r} and {str(files[key])!r} differ by case only, or not at all"
            )
        files[key] = name
        packed += member.compress_size
        unpacked += member.file_size
        found.append((member, name))
    both = sorted(files.keys() & folders.keys())
    if both:
        raise _refused(path, f"{str(files[both[0]])!r} is a file and a folder")
    if len(found) > MOST_FILES:
        raise _refused(path, f"{len(found)} files, more than {MOST_FILES}")
    if unpacked > MOST_BYTES:
        raise _refused(path, f"{unpacked} bytes when unpacked, more than {MOST_BYTES}")
    if unpacked > HARMLESS_BYTES and unpacked > MOST_RATIO * max(packed, 1):
        raise _refused(path, f"{unpacked} bytes from {packed}, more than {MOST_RATIO} times")
    return found


def _place(path: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    """Return where a member goes, below the folder.

    ``orig_filename`` is what the archive says, before a zero byte or a separator of this system changed it.
    """
    name = member.orig_filename
    parts = name.replace("\\", "/").split("/")
    if "\0" in name or name != member.filename.replace(os.sep, "/"):
        raise _refused(path, f"the name {name!r}")
    if not name or name.startswith(("/", "\\")) or ":" in parts[0] or ".." in parts:
        raise _refused(path, f"the name {name!r}, which leads out of the folder")
    if "\\" in name or any(part in ("", ".") for part in parts[:-1]):
        raise _refused(path, f"the name {name!r}, which systems read differently")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(path, f"{name!r} is a link or a device")
    if member.flag_bits & 0x1:
        raise _refused(path, f"{name!r} is encrypted", "unpack it with its password, and name the folder")
    return PurePosixPath(name)


def _folded(name: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(name)).casefold()


def _write(
    path: Path,
    archive: zipfile.ZipFile,
    members: list[tuple[zipfile.ZipInfo, PurePosixPath]],
    target: Path,
) -> None:
    needed = sum(member.file_size for member, _ in members) + _SPARE_BYTES
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise MachineError(
            f"{path} needs {needed / 2**30:.1f} GiB, {target.parent} has {free / 2**30:.1f}",
            "room to unpack it",
            "free some space, or set FULLYCONV_CACHE to a folder on a larger disk",
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as temporary:
        folder = Path(temporary) / "files"
        folder.mkdir(mode=0o700)
        for member, name in members:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            # Never more than the archive claimed: zipfile stops there, and compares the check sum.
            with archive.open(member) as packed, place.open("xb") as file:
                shutil.copyfileobj(packed, file, _BLOCK)
        if not target.exists():  # another process may have been faster
            folder.rename(target)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refused(
    path: Path, what: str, fix: str = "pack the files anew from a source that you trust"
) -> DataError:
    return DataError(f"{path}: {what}", "an archive of files in folders, as exporters write them", fix)
