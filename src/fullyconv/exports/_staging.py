"""Files that are written, tried, and only then appear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fullyconv.images import atomic_file


@contextmanager
def staged(path: Path, companions: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """Yield the name to write to in a hidden folder; when the block ends well, what lies there appears.

    Parameters
    ----------
    path
        The file to make.
    companions
        Suffixes of files of the same name that belong to it; they appear before it, so that where it is,
        they are.
    overwrite
        Replace files that are already there.

    Raises
    ------
    InputError, MachineError
        As `fullyconv.images.atomic_file`, before the block begins or after it ends.
    """
    with ExitStack() as stack:  # left in reverse order, so the file itself appears last
        temporaries = [
            stack.enter_context(atomic_file(target, overwrite=overwrite))
            for target in (path, *map(path.with_suffix, companions))
        ]
        folder = stack.enter_context(TemporaryDirectory(prefix=".", suffix=".part", dir=path.parent))
        written = Path(folder) / path.name
        yield written
        for temporary, suffix in zip(temporaries, (path.suffix, *companions), strict=True):
            written.with_suffix(suffix).replace(temporary)
        if companions:
            path.unlink(missing_ok=True)  # the old one does not go with the new companions
