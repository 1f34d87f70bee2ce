"""How much each pixel of a training image counts, by the narrow gaps between objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullyconv.datasets import Dataset, Sample, class_counts, find_instances
from fullyconv.labels import Labels
from fullyconv.losses import border_weights, inverse_frequency_weights


@dataclass(frozen=True)
class BorderWeights:
    """Weighs the pixels of a sample by U-Net's map (Ronneberger et al., arXiv 1505.04597, equation 2).

    Parameters
    ----------
    w0
        The weight added in a gap of width 0.
    sigma
        σ in pixels: how fast it falls with the width of the gap.
    class_weights
        w_c of each class.
    ignore_index
        The label of pixels of weight 0.
    """

    w0: float
    sigma: float
    class_weights: tuple[float, ...]
    ignore_index: int

    @classmethod
    def balanced(cls, dataset: Dataset, samples: Sequence[Sample], w0: float, sigma: float) -> BorderWeights:
        """Return the map whose w_c give every class the same total over all ``samples``."""
        weights = inverse_frequency_weights(class_counts(dataset, samples))
        return cls(w0, sigma, tuple(weights.tolist()), dataset.classes.ignore_index)

    def __call__(self, sample: Sample, labels: Labels) -> NDArray[np.float32]:
        """Return H×W, float32; see `find_instances` for where the objects come from."""
        instances = find_instances(sample, labels, ignore_index=self.ignore_index)
        return border_weights(
            instances,
            labels,
            self.w0,
            self.sigma,
            ignore_index=self.ignore_index,
            class_weights=self.class_weights,
        )
