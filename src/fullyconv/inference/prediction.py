"""What a network says of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv import images
from fullyconv.inference.sources import Source
from fullyconv.labels import ClassTable, Labels
from fullyconv.outlines import to_geojson


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of one image.

    Parameters
    ----------
    source
        Where the image was read from.
    labels
        The class of every pixel, H×W.
    probabilities
        H×W×K, float32, softmax over classes; ``None`` where not asked for.
    classes
        The class table of the labels.
    reasons
        Why the answer is not that of the whole image, one line each; empty where it is. It then was blended
        from overlapping tiles.
    """

    source: Source
    labels: Labels
    probabilities: NDArray[np.float32] | None
    classes: ClassTable
    reasons: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether this equals the prediction of the whole image, but for the last bits of the scores."""
        return not self.reasons

    @property
    def image(self) -> NDArray[Any]:
        """The image, H×W×C in its own type; a view where it was given as an array."""
        height, width = self.source.size
        return self.source.read(slice(0, height), slice(0, width))

    def to_geojson(self) -> dict[str, Any]:
        """Return the outlines of the labels in pixels; see `fullyconv.outlines.to_geojson`."""
        return to_geojson(self.labels, self.classes)

    def overlay(self, opacity: float = 0.5) -> NDArray[np.uint8]:
        """Return the image with its labels painted over it, H×W×3."""
        return images.overlay(self.image, self.labels, self.classes, opacity=opacity)
