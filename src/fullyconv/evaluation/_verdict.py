"""Why a network is no better than what needs none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NEARLY_ALL = 0.99


def likely_cause(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """Return what a confusion matrix K×K says of a network that has failed, and what to do."""
    true, given = counts.sum(1), counts.sum(0)
    present = [int(index) for index in np.nonzero(true)[0]]
    most = int(given.argmax())
    if given[most] >= _NEARLY_ALL * given.sum() and len(present) > 1:
        return (
            f"it answers {names[most]!r} for {given[most] / given.sum():.1%} of the pixels and has learned "
            "nothing else yet: train longer, or weigh rare classes (--class-weights median)"
        )
    answers = counts.argmax(1)
    for index in present:
        answer = int(answers[index])
        if answer > index and answers[answer] == index and answer in present:
            return (
                f"{names[index]!r} and {names[answer]!r} are mostly answered as each other: these masks "
                "number the classes otherwise than those of the training; compare their classes.toml"
            )
    never = [repr(names[index]) for index in present if not given[index]]
    if never:
        return (
            f"it never answers {', '.join(never[:5])}{', …' if len(never) > 5 else ''}: train longer, or "
            "weigh rare classes (--class-weights median)"
        )
    return (
        "it was trained too briefly, its masks do not lie over its images, or these images differ from those "
        "of the training (scale, stain, exposure): look at the overlays of its run"
    )
