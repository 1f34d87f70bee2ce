"""A convolution as a matrix: the picture for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from fullyconv.explanation.document import DRAWN_SCALE, Drawn, Section, Source
from fullyconv.explanation.drawing import Pixels
from fullyconv.explanation.subject import Subject
from fullyconv.explanation.toeplitz import matrix_figure
from fullyconv.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 5
_DOTS = 72 * DRAWN_SCALE  # per inch


def explain_matrix(subject: Subject, progress: Progress) -> Section:
    """Draw a small convolution as the matrix that it is, beside its transpose."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = nn.Conv2d(1, 1, 3, bias=False)
    alt = (
        "A 3×3 kernel, a 5×5 input and the 3×3 output; below them the 9×25 matrix, whose blocks on each "
        "diagonal are equal, and beside it the 25×9 transpose."
    )
    return Section(
        "A convolution is a matrix, and upsampling its transpose",
        (
            "Every layer of this network is linear but for its activations and poolings. A convolution "
            "multiplies the image, written as one column of numbers, by a matrix that is mostly zeros, and "
            "in which the same few weights return along diagonals. A fully connected layer is a matrix "
            "without those zeros, which is why one can be written as the other. The transposed matrix goes "
            "the other way, from few numbers to many: that is the transposed convolution that upsamples, "
            "and also how gradients flow back.",
            Drawn(
                _pixels(matrix_figure(conv, (_SIDE, _SIDE))),
                alt,
                "Small enough to follow by eye; a layer of the network is the same, with more of it.",
            ),
        ),
        (
            Source(
                "Dumoulin, Visin, arXiv 1603.07285, sections 4.1 and 4.2", "https://arxiv.org/abs/1603.07285"
            ),
            Source(
                "Long, Shelhamer, Darrell, arXiv 1411.4038, section 3.3", "https://arxiv.org/abs/1411.4038"
            ),
        ),
    )


def _pixels(figure: Figure) -> Pixels:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(_DOTS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
