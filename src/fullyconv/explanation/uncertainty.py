"""Where the network is not sure: the entropy of its probabilities, and the margin between the best two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.explanation.document import Gallery, Section, Source, Table
from fullyconv.explanation.drawing import HEAT, Layer, Picture, Scale, heat
from fullyconv.explanation.subject import Subject
from fullyconv.progress import Progress

_MARGINS = (0.1, 0.5, 0.9)


def entropy(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """Return the entropy of class probabilities as a share of the largest there can be.

    Parameters
    ----------
    probabilities
        K×H×W, summing to 1 over the K classes, two or more.

    Returns
    -------
    ndarray
        H×W, float32: 0 where one class has all, 1 where all classes have the same.
    """
    safe = np.maximum(probabilities, np.finfo(np.float32).tiny)
    bits = -(probabilities * np.log(safe)).sum(axis=0)
    shares: NDArray[np.float32] = np.clip(bits / np.log(len(probabilities)), 0, 1).astype(np.float32)
    return shares


def margin(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """Return how far the best class's probability is ahead of the next best's.

    Parameters
    ----------
    probabilities
        K×H×W, of two classes or more.

    Returns
    -------
    ndarray
        H×W, float32, 0 (a tie) to 1.
    """
    second, first = np.partition(probabilities, -2, axis=0)[-2:]
    ahead: NDArray[np.float32] = (first - second).astype(np.float32)
    return ahead


def explain_uncertainty(subject: Subject, progress: Progress) -> Section:
    """Show entropy and margin at every position of the scores."""
    spread, ahead = entropy(subject.probabilities), margin(subject.probabilities)
    here = subject.position
    pictures = (
        _drawn(
            subject, spread, "Entropy", ("sure", "all classes alike"), f"At the ring: {spread[here]:.2f}."
        ),
        _drawn(
            subject,
            1 - ahead,
            "Margin",
            ("one far ahead", "a tie"),
            f"At the ring the best class is {ahead[here]:.0%} ahead.",
        ),
    )
    rows = tuple((f"less than {limit:.0%} ahead", f"{(ahead < limit).mean():.1%}") for limit in _MARGINS)
    return Section(
        "Where the network is not sure",
        (
            "The probabilities of a pixel can be summed up in one number in two ways. Their entropy is high "
            "when many classes share the probability. The margin, between the best and the next best, is "
            "small when two compete, whatever the others do. Both light up along outlines, where a label "
            "must change, and in places the network does not understand; these are worth a look, and a "
            "label of yours.",
            Gallery(pictures, across=2),
            Table("How many positions are close calls", ("the best class is", "share of positions"), rows),
            *([_least_sure(subject, spread)] if spread.shape == subject.size else []),
            "Unsure is not the same as wrong. Networks are often wrong and sure, unless their probabilities "
            "have been calibrated.",
        ),
        (
            Source(
                "entropy and margin: Settles, Active Learning Literature Survey (2009), section 3.1",
                "https://burrsettles.com/pub/settles.activelearning.pdf",
            ),
            Source(
                "calibration: Guo, Pleiss, Sun, Weinberger, arXiv 1706.04599, section 2",
                "https://arxiv.org/abs/1706.04599",
            ),
        ),
        {"mean_entropy": float(spread.mean()), "mean_margin": float(ahead.mean())},
    )


def _least_sure(subject: Subject, spread: NDArray[np.float32]) -> str:
    row, column = np.unravel_index(int(spread.argmax()), spread.shape)
    top, left = subject.origin
    return f"It is least sure at row {row + top}, column {column + left}: a pixel to explain next."


def _drawn(
    subject: Subject, values: NDArray[np.float32], title: str, ends: tuple[str, str], caption: str
) -> Picture:
    return Picture(
        subject.size,
        (Layer(subject.gray), heat(subject.spread(values), 1)),
        title,
        caption,
        f"{title} over the image: brighter is less sure; on average {float(values.mean()):.2f}.",
        (subject.mark,),
        Scale(HEAT, *ends),
    )
