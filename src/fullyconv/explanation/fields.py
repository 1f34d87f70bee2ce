"""What the pixel can see, and what it does see: its receptive field and the effective one."""

from __future__ import annotations

import numpy as np

from fullyconv.explanation.document import Gallery, Section, Source, Table
from fullyconv.explanation.drawing import HEAT, Layer, Picture, Scale, heat, strongest
from fullyconv.explanation.evidence import distances, effective_receptive_field
from fullyconv.explanation.subject import Subject
from fullyconv.progress import Progress

_SHARES = (0.5, 0.9, 0.99)


def explain_fields(subject: Subject, progress: Progress) -> Section:
    """Draw the receptive field, exact, and how strongly each pixel in it acts."""
    question = subject.question
    strength = effective_receptive_field(question)
    reach = distances(strength, _centre(subject), _SHARES)
    field = subject.field
    context = question.geometry.global_context
    exact = question.geometry.receptive_field
    if context:
        said = (
            f"Every position of this network depends on the whole image, through {context[0]}"
            + (f" and {len(context) - 1} more" if len(context) > 1 else "")
            + ". Its receptive field has no bound."
        )
    else:
        height, width = exact or (0, 0)
        said = (
            f"Layer by layer the pixels that a score depends on add up to {height}×{width}: the receptive "
            "field. It follows from kernels, strides and paddings alone, in whole numbers, whatever the "
            "weights are. The box shows it, cut off at the border of the image. Nothing outside it can "
            "change the score."
        )
    names = subject.names
    shown = np.sqrt(subject.shown(strength))
    pictures = (
        Picture(
            subject.size,
            (Layer(subject.photo),),
            "The receptive field",
            f"Rows {field.rows[0]} to {field.rows[1] - 1}, columns {field.columns[0]} to "
            f"{field.columns[1] - 1} of the image above.",
            "The image with a box around all that the pixel in the ring depends on.",
            (field, subject.mark),
        ),
        Picture(
            subject.size,
            (Layer(subject.gray), heat(shown, strongest(shown))),
            "The effective receptive field",
            f"How strongly the score of {names[0]} changes with each pixel (square root, so that the faint "
            "shows).",
            f"A map that is brightest at the ring: half of it lies within {reach[0]} pixels.",
            (field, subject.mark),
            Scale(HEAT, "not at all", "most"),
        ),
    )
    rows = tuple((f"{share:.0%}", f"{far} pixels") for share, far in zip(_SHARES, reach, strict=True))
    return Section(
        f"What the {subject.thing} can see, and what it does see",
        (
            said,
            "Not all of it counts alike. Few paths lead from a far pixel to the score and many from a near "
            "one, so the gradient of the score with respect to the image fades from the middle outwards: "
            "that is the effective receptive field. It depends on the weights and on the image.",
            Gallery(pictures, across=2),
            Table("How near the gradient lies", ("share of the gradient", "lies within"), rows),
        ),
        (
            Source("receptive field: Dumoulin, Visin, arXiv 1603.07285", "https://arxiv.org/abs/1603.07285"),
            Source(
                "effective: Luo, Li, Urtasun, Zemel, arXiv 1701.04128, section 2",
                "https://arxiv.org/abs/1701.04128",
            ),
        ),
        {
            "receptive_field": None if context else exact,
            "rows": field.rows,
            "columns": field.columns,
            "gradient_within": dict(zip((f"{share:g}" for share in _SHARES), reach, strict=True)),
        },
    )


def _centre(subject: Subject) -> tuple[int, int]:
    """Return the pixel in the ring, counted in what the network was given."""
    row, column = (place + subject.margin for place in subject.at)
    return row, column
