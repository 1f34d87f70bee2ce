"""Labels as one palette PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ImageError
from fullyconv.images._planned import Planned
from fullyconv.images._stored import MAX_PIXELS
from fullyconv.images._write import encode_labels


class PngSink:
    """Keeps all labels in memory and writes them at the end."""

    def __init__(self, path: Path, planned: Planned) -> None:
        height, width = planned.size
        if planned.content != "labels":
            raise ImageError("probabilities as PNG", "a form that holds them", "use .tif or .zarr")
        if height * width > MAX_PIXELS:
            raise ImageError(
                f"{height}×{width} = {height * width} pixels for a PNG, which is written and read as a whole",
                f"at most {MAX_PIXELS}",
                "use .tif or .zarr, which have tiles",
            )
        self._path, self._planned = path, planned
        self._labels = np.empty(planned.size, planned.dtype)

    def write(self, top: int, rows: NDArray[Any]) -> None:
        """Keep rows."""
        self._labels[top : top + len(rows)] = rows[..., 0]

    def close(self) -> None:
        """Write the file."""
        self._path.write_bytes(encode_labels(self._labels, self._planned.classes))

    def discard(self) -> None:
        """Do nothing: no file is open."""
