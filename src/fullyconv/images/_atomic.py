"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fullyconv.errors import InputError, MachineError

_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}


@contextmanager
def atomic_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary file to write; when the block ends well, it becomes ``path`` in one step.

    The temporary file lies in the same folder, hidden, with the suffix ``.part``. It is flushed to the disk
    before it takes its name, and removed if the block raises: ``path`` holds the old bytes, all of the new
    bytes, or does not exist.

    Parameters
    ----------
    path
        The file to make; its folder must exist.
    overwrite
        Replace a file that is already there.

    Yields
    ------
    Path
        An empty file, to be opened for writing.

    Raises
    ------
    InputError
        The file exists and ``overwrite`` is False, or the folder is missing or not writable.
    MachineError
        The disk is full or fails.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with atomic_file(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder", "the name of a file to write", "add a file name to it")
    if not overwrite and os.path.lexists(path):
        raise _exists(path)
    temporary = _beside(path)
    try:
        with _disk_faults(path):
            _create(temporary, path, Path.touch)
            yield temporary
            _flush(temporary)
            _publish(temporary, path, overwrite=overwrite)
    finally:
        with suppress(OSError):  # it took its name, or was never made
            temporary.unlink()


@contextmanager
def atomic_folder(
    path: str | Path, *, replaceable: Callable[[Path], bool], overwrite: bool = False
) -> Iterator[Path]:
    """Give a temporary folder to fill; when the block ends well, it becomes ``path``.

    As `atomic_file`, but for all files in a folder. To replace a folder takes two steps: a machine that
    stops between them leaves the old and the new one, both hidden, in the folder around.

    Parameters
    ----------
    path
        The folder to make; the one around it must exist.
    overwrite
        Replace a folder that is already there.
    replaceable
        Says of a folder in the way whether it is one that may be lost.

    Yields
    ------
    Path
        An empty folder.

    Raises
    ------
    InputError
        The path exists and ``overwrite`` is False or it is not replaceable, or the folder around is missing
        or not writable.
    MachineError
        The disk is full or fails.
    """
    path = Path(path)
    if os.path.lexists(path):
        if not overwrite:
            raise _exists(path)
        if not replaceable(path):
            raise InputError(
                f"{path} is in the way, and no folder of the kind to be written",
                "another name",
                "move it away",
            )
    temporary = _beside(path)
    try:
        with _disk_faults(path):
            _create(temporary, path, Path.mkdir)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _flush(file)
            _publish_folder(temporary, path, overwrite=overwrite)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # it took its name, or was never made


def make_folder(path: str | Path) -> Path:
    """Make a folder to write to, with those around it; one that is there is taken as it is.

    Raises
    ------
    InputError
        A file is in the way, or the folder around may not be written to.
    MachineError
        The disk is full or fails.
    """
    path = Path(path)
    try:
        with _disk_faults(path):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}, which cannot be made: {error.strerror}",
            "a place where a folder can be made",
            "choose another folder, or change the permissions of the one around",
        ) from error
    return path


def _beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}.part")


@contextmanager
def _disk_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FAULTS:
            raise
        raise MachineError(
            f"{path} could not be written: {error.strerror}",
            "a disk with room for the file; nothing was left behind",
            f"free some space (df -h {path.parent}), or write to another disk",
        ) from error


def _create(temporary: Path, path: Path, make: Callable[..., None]) -> None:
    try:
        make(temporary, exist_ok=False)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{path}: there is no folder {path.parent}", "a folder that exists", f"mkdir -p {path.parent}"
        ) from error
    except PermissionError as error:
        raise InputError(
            f"{path}: the folder {path.parent} may not be written to",
            "a folder of yours",
            "choose another folder, or change its permissions",
        ) from error


def _flush(temporary: Path) -> None:
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(path)
        return
    # A hard link fails if the name was taken meanwhile; a rename would silently replace it.
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(path):
            raise _exists(path) from None
        temporary.replace(path)


def _publish_folder(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(path):
        temporary.rename(path)
        return
    if not overwrite:  # it was made meanwhile
        raise _exists(path)
    old = _beside(path)
    path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old)


def _exists(path: Path) -> InputError:
    return InputError(
        f"{path} already exists",
        "a name that is not taken",
        "write elsewhere, or allow it with overwrite=True (--overwrite on the command line)",
    )
