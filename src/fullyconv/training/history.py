"""What a run has reached, epoch by epoch, as JSON lines and as CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from fullyconv.images import atomic_file

NAME = "history.jsonl"


class History:
    """The rows of ``history.jsonl``, and their numbers in ``history.csv``; both files are always whole.

    Parameters
    ----------
    folder
        The run's.
    step
        Rows of an earlier sitting count up to this step; later ones are computed again.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._folder = folder
        path = folder / NAME
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines]
        self.rows: list[dict[str, Any]] = [row for row in rows if row["step"] <= step]

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, with its ``step``, to both files."""
        self.rows.append(row)
        with atomic_file(self._folder / NAME, overwrite=True) as temporary:
            temporary.write_text("".join(json.dumps(each) + "\n" for each in self.rows), encoding="utf-8")
        numbers = [name for name, value in row.items() if not isinstance(value, list)]
        with (
            atomic_file(self._folder / "history.csv", overwrite=True) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            table = csv.DictWriter(file, numbers, extrasaction="ignore")
            table.writeheader()
            table.writerows(self.rows)
