"""What the network says of the image: its labels, and the scores of the pixel."""

from __future__ import annotations

import numpy as np

from fullyconv import images
from fullyconv.explanation.document import Gallery, Legend, Section, Source, Table
from fullyconv.explanation.drawing import Layer, Picture
from fullyconv.explanation.subject import Subject
from fullyconv.progress import Progress

_LISTED = 5


def explain_answer(subject: Subject, progress: Progress) -> Section:
    """Show the labels of every pixel, and the classes that compete for the chosen one."""
    table = subject.classes
    counts = np.bincount(subject.labels.ravel(), minlength=len(table))
    shares = counts / subject.labels.size
    found = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    legend = Legend(tuple((table.colors[k], table.names[k], f"{shares[k]:.1%}") for k in found))
    first, second = subject.names
    probabilities = subject.probabilities[:, *subject.position]
    labelled = images.overlay(subject.pixels, subject.labels, table, opacity=0.55)
    pictures = (
        Picture(
            subject.size,
            (Layer(subject.photo),),
            "The image",
            f"The ring is the pixel at {subject.named_place}.",
            f"The image, with a ring around the pixel at {subject.named_place}.",
            (subject.mark,),
        ),
        Picture(
            subject.size,
            (Layer(labelled),),
            "The labels",
            "Each pixel has the colour of its best class; class 0 is left unpainted.",
            "The image tinted by class: "
            + ", ".join(f"{table.names[k]} {shares[k]:.0%}" for k in found[:6])
            + ".",
            (subject.mark,),
        ),
    )
    return Section(
        "What the network answers",
        (
            f"For every pixel the network computes one score for each of its {len(table)} classes. The "
            "class with the highest score is the pixel's label. Everything below looks at one pixel, the "
            f"one in the ring: {subject.named_place} ({subject.chosen}). Its label is {first}, and the next "
            f"best is {second}.",
            Gallery(pictures, across=2),
            legend,
            _competitors(subject),
        ),
        (Source("Long, Shelhamer, Darrell, arXiv 1411.4038, section 3", "https://arxiv.org/abs/1411.4038"),),
        {
            "shares": {table.names[k]: float(shares[k]) for k in found},
            "label": first,
            "next": second,
            "probability": float(probabilities[subject.best[0]]),
        },
    )


def _competitors(subject: Subject) -> Table:
    scores = subject.scores[0, :, *subject.position].numpy()
    probabilities = subject.probabilities[:, *subject.position]
    best = np.argsort(-scores, kind="stable")[:_LISTED]
    return Table(
        "The best classes of the pixel in the ring",
        ("class", "score", "probability (softmax)"),
        tuple((subject.classes.names[k], f"{scores[k]:.2f}", f"{probabilities[k]:.1%}") for k in best),
    )
