"""Images whose labels are regions, not noise."""

import numpy as np


def blocks(height, width, seed=0, side=150):
    """An RGB image of squares in random colours."""
    colors = np.random.default_rng(seed).integers(0, 256, (-(-height // side), -(-width // side), 3))
    return np.kron(colors, np.ones((side, side, 1)))[:height, :width].astype(np.uint8)
