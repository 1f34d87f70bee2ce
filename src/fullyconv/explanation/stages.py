"""From coarse to fine: what the scores of an FCN are at each stride, and what each skip added."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fullyconv import images
from fullyconv.explanation.document import Content, Gallery, Section, Source, Table
from fullyconv.explanation.drawing import HEAT, SIGNED, Layer, Picture, Scale, heat, signed, strongest, where
from fullyconv.explanation.subject import Subject
from fullyconv.models import FCN
from fullyconv.progress import Progress

_CLASSES = 3


@dataclass(frozen=True, eq=False)
class Stage:
    """The scores of an FCN that hears only the maps down to one stride.

    Parameters
    ----------
    stride
        Of the finest map that is heard.
    scores
        1×K×H×W.
    """

    stride: int
    scores: Tensor

    @property
    def labels(self) -> NDArray[Any]:
        """H×W."""
        return self.scores[0].argmax(0).numpy()


@torch.no_grad()
def score_stages(model: FCN, image: Tensor) -> tuple[Stage, ...]:
    """Return the scores with the coarsest map alone, then with one skip more each time.

    Parameters
    ----------
    model
        An FCN; the score layers of its finer maps are silenced meanwhile.
    image
        1×C×H×W in raw units.

    Returns
    -------
    tuple of Stage
        Coarsest first; the last has the network's own scores.
    """
    layers = {int(stride): layer for stride, layer in model.head.score.items()}
    found = []
    for stride in sorted(layers, reverse=True):
        with _silenced([layer for finer, layer in layers.items() if finer < stride]):
            scores = model(image)
        assert isinstance(scores, Tensor)
        found.append(Stage(stride, scores))
    return tuple(found)


@contextmanager
def _silenced(layers: list[nn.Module]) -> Iterator[None]:
    """Let layers answer zero."""
    hooks = [layer.register_forward_hook(lambda _, __, scores: torch.zeros_like(scores)) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def explain_stages(subject: Subject, progress: Progress) -> Section:
    """Show labels and class maps stage by stage, and what each skip changed."""
    assert isinstance(subject.model, FCN)
    found = score_stages(subject.model, subject.image)
    content: list[Content] = [
        "The coarsest map of features knows best what is in the image, but has one position for "
        f"{found[0].stride}×{found[0].stride} pixels. A skip adds scores that were predicted from a finer "
        "map, which knows less of what and more of where. Below, the finer score layers are silenced and "
        "then let in one after the other. The last stage is the network itself; the earlier ones are what "
        "it builds on, and not networks that were trained to stand alone.",
        Gallery(tuple(_labelled(subject, stage) for stage in found), "The labels at each stage"),
    ]
    if len(found) > 1:
        pairs = list(pairwise(found))
        content += [
            Gallery(tuple(_changed(subject, *pair) for pair in pairs), "Where a skip changed the label"),
            _additions(subject, found),
            Gallery(
                tuple(_added(subject, *pair) for pair in pairs),
                f"What a skip added to {subject.names[0]} against {subject.names[1]}",
            ),
        ]
    content += [_class_maps(subject, found, k) for k in _shown_classes(subject)]
    return Section(
        "From coarse to fine: the class maps at each stride",
        tuple(content),
        (
            Source(
                "Long, Shelhamer, Darrell, arXiv 1411.4038, section 4.2 and figure 3",
                "https://arxiv.org/abs/1411.4038",
            ),
        ),
        {"stages": [_numbers(before, after) for before, after in zip((None, *found), found, strict=False)]},
    )


def _numbers(before: Stage | None, after: Stage) -> dict[str, Any]:
    changed = 0 if before is None else int(np.count_nonzero(before.labels != after.labels))
    return {"stride": after.stride, "labels_changed": changed}


def _shown_classes(subject: Subject) -> list[int]:
    """Return the two classes that compete for the pixel, and the most frequent others."""
    counts = np.bincount(subject.labels.ravel(), minlength=len(subject.classes))
    ranked = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    return list(dict.fromkeys([*subject.best, *ranked]))[:_CLASSES]


def _positions(subject: Subject, stride: int) -> str:
    height, width = (-(-length // stride) for length in subject.size)
    return f"{height}×{width}"


def _labelled(subject: Subject, stage: Stage) -> Picture:
    labelled = images.overlay(subject.pixels, stage.labels, subject.classes, opacity=0.6)
    name = subject.classes.names[int(stage.labels[subject.at])]
    return Picture(
        subject.size,
        (Layer(labelled),),
        f"Stride {stage.stride}",
        f"From maps down to {_positions(subject, stage.stride)} positions. The pixel in the ring: {name}.",
        f"Labels at stride {stage.stride}; the pixel in the ring is {name}.",
        (subject.mark,),
    )


def _changed(subject: Subject, before: Stage, after: Stage) -> Picture:
    changed = before.labels != after.labels
    colors = np.array(subject.classes.colors, np.uint8)[after.labels]
    count = int(np.count_nonzero(changed))
    said = f"{count:,} pixels ({changed.mean():.1%}) have another label"
    return Picture(
        subject.size,
        (Layer(subject.gray, opacity=0.75), where(changed, colors)),
        f"The skip of stride {after.stride}",
        f"{said}, painted in the colour of the new one.",
        f"{said} after the skip of stride {after.stride}, most of them along outlines.",
        (subject.mark,),
    )


def _additions(subject: Subject, found: tuple[Stage, ...]) -> Table:
    names, classes = subject.names, subject.best
    rows, before = [], None
    for stage in found:
        here = stage.scores[0, :, *subject.at]
        changed = 0 if before is None else np.mean(before.labels != stage.labels)
        added = stage.scores if before is None else stage.scores - before.scores
        rows.append(
            (
                f"stride {stage.stride}",
                "–" if before is None else f"{changed:.1%}",
                f"{float(added.std()):.2f}",
                *(f"{float(here[k]):.2f}" for k in classes),
            )
        )
        before = stage
    return Table(
        "What each stage added",
        ("after", "labels changed", "spread of what it added", *(f"score of {name} here" for name in names)),
        tuple(rows),
    )


def _added(subject: Subject, before: Stage, after: Stage) -> Picture:
    first, second = subject.best
    scores = (after.scores - before.scores)[0]
    added = (scores[first] - scores[second]).numpy()
    here = float(added[subject.at])
    return Picture(
        subject.size,
        (Layer(subject.gray), signed(added, strongest(added))),
        f"The skip of stride {after.stride}",
        f"At the pixel in the ring: {here:+.2f}.",
        f"Orange where the skip speaks for {subject.names[0]}, violet where for {subject.names[1]}.",
        (subject.mark,),
        Scale(SIGNED, subject.names[1], subject.names[0]),
    )


def _class_maps(subject: Subject, found: tuple[Stage, ...], k: int) -> Gallery:
    name = subject.classes.names[k]
    pictures = []
    for stage in found:
        probability = stage.scores[0].softmax(0)[k].numpy()
        here = float(probability[subject.at])
        pictures.append(
            Picture(
                subject.size,
                (Layer(subject.gray), heat(probability, 1)),
                f"Stride {stage.stride}",
                f"At the pixel in the ring: {here:.0%}.",
                f"Probability of {name} at stride {stage.stride}: {here:.0%} at the ring, "
                f"{probability.mean():.0%} on average.",
                (subject.mark,),
                Scale(HEAT, "0 %", "100 %"),
            )
        )
    return Gallery(tuple(pictures), f"How probable {name} is")
