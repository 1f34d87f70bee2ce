"""Opening image files, so that whatever goes wrong with one names it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fullyconv.errors import ImageError, MachineError
from fullyconv.images._formats import find_format
from fullyconv.images._stored import Stored
from fullyconv.images._zarr import is_zarr, open_zarr


@contextmanager
def opened(path: Path) -> Iterator[tuple[str, Stored]]:
    """Read the header of an image; give its format's name and what can be decoded until the block ends.

    Raises
    ------
    ImageError
        There is no such file, it is no image, or the block found it damaged.
    MachineError
        Memory does not suffice.
    """
    with explained(path), ExitStack() as files:
        yield enter(path, files)


def enter(path: Path, files: ExitStack) -> tuple[str, Stored]:
    """Return what `opened` gives; ``files`` closes it."""
    if is_zarr(path):
        return "Zarr", open_zarr(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageError(
            "not a file", "an image file", "name the images in it" if path.is_dir() else "name a file"
        )
    file = files.enter_context(path.open("rb"))
    kind = find_format(file)
    return kind.name, kind.open(file)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn whatever the block raises about a file into an error that names it."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error.given}", error.expected, error.fix) from error.__cause__
    except MemoryError as error:
        raise MachineError(
            f"{path} does not fit into memory", "more memory", "use a machine with more"
        ) from error
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file", "an image file", "check the name") from error
    except Exception as error:
        # A decoder may raise anything on bytes that are not what it takes them for.
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(
                f"{path}: {error.strerror}", "a file that can be read", "check the file"
            ) from error
        raise ImageError(
            f"{path}: damaged or cut off ({type(error).__name__}: {error})",
            "a whole image file",
            "copy or export the file again",
        ) from error
