"""Which evidence decided the pixel: covering parts of the image, and the gradient, side by side."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from fullyconv.explanation.document import Gallery, Section, Source
from fullyconv.explanation.drawing import SIGNED, Box, Layer, Picture, Scale, signed, strongest
from fullyconv.explanation.evidence import integrated_gradients, occlusion
from fullyconv.explanation.subject import Subject
from fullyconv.progress import Progress

_SHOWN_TOGETHER = 3  # the gradient is drawn averaged over a third of a patch: single pixels cannot be seen


def explain_reasons(subject: Subject, progress: Progress) -> Section:
    """Show what spoke for the pixel's class, by two methods that know nothing of each other."""
    question = subject.question
    first, second, thing = subject.names[0], subject.rival, subject.thing
    covered = occlusion(
        question, progress=lambda done, all_: progress.advance("covering patches", done, all_)
    )
    gradients = integrated_gradients(question)
    agreement = covered.agreement(gradients)
    blur = max(1, covered.side // _SHOWN_TOGETHER)
    blurred = uniform_filter(gradients, blur, mode="constant")
    most = float(covered.falls.max())
    top, bottom, left, right = (edge - subject.margin for edge in covered.strongest)
    strongest = Box((top, bottom), (left, right))
    names = f"Orange speaks for {first}, violet against it."
    pictures = (
        _drawn(
            subject,
            covered.map,
            "Covered",
            (strongest, subject.field, subject.mark),
            f"How far the lead falls when a patch of {covered.side}×{covered.side} pixels there is covered. "
            f"{names} The box is the patch that counts most: without it the lead falls by {most:.2f}.",
        ),
        _drawn(
            subject,
            blurred,
            "Gradient",
            (strongest, subject.field, subject.mark),
            f"What pixels contribute to the lead, by integrated gradients, on average over {blur}×{blur}. "
            f"{names} The box is the patch of the other picture.",
        ),
    )
    return Section(
        f"Which evidence decided this {thing}",
        (
            f"The {thing} is {first} because the score of {first} is ahead of that of {second} by "
            f"{question.margin:.2f}. Two ways to ask which parts of the image make that lead:",
            "Cover a patch with the mean colour, and see how far the lead falls. Patches that overlap by "
            "half are moved over all of the receptive field; drawn is the mean over those that cover a "
            "pixel.",
            "Or blend from a flat image of the mean colour to the image, and add up how the lead changes "
            "with each pixel on the way. All contributions together are the lead less the lead on the flat "
            f"image ({gradients.sum():.2f}).",
            Gallery(pictures, across=2),
            _verdict(agreement),
        ),
        (
            Source(
                "covering: Zeiler, Fergus, arXiv 1311.2901, section 4.2", "https://arxiv.org/abs/1311.2901"
            ),
            Source(
                "integrated gradients: Sundararajan, Taly, Yan, arXiv 1703.01365, section 3",
                "https://arxiv.org/abs/1703.01365",
            ),
        ),
        {
            "lead": question.margin,
            "strongest_patch": [top, bottom, left, right],
            "fall": most,
            "agreement": None if math.isnan(agreement) else agreement,
        },
    )


def _verdict(agreement: float) -> str:
    if math.isnan(agreement):
        return "One of the two is the same everywhere, so they cannot be compared."
    said = "agree well" if agreement > 0.7 else "agree in part" if agreement > 0.3 else "hardly agree"
    return (
        f"Summed over the same patches, the two {said}: their correlation is {agreement:.2f} (1 would be "
        "the same up to scale). They need not be the same, since a patch takes away many pixels at once and "
        "its edges are something new to the network. Trust what both show."
    )


def _drawn(
    subject: Subject, values: NDArray[Any], title: str, marks: tuple[Any, ...], caption: str
) -> Picture:
    shown = subject.shown(values)
    return Picture(
        subject.size,
        (Layer(subject.gray), signed(shown, strongest(shown))),
        title,
        caption,
        f"Evidence map: {caption}",
        marks,
        Scale(SIGNED, "against", f"for {subject.names[0]}"),
    )
