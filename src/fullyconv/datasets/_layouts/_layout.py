"""What a folder was understood to be, and how files in it are found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fullyconv.datasets._classfile import ClassFile
from fullyconv.datasets._samples import Sample
from fullyconv.errors import ConfigError, DataError
from fullyconv.images import IMAGE_SUFFIXES
from fullyconv.labels import ClassTable, Color

# What people call the parts of a dataset, and what they are called here.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Layout:
    """What a folder was understood to be.

    Parameters
    ----------
    description
        One line for people.
    samples
        The pairs found, sorted by name.
    problems, notes
        One line each: what must be corrected, and what is worth knowing.
    classes
        What the format itself says of them; a ``classes.toml`` goes before it.
    """

    description: str
    samples: tuple[Sample, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    classes: ClassFile | None = None


def name_classes(
    where: str,
    names: Iterable[str],
    *,
    colors: Iterable[Color] = (),
    indices: Iterable[int] | None = None,
    ignored: Iterable[int] | None = None,
    ignored_colors: Iterable[Color] = (),
) -> ClassFile:
    """Return the classes a format names; by default a mask's values are their positions.

    Raises
    ------
    DataError
        The names are fewer than two, or two are equal.
    """
    names, colors = tuple(names), tuple(colors)
    try:
        table = ClassTable(names, colors, ignore_index=255 if len(names) <= 255 else 65535)
    except ConfigError as error:
        raise DataError(f"{where}: {error.given}", error.expected, error.fix) from error
    return ClassFile(
        table,
        tuple(indices) if indices is not None else tuple(range(len(names))),
        (table.ignore_index,) if ignored is None else tuple(ignored),
        tuple(ignored_colors),
        bool(colors),
    )


def split_of(name: str) -> str | None:
    """Return the split a name speaks of: "train" for ``instances_train2017.json``; None for none."""
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return None


def find_lists(folder: Path) -> list[Path]:
    """Return the files ``train.txt``, ``val.txt``, ``test.txt`` of a folder, whatever exactly their names."""
    return [file for file in sorted(folder.glob("*.txt")) if file.stem.lower() in SPLIT_NAMES]


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted, without hidden ones (and what Macs add to archives)."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") or part == "__MACOSX" for part in parts) and path.is_file():
            yield path


def is_image(path: Path) -> bool:
    """Whether a file is named like an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def images_by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Return the image files below a folder by relative path without suffix, and the files of other kinds."""
    found: dict[str, list[Path]] = {}
    others = []
    for path in visible_files(folder):
        if is_image(path):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
        else:
            others.append(path)
    return found, others


class ImageIndex:
    """The images below a folder, to be found by what an annotation file calls them.

    A name may have folders before it that no longer exist, or point outside of the folder: only what lies
    below ``root`` is ever answered.

    Parameters
    ----------
    root
        The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] = {}
        for path in visible_files(root):
            if is_image(path):
                self._by_name.setdefault(path.name.lower(), []).append(path)

    def find(self, name: str, *, near: Path, split: str | None = None) -> Path | None:
        """Return the image of that name: whose folders agree most, else in the split, else nearest."""
        wanted = PurePosixPath(name.replace("\\", "/"))
        found = self._by_name.get(wanted.name.lower(), [])

        def merit(path: Path) -> tuple[int, bool, int]:
            return (
                _agreeing(wanted.parts, path.parts),
                split is not None and split_of(path.parent.name) == split,
                _agreeing(near.parts[::-1], path.parts[::-1]),
            )

        best = sorted(found, key=merit, reverse=True)[:2]
        if len(best) == 2 and merit(best[0]) == merit(best[1]):
            return None
        return best[0] if best else None


def _agreeing(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Count equal parts from the end."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def sample_names(root: Path, images: Iterable[Path]) -> Mapping[Path, str]:
    """Return the name of the sample of each image: its path below ``root``, without a suffix nobody needs."""
    paths = list(images)
    short = {path: path.relative_to(root).with_suffix("").as_posix() for path in paths}
    taken: dict[str, int] = {}
    for name in short.values():
        taken[name] = taken.get(name, 0) + 1
    return {
        path: name if taken[name] == 1 else path.relative_to(root).as_posix() for path, name in short.items()
    }
