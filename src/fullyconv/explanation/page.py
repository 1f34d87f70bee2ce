"""The page that explains one pixel of one image: its sections in order, and what makes it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fullyconv import images
from fullyconv.classifiers import Classifier, load_classifier
from fullyconv.errors import ConfigError, InputError
from fullyconv.explanation.answers import explain_answer
from fullyconv.explanation.document import Command, Section
from fullyconv.explanation.enlarging import explain_upsampling
from fullyconv.explanation.fields import explain_fields
from fullyconv.explanation.hypertext import write_page
from fullyconv.explanation.levels import explain_levels
from fullyconv.explanation.matrix import explain_matrix
from fullyconv.explanation.reasons import explain_reasons
from fullyconv.explanation.stages import explain_stages
from fullyconv.explanation.subject import Subject, see
from fullyconv.explanation.uncertainty import explain_uncertainty
from fullyconv.explanation.windows import explain_class_maps, explain_windows
from fullyconv.models import FCN, SegmentationModel, load, locate, read_header
from fullyconv.progress import Progress, Quiet

Write = Callable[[Subject, Progress], Section]


@dataclass(frozen=True, eq=False)
class Explanation:
    """How a network came to its answer for one pixel of an image.

    Parameters
    ----------
    title
        Of the page.
    summary
        A few lines of plain text.
    at
        (row, column) of the pixel in the image.
    label, rival
        Its class, and the next best.
    sections
        What the page shows, with all that was measured.
    command
        How to explain another pixel.
    """

    title: str
    summary: tuple[str, ...]
    at: tuple[int, int]
    label: str
    rival: str
    sections: tuple[Section, ...]
    command: Command

    @property
    def html(self) -> str:
        """The page: one file that loads nothing."""
        return write_page(self.title, self.summary, self.sections, self.command)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page.

        Raises
        ------
        InputError
            The file exists and ``overwrite`` is off.
        MachineError
            The disk is full.
        """
        with images.atomic_file(path, overwrite=overwrite) as temporary:
            temporary.write_text(self.html, "utf-8")
        return Path(path)

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured as JSON-ready values, one entry per section."""
        return {
            "at": list(self.at),
            "label": self.label,
            "next": self.rival,
            "sections": {section.title: dict(section.numbers) for section in self.sections},
        }

    def __str__(self) -> str:
        return "\n".join([self.title, *self.summary])


def explain(
    model: SegmentationModel | Classifier | str | Path,
    image: NDArray[Any] | str | Path,
    *,
    at: tuple[int, int] | None = None,
    weights: str | Path | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain how a network labels one pixel of an image, as a page for people.

    Parameters
    ----------
    model
        A network, a classifier from `fullyconv.load_classifier`, a model file, or the name of a classifier.
    image
        H×W×C or H×W in the network's own type, or the path of an image file. Of one with a side longer than
        768 pixels, the part around the pixel is explained. A classifier sees it resized, at 6×6 positions.
    at
        (row, column) of the pixel. By default the middle of the largest object: of the largest region, the
        most frequent class aside; for a classifier, of the window it is most sure of.
    weights
        Of a classifier given by name, as `fullyconv.load_classifier` takes them.
    progress
        Told what is being done; covering patches takes longest, a pass of the network each.

    Returns
    -------
    Explanation
        ``save("page.html")`` writes it.

    Raises
    ------
    ConfigError
        ``at`` lies outside the image, the name of a classifier is not known, or ``weights`` go with no name.
    ImageError
        The image's channels or type are not the network's.
    GeometryError, SurgeryError
        Where the network looks cannot be traced, or a classifier has no dense form.
    MachineError
        matplotlib is not installed.

    Notes
    -----
    The page names the source of each method beside its figures.
    """
    progress = progress or Quiet()
    network = _loaded(model, weights)
    pixels = images.read_image(image) if isinstance(image, (str, Path)) else image
    writers = SECTIONS[_kind(network)]
    written = []
    with _evaluating(network):
        subject = see(network, pixels[..., None] if pixels.ndim == 2 else pixels, at)
        for done, write in enumerate(writers):
            progress.advance("explaining", done, len(writers))
            written.append(write(subject, progress))
        progress.advance("explaining", len(writers), len(writers))
    label, rival = subject.names
    name = Path(image).name if isinstance(image, (str, Path)) else "an image"
    return Explanation(
        title=f"Why {label}? One {subject.thing}, explained",
        summary=_summary(subject, name),
        at=subject.place,
        label=label,
        rival=rival,
        sections=tuple(written),
        command=_command(subject, model, image, weights),
    )


def _loaded(
    model: SegmentationModel | Classifier | str | Path, weights: str | Path | None
) -> SegmentationModel | Classifier:
    """Return the network of a file or a name."""
    if isinstance(model, (str, Path)):
        if not locate(model).is_file() or read_header(model).architecture.kind == "dense":
            return load_classifier(model, weights=weights)
        model = load(model)
    if weights is not None:
        raise ConfigError(
            "weights for a model that has its own", "the name of a classifier with them", "leave them out"
        )
    return model


@contextmanager
def _evaluating(network: SegmentationModel | Classifier) -> Iterator[None]:
    """Put a network into evaluation mode for a while."""
    module = network.module if isinstance(network, Classifier) else network
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def _kind(network: SegmentationModel | Classifier) -> str:
    kind = "classifier" if isinstance(network, Classifier) else network.architecture.kind
    if kind not in SECTIONS:
        raise InputError(
            f"a network of kind {kind!r}",
            f"one of {', '.join(SECTIONS)}",
            "pass the classifier it was made from",
        )
    return kind


def _summary(subject: Subject, name: str) -> tuple[str, ...]:
    label, rival = subject.names
    height, width = subject.size
    model = subject.model
    if isinstance(model, Classifier):
        what = f"the classifier {model.library}/{model.name}"
    elif isinstance(model, FCN):
        what = f"an FCN-{model.finest}s on {model.backbone.name or 'a backbone of your own'}"
    else:
        what = "a U-Net"
    seen = f"{height}×{width} pixels" + (", resized" if subject.scale != 1 else "")
    return (
        f"This page follows {what}, which tells {len(subject.classes)} classes apart, through {name} "
        f"({seen}) to one {subject.thing}: {subject.named_place}, {subject.chosen}.",
        f"It says {label}; the next best is {rival}.",
    )


def _command(
    subject: Subject, model: Any, image: NDArray[Any] | str | Path, weights: str | Path | None
) -> Command:
    named = str(model) if isinstance(model, (str, Path)) else "MODEL"
    file = str(image) if isinstance(image, (str, Path)) else "IMAGE"
    words = ["fullyconv", "explain", file, "--model", named]
    words += ["--weights", str(weights)] if weights is not None else []
    text = f"{shlex.join(words)} --at ROW,COLUMN --out page.html"
    return Command(text, subject.size, subject.origin, subject.scale)


_UNET: tuple[Write, ...] = (
    explain_answer,
    explain_levels,
    explain_fields,
    explain_reasons,
    explain_uncertainty,
    explain_upsampling,
    explain_matrix,
)

# What the page of each kind of network shows, in order.
SECTIONS: dict[str, tuple[Write, ...]] = {
    "fcn": (
        explain_answer,
        explain_stages,
        explain_levels,
        explain_fields,
        explain_reasons,
        explain_uncertainty,
        explain_upsampling,
        explain_matrix,
    ),
    "unet": _UNET,
    "backbone_unet": _UNET,
    "classifier": (
        explain_windows,
        explain_class_maps,
        explain_fields,
        explain_reasons,
        explain_uncertainty,
        explain_upsampling,
        explain_matrix,
    ),
}
