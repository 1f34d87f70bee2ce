"""Annotation files in JSON, read as far as their kind can be told."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from fullyconv.datasets._layouts._layout import visible_files


def json_files(root: Path) -> list[Path]:
    """Return the ``.json`` files below a folder."""
    return [path for path in visible_files(root) if path.suffix.lower() == ".json"]


def read_json(path: Path) -> Any:
    """Return what a file holds; None where it cannot be read as JSON."""
    stat = path.stat()
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)  # each layout looks at the same few large files
def _read(path: Path, changed: int, size: int) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return None


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def size_in(entry: dict[str, Any], height: str, width: str) -> tuple[int, int] | None:
    """Return (height, width) as an entry gives it; None where it does not."""
    high, wide = entry.get(height), entry.get(width)
    if isinstance(high, int) and isinstance(wide, int) and high > 0 and wide > 0:
        return high, wide
    return None
