"""Every upsampler on the same picture, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fullyconv.errors import GeometryError, MachineError
from fullyconv.explanation.document import Gallery, Section, Source
from fullyconv.explanation.drawing import Layer, Picture
from fullyconv.explanation.subject import Subject
from fullyconv.images import overlay, to_tensor
from fullyconv.labels import ClassTable
from fullyconv.progress import Progress
from fullyconv.upsampling import UPSAMPLERS, Upsampler, max_pool

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FACTOR = 8
"""From the coarse picture to the fine one: the last step of an FCN-8s."""

_SIDE = 256  # the longer side of the fine picture: enough to see, little to compute
_PART = 128  # side of what a page shows
_PAGE_STEPS = 30
_COLUMNS = 3
_PANEL = 3.0  # inches

_CAPTIONS = {
    "nearest": "each value becomes a block",
    "bilinear": "straight lines between the values",
    "bicubic": "smooth curves between the values",
    "transposed_fixed": "a tent on each value; zeros outside",
    "transposed": "learned stamps, one for each value",
    "unpooling": "maxima back in place, zeros left to fill",
    "subpixel": "a learned convolution fills each block",
    "content_aware": "means of 5×5 values, weights predicted",
}


def upsampling_figure(image: NDArray[Any], *, steps: int = 60) -> Figure:
    """Shrink an image by 8 and draw what each upsampler makes of the small one.

    Those that learn are first fitted to this very picture: it shows what they can express, not how they would
    do on another.

    Parameters
    ----------
    image
        H×W or H×W×C, any real dtype; shown reduced to 256 pixels at most.
    steps
        Gradient steps of the fit, about a tenth of a second each. 0 shows how each starts.

    Returns
    -------
    matplotlib.figure.Figure
        To be saved with ``figure.savefig("upsampling.png", dpi=150)``; it belongs to no window.

    Raises
    ------
    GeometryError
        An image of less than 8×8 pixels.
    MachineError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MachineError(
            "matplotlib is not installed", "it, to draw figures", "pip install 'fullyconv[plot]'"
        ) from error
    fine = _fine_picture(image)
    coarse = F.avg_pool2d(fine, FACTOR)
    height, width = fine.shape[-2:]
    rows = -(-(len(_CAPTIONS) + 1) // _COLUMNS)
    panel = np.array([width, height]) * _PANEL / max(height, width)
    figure = Figure(
        figsize=(_COLUMNS * (panel[0] + 0.15), rows * (panel[1] + 0.6) + 0.9), layout="constrained"
    )
    original, *others = figure.subplots(rows, _COLUMNS).flat[: len(_CAPTIONS) + 1]
    title = f"Upsampling ×{FACTOR}: from {height // FACTOR}×{width // FACTOR} to {height}×{width} pixels"
    figure.suptitle(title, fontsize=13)
    _draw(original, fine, "original", f"framed: all that the others see, 1/{FACTOR} of it")
    _draw_inset(original, coarse)
    for axes, (name, caption) in zip(others, _CAPTIONS.items(), strict=True):
        result, difference = _compared(name, fine, coarse, steps)
        said = "" if difference is None else f"   ±{difference:.0f}"
        _draw(axes, result, name + said, caption)
    figure.supxlabel(_footnote(steps), fontsize=8, color="0.35")
    return figure


def explain_upsampling(subject: Subject, progress: Progress) -> Section:
    """Show the part around the pixel, made smaller and larger again by every upsampler."""
    top, left = (
        max(0, min(place - _PART // 2, length - _PART))
        for place, length in zip(subject.at, subject.size, strict=True)
    )
    part = subject.photo[top : top + _PART, left : left + _PART]
    if min(part.shape[:2]) < FACTOR:
        return Section("Ways to upsample", (f"The image is too small to be shrunk by {FACTOR}.",), ())
    fine = _fine_picture(part)
    coarse = F.avg_pool2d(fine, FACTOR)
    pictures = [
        _pictured(fine, "original", "the part around the ring"),
        _pictured(coarse, "shrunk", f"1/{FACTOR}: all that the others are given"),
    ]
    numbers = {}
    for done, (name, caption) in enumerate(_CAPTIONS.items(), 1):
        result, difference = _compared(name, fine, coarse, _PAGE_STEPS)
        numbers[name] = difference
        said = "" if difference is None else f", ±{difference:.0f}"
        pictures.append(_pictured(result, name, caption + said))
        progress.advance("upsampling", done, len(_CAPTIONS), name)
    return Section(
        "Ways to upsample",
        (
            "The network's coarse maps must become as large as the image again. Each method here is given "
            f"the same small picture and makes it {FACTOR} times as large. Three of them have weights to "
            f"learn; these were fitted to this very picture, in {_PAGE_STEPS} steps, so they show what the "
            "method can express and not how it would do elsewhere. ± is the root mean square difference "
            "from the original, of 255. Unpooling leaves holes that the next convolution is to fill, and is "
            "not to be compared.",
            Gallery(tuple(pictures), across=4),
        ),
        (
            Source(
                "transposed: Long, Shelhamer, Darrell, arXiv 1411.4038, section 3.3",
                "https://arxiv.org/abs/1411.4038",
            ),
            Source(
                "unpooling: Badrinarayanan, Kendall, Cipolla, arXiv 1511.00561, section 3",
                "https://arxiv.org/abs/1511.00561",
            ),
            Source("subpixel: Shi et al., arXiv 1609.05158, section 2.2", "https://arxiv.org/abs/1609.05158"),
            Source(
                "content-aware: Wang et al., arXiv 1905.02188, section 3", "https://arxiv.org/abs/1905.02188"
            ),
        ),
        {"difference": numbers},
    )


def _pictured(picture: Tensor, name: str, caption: str) -> Picture:
    pixels = (255 * picture[0]).round().byte().permute(1, 2, 0).numpy()
    size = (pixels.shape[0], pixels.shape[1])
    return Picture(
        size, (Layer(pixels, blocks=name in ("shrunk", "nearest")),), name, caption, f"{name}: {caption}"
    )


def _compared(name: str, fine: Tensor, coarse: Tensor, steps: int) -> tuple[Tensor, float | None]:
    """Return what an upsampler makes, and how far it is from the original in 255ths."""
    result = _upsample(name, fine, coarse, steps)
    # Unpooling alone leaves holes that the next convolution is to fill: no number to compare.
    difference = None if name == "unpooling" else float(255 * (result - fine).square().mean().sqrt())
    return result, difference


def _fine_picture(image: NDArray[Any]) -> Tensor:
    """Return 1×3×H×W from 0 to 1, with sides that are multiples of the factor."""
    if min(image.shape[:2]) < FACTOR:
        raise GeometryError(
            f"an image of {image.shape[0]}×{image.shape[1]} pixels",
            f"{FACTOR}×{FACTOR} or more",
            "choose a larger one",
        )
    nothing = np.zeros(image.shape[:2], np.uint8)  # labels of background alone leave the image as it is shown
    fine = to_tensor(overlay(image, nothing, ClassTable.of(2)))[None] / 255
    shrink = min(1.0, _SIDE / max(image.shape[:2]))
    size = [max(round(side * shrink), FACTOR) for side in image.shape[:2]]
    fine = F.interpolate(fine, size, mode="bilinear", antialias=True)
    return fine[..., : size[0] // FACTOR * FACTOR, : size[1] // FACTOR * FACTOR]


def _upsample(name: str, fine: Tensor, coarse: Tensor, steps: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        upsampler = UPSAMPLERS[name](fine.shape[1], FACTOR)
    if upsampler.needs_indices:
        unpooled: Tensor = upsampler(*max_pool(fine, FACTOR))
        return unpooled
    # Around zero, as features are after normalisation, where a border of zeros is gray.
    level = coarse.mean()
    if any(parameter.requires_grad for parameter in upsampler.parameters()):
        _fit(upsampler, coarse - level, fine - level, steps)
    with torch.no_grad():
        result: Tensor = upsampler(coarse - level) + level
        return result.clamp(0, 1)


def _fit(upsampler: Upsampler, coarse: Tensor, fine: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(upsampler.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss: Tensor = F.mse_loss(upsampler(coarse), fine)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()


def _footnote(steps: int) -> str:
    learned = (
        f"Those with learned weights were fitted to this picture alone, in {steps} steps."
        if steps
        else "Those with learned weights are shown as they start."
    )
    return f"± is the root mean square difference from the original, of 255.\n{learned}"


def _draw(axes: Axes, picture: Tensor, title: str, caption: str) -> None:
    axes.imshow(picture[0].permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title(title, fontsize=10, fontweight="bold", loc="left", pad=4)
    axes.set_xlabel(caption, fontsize=8.5, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_inset(axes: Axes, coarse: Tensor) -> None:
    inset = axes.inset_axes((0.03, 0.03, 1 / FACTOR, 1 / FACTOR))
    inset.imshow(coarse[0].permute(1, 2, 0).numpy(), interpolation="nearest")
    inset.set_xticks([])
    inset.set_yticks([])
    inset.spines[:].set(color="white", linewidth=1.5)
