"""Datasets of Hugging Face: parquet files with columns of encoded images, ``struct{bytes, path}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from numpy.typing import NDArray

from fullyconv.datasets._classfile import ClassFile
from fullyconv.datasets._layouts._layout import Layout, name_classes, split_of, visible_files
from fullyconv.datasets._samples import Sample, counted, problem
from fullyconv.datasets._sources import as_file, digest_of_values
from fullyconv.errors import DataError, MachineError
from fullyconv.images import Mask, read_image, read_mask

_IMAGES = ("image", "img", "pixel_values", "images")
_MASKS = (
    "annotation", "label", "mask", "segmentation_mask", "semantic_mask", "labels", "masks",
    "annotations", "label_map", "seg", "segmentation", "gt", "groundtruth",
)  # fmt: skip
_lock = Lock()


@dataclass(frozen=True)
class Cell:
    """An encoded image in a column of a row group."""

    path: Path
    group: int
    row: int
    column: str
    number: int

    @property
    def place(self) -> str:
        """The row in the file, counted from 0, and the column."""
        return f"row {self.number}, {self.column}"

    def read_image(self) -> NDArray[Any]:
        """Decode it, as `fullyconv.images.read_image` does."""
        with as_file(self._name, self._content()) as path:
            return read_image(path)

    def read_mask(self) -> Mask:
        """Decode it, as `fullyconv.images.read_mask` does."""
        with as_file(self._name, self._content()) as path:
            return read_mask(path)

    def digest(self) -> str:
        """Return digits of the encoded image."""
        return digest_of_values(self._content())

    @property
    def _name(self) -> str:
        return f"{self.path}, {self.place}"

    def _content(self) -> bytes:
        with _lock:  # so that threads do not read one group twice
            cells = _column(self.path, self.path.stat().st_mtime_ns, self.group, self.column)
        content: bytes = (cells[self.row].as_py() or {}).get("bytes") or b""
        return content


def find_parquet(root: Path) -> Layout | None:
    """``data/train-00000-of-00002.parquet`` and so on, with an image and a mask column."""
    files = [path for path in visible_files(root) if path.suffix.lower() == ".parquet"]
    if not files:
        return None
    samples, problems = [], []
    columns = ""
    for path in files:
        file = _open(path)
        image, mask = _columns(file.schema_arrow)
        where = path.relative_to(root).as_posix()
        if image is None or mask is None:
            have = ", ".join(file.schema_arrow.names)
            fix = f"name the columns {_IMAGES[0]} and {_MASKS[0]}, each struct{{bytes, path}}"
            problems.append(problem(where, f"no columns of images and masks among {have}", fix))
            continue
        columns = f"{image}, {mask}"
        split = split_of(path.stem) or split_of(path.parent.name)
        stem = path.relative_to(root).with_suffix("").as_posix()
        number = 0
        for group in range(file.num_row_groups):
            for row in range(file.metadata.row_group(group).num_rows):
                cells = [Cell(path, group, row, column, number) for column in (image, mask)]
                samples.append(Sample(f"{stem}:{number:06}", cells[0], cells[1], split))
                number += 1
    return Layout(
        f"Hugging Face parquet with {counted(len(samples), 'row')} ({columns})",
        tuple(samples),
        tuple(problems),
        (),
        _names(root),
    )


def _columns(schema: Any) -> tuple[str | None, str | None]:
    """Return the columns of images and of masks: encoded images of the usual names."""
    encoded = [field.name for field in schema if _holds_files(field.type)]
    image = next((name for name in _IMAGES if name in encoded), None)
    mask = next((name for name in _MASKS if name in encoded), None)
    return image, mask


def _holds_files(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_struct(kind) and {field.name for field in kind} >= {"bytes"}


def _names(root: Path) -> ClassFile | None:
    """Return the classes of ``id2label.json``, which datasets for segmentation have beside them."""
    path = root / "id2label.json"
    if not path.is_file():
        return None
    try:
        table: Mapping[str, str] = json.loads(path.read_text("utf-8"))
        named = {int(key): str(name) for key, name in table.items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: {error}", '{"0": "road", ...}', "correct or remove it") from error
    keys = sorted(named)
    return name_classes(str(path), [named[key] for key in keys], indices=keys)


def _open(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MachineError(
            f"{path} is a parquet file, and pyarrow is not installed",
            "the extra parquet",
            "pip install 'fullyconv[parquet]'",
        ) from error
    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: {error}", "a whole parquet file", "download it again") from error


@lru_cache(maxsize=4)  # a group is read whole, and its neighbours are asked for next
def _column(path: Path, changed: int, group: int, column: str) -> Any:
    with _open(path) as file:
        return file.read_row_group(group, columns=[column]).column(0)
