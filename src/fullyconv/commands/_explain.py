"""How the method works, in a table or a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullyconv.errors import ConfigError, InputError
from fullyconv.progress import Lines, Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fullyconv.explanation import Explanation
    from fullyconv.receptive_fields import GeometryTable


@dataclass(frozen=True)
class Explained:
    """What `explain` found, and the page it wrote."""

    explanation: Explanation
    page: Path

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured, and the path, as JSON-ready values."""
        return {**self.explanation.to_dict(), "page": str(self.page)}

    def __str__(self) -> str:
        return f"{self.explanation}\npage: {self.page}"


def explain(
    image: Path,
    *,
    model: str,
    out: Path,
    at: str | None = None,
    weights: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Explained:
    """Show on one HTML page how a network comes to its answer for one pixel of an image.

    The page has class maps from coarse to fine, the image at each feature level, what the pixel can see,
    which evidence decided it, where the network is not sure, and ways to upsample; for a classifier, its
    windows against one pass. Other ways to see how the method works are commands of their own.

    Parameters
    ----------
    image
        An image file.
    model
        A model file, or the name of a classifier of torchvision or timm, such as resnet18.
    out
        The page, an .html file.
    at
        The pixel as ROW,COLUMN (default: the middle of the largest object).
    weights
        Of a classifier given by name: a file, or "none" for random ones; by default the library's own.
    overwrite
        Replace a page that exists.

    Examples
    --------
    fullyconv explain photo.jpg --model runs/first/model.safetensors --at 120,200 --out page.html
    """
    from fullyconv import explanation

    if out.exists() and not overwrite:  # before the minutes that the rest takes
        raise InputError(f"{out} exists", "a new file", "pass --overwrite, or another --out")
    found = explanation.explain(model, image, at=_pixel(at), weights=weights, progress=progress or Lines())
    return Explained(found, found.save(out, overwrite=overwrite))


def _pixel(text: str | None) -> tuple[int, int] | None:
    """Return row and column of ``"12,34"``."""
    if text is None:
        return None
    row, comma, column = text.partition(",")
    if not (comma and row.strip().isdecimal() and column.strip().isdecimal()):
        raise ConfigError(f"--at {text!r}", "ROW,COLUMN, two whole numbers", "such as --at 120,200")
    return int(row), int(column)


@dataclass(frozen=True)
class Drawn:
    """The picture that an explanation wrote."""

    picture: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the path as JSON-ready text."""
        return {"picture": str(self.picture)}

    def __str__(self) -> str:
        return f"picture: {self.picture}"


def explain_geometry(model: Path, *, size: tuple[int, int] | None = None) -> GeometryTable:
    """Show stride, offset, receptive field and output size of every layer of a model.

    Parameters
    ----------
    model
        A model file.
    size
        Height and width of the image in pixels (default: what the model was trained on).

    Examples
    --------
    fullyconv explain geometry runs/first/model.safetensors --size 384 384
    """
    from fullyconv.models import load
    from fullyconv.receptive_fields import trace_geometry

    network = load(model)
    shown = size or network.provenance.training_size or (256, 256)
    return trace_geometry(network, network.channels).table(shown)


def explain_matrix(
    *,
    out: Path,
    kernel: int = 3,
    size: int = 5,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    overwrite: bool = False,
) -> Drawn:
    """Draw a convolution as the sparse matrix that it is, and its transpose beside it.

    Parameters
    ----------
    out
        The picture, a .png file.
    kernel
        Side of the square kernel.
    size
        Side of the square input.
    stride
        Of the convolution.
    padding
        Zeros around the input.
    dilation
        Distance between the kernel's weights.
    overwrite
        Replace a picture that exists.

    Examples
    --------
    fullyconv explain matrix --kernel 3 --size 5 --out matrix.png
    """
    from torch import nn

    from fullyconv.explanation import matrix_figure

    conv = nn.Conv2d(1, 1, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)
    return _draw(matrix_figure(conv, (size, size)), out, overwrite)


def explain_upsampling(image: Path, *, out: Path, overwrite: bool = False) -> Drawn:
    """Draw one image made smaller and then larger again by every upsampling method, side by side.

    Parameters
    ----------
    image
        An image file.
    out
        The picture, a .png file.
    overwrite
        Replace a picture that exists.

    Examples
    --------
    fullyconv explain upsampling photo.jpg --out upsampling.png
    """
    from fullyconv.explanation import upsampling_figure
    from fullyconv.images import read_image

    return _draw(upsampling_figure(read_image(image)), out, overwrite)


def _draw(figure: Figure, out: Path, overwrite: bool) -> Drawn:
    from fullyconv.images import atomic_file

    with atomic_file(out, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    return Drawn(out)
