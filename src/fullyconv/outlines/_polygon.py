"""A region of one label: an outer ring and the rings of its holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import GeometryError

Ring = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Polygon:
    """A region of one label.

    Parameters
    ----------
    label
        The class, or the number of an object.
    rings
        The outer ring, then one ring per hole; each N×2 (row, column) corners, N ≥ 3, the first not repeated
        at the end. Pixel (r, c) covers the square from corner (r, c) to corner (r + 1, c + 1), so its centre
        is at (r + ½, c + ½).

    Raises
    ------
    GeometryError
        There is no ring, or one is not N×2 finite numbers with N ≥ 3.
    """

    label: int
    rings: tuple[Ring, ...]

    def __post_init__(self) -> None:
        if not self.rings:
            raise GeometryError(
                f"a polygon of label {self.label} without rings", "an outer ring", "leave it out"
            )
        for ring in self.rings:
            if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not _is_finite(ring):
                raise GeometryError(
                    f"a ring of label {self.label} of shape {ring.shape}",
                    "three or more finite (row, column) corners",
                    "leave such rings out",
                )

    @property
    def area(self) -> float:
        """Pixels inside: the area of the outer ring less that of the holes."""
        outer, *holes = (_area(ring) for ring in self.rings)
        return outer - sum(holes)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of the outer ring."""
        (top, left), (bottom, right) = self.rings[0].min(axis=0), self.rings[0].max(axis=0)
        return float(top), float(left), float(bottom), float(right)


def _is_finite(ring: Ring) -> bool:
    return ring.dtype.kind == "i" or bool(np.isfinite(ring).all())


def _area(ring: Ring) -> float:
    """Return the area a ring surrounds, whichever way it turns (the shoelace formula)."""
    rows, columns = (ring - ring[0]).T
    return abs(float(columns @ np.roll(rows, -1) - rows @ np.roll(columns, -1))) / 2
