"""Where in an image a classifier sees each class: its scores at every position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fullyconv import images
from fullyconv.classifiers import Classifier
from fullyconv.errors import ConfigError
from fullyconv.labels import Labels
from fullyconv.models import Normalization
from fullyconv.models.dense import spread
from fullyconv.surgery import DenseClassifier, convolutionalize, dilate

Size = tuple[int, int]

MAX_CLASSES = 24
"""Most classes of which maps are drawn: more could not be told apart on a page."""

_WINDOWS = 2.0  # an image's shorter side, in windows: things are then about as large as in the training
_CLASSES_AT_ONCE = 32  # whose full-size scores are in memory together


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """What a classifier sees where in one image.

    Parameters
    ----------
    image
        The image as given, H×W×C.
    seen_size
        (height, width) at which the classifier saw it.
    scores
        K×h×w, float32: of every window.
    probabilities
        K×h×w, float32: their softmax over classes.
    chosen
        The classes that maps are drawn of.
    maps
        One per chosen class, H×W, float32: its probability, 0 to 1, interpolated to the image.
    labels
        H×W: the class of the largest interpolated score, among all K.
    shares
        K, float32: the mean probability of each class over all windows, which is its whole-image score.
    class_names
        One per class.
    window, stride
        (height, width) of a window and the distance between windows, in pixels of the seen size.
    """

    image: NDArray[Any]
    seen_size: Size
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    chosen: tuple[int, ...]
    maps: NDArray[np.float32]
    labels: Labels
    shares: NDArray[np.float32]
    class_names: tuple[str, ...]
    window: Size
    stride: Size

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the classes of the highest whole-image scores, best first, with the scores (0 to 1)."""
        best = np.argsort(-self.shares, kind="stable")[:count]
        return [(self.class_names[k], float(self.shares[k])) for k in best]

    def to_dict(self) -> dict[str, Any]:
        """Return the best classes and the sizes as JSON-ready values."""
        return {
            "top": [{"class": name, "share": share} for name, share in self.top()],
            "chosen": [self.class_names[k] for k in self.chosen],
            "seen_size": list(self.seen_size),
            "windows": list(self.scores.shape[1:]),
            "stride": list(self.stride),
        }

    def __str__(self) -> str:
        classes, height, width = self.scores.shape
        window, seen = ("×".join(map(str, size)) for size in (self.window, self.seen_size))
        lines = [
            f"{window} windows every {self.stride[0]} pixels of {seen}: {height}×{width}×{classes} scores",
            *(f"{share:7.1%}  {name}" for name, share in self.top()),
        ]
        return "\n".join(lines)


@torch.inference_mode()
def heatmaps(
    classifier: Classifier | DenseClassifier,
    image: NDArray[Any] | str | Path,
    *,
    classes: Sequence[str | int] | None = None,
    top: int = 5,
    output_stride: int | None = None,
    shorter_side: int | Literal["auto"] | None = "auto",
) -> Heatmaps:
    """Show where in an image a classifier sees each class.

    Parameters
    ----------
    classifier
        From `fullyconv.load_classifier`, or a network from `fullyconv.convolutionalize`, which is given the
        image in raw units.
    image
        H×W×C or H×W, or the path of an image file; uint8 for a `Classifier`.
    classes
        Names or indices of the classes to draw; the best ``top`` where not given.
    top
        How many.
    output_stride
        Dilate the classifier so that its windows lie so many pixels apart: finer maps, in more time.
    shorter_side
        Resize the image so that its shorter side has so many pixels; ``None`` leaves it as it is. ``"auto"``:
        twice a window for a `Classifier`, whose photographs come in any scale; as it is for a network.

    Returns
    -------
    Heatmaps
        Maps have the size of ``image``, whatever the classifier saw.

    Raises
    ------
    ConfigError
        A class is not known (the nearest names are in the message), or a number is out of range.
    ImageError
        The image's channels or type are not the classifier's.
    GeometryError
        The image is smaller than a window of a network made with ``pad=False``.
    SurgeryError
        The classifier has no dense form, or cannot be dilated.

    Notes
    -----
    A whole image's score is the mean over all windows of their probabilities. That finds small and
    off-centre things that one central crop misses. Source: Long, Shelhamer, Darrell (arXiv 1411.4038),
    section 3.1 and figure 2.
    """
    pixels = images.read_image(image) if isinstance(image, (str, Path)) else image
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    dense, normalization = _dense(classifier)
    if output_stride is not None:
        dense = dilate(dense, output_stride)
    auto = round(_WINDOWS * min(dense.input_size)) if normalization else None
    side = auto if isinstance(shorter_side, str) else shorter_side
    tensor = _seen(pixels, dense.channels, normalization, side)
    size = int(tensor.shape[-2]), int(tensor.shape[-1])
    dense_mode, scores = dense.training, dense.eval()(tensor.to(_like(dense)))
    dense.train(dense_mode)
    scores = (scores if isinstance(scores, Tensor) else scores[0]).float().cpu()
    probabilities = scores.softmax(1)
    shares = probabilities[0].mean((1, 2)).numpy()
    names = dense.class_names or tuple(f"class {k}" for k in range(len(shares)))
    chosen = _chosen(classes, names) if classes else _best(shares, top)
    geometry = dense.input_size, dense.stride, size
    maps = spread(probabilities[:, list(chosen)], *geometry)
    labels = _best_class(scores, *geometry)
    return Heatmaps(
        image=pixels,
        seen_size=size,
        scores=scores[0].numpy(),
        probabilities=probabilities[0].numpy(),
        chosen=chosen,
        maps=_resized(maps, (pixels.shape[0], pixels.shape[1]))[0].clamp(0, 1).numpy(),
        labels=_nearest(labels, (pixels.shape[0], pixels.shape[1])),
        shares=shares,
        class_names=names,
        window=dense.input_size,
        stride=dense.stride,
    )


def _dense(classifier: Classifier | DenseClassifier) -> tuple[DenseClassifier, Normalization | None]:
    if isinstance(classifier, DenseClassifier):
        return classifier, None
    dense = convolutionalize(
        classifier.module,
        classifier.input_size,
        pad=True,
        channels=classifier.channels,
        class_names=classifier.class_names,
    )
    return dense, classifier.normalization


def _seen(
    pixels: NDArray[Any], channels: int, normalization: Normalization | None, shorter_side: int | None
) -> Tensor:
    """Return the image as the network sees it, 1×C×H'×W'."""
    pixels, _ = images.conform(pixels, channels, normalization.dtype if normalization else None)
    tensor = images.to_tensor(pixels)[None]
    if shorter_side is not None:
        if not 1 <= shorter_side <= 16384:
            raise ConfigError(f"a shorter side of {shorter_side}", "1 to 16384 pixels", "try 448")
        scale = shorter_side / min(tensor.shape[-2:])
        height, width = (max(1, round(length * scale)) for length in tensor.shape[-2:])
        tensor = _resized(tensor, (height, width))
    if normalization is None:
        return tensor
    full = normalization.per_channel(channels)
    mean, std = (torch.tensor(values).view(1, channels, 1, 1) for values in (full.mean, full.std))
    return (tensor - mean) / std


def _like(dense: DenseClassifier) -> Tensor:
    return next(dense.parameters(), torch.empty(0))


def _resized(maps: Tensor, size: Size) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", antialias=True)


def _nearest(labels: Labels, size: Size) -> Labels:
    rows, columns = (
        ((np.arange(length) + 0.5) * old / length).astype(np.intp)
        for length, old in zip(size, labels.shape, strict=True)
    )
    nearest: Labels = labels[rows[:, None], columns]
    return nearest


def _best_class(scores: Tensor, window: Size, stride: Size, size: Size) -> Labels:
    """Return the class of the largest interpolated score at each pixel, a few classes at a time."""
    best, labels = torch.full(size, -torch.inf), torch.zeros(size, dtype=torch.int64)
    for start in range(0, scores.shape[1], _CLASSES_AT_ONCE):
        fine = spread(scores[:, start : start + _CLASSES_AT_ONCE], window, stride, size)[0]
        values, places = fine.max(0)
        labels = torch.where(values > best, places + start, labels)
        best = torch.maximum(best, values)
    return labels.numpy().astype(np.min_scalar_type(scores.shape[1] - 1))


def _best(shares: NDArray[np.float32], top: int) -> tuple[int, ...]:
    if not 1 <= top <= MAX_CLASSES:
        raise ConfigError(f"the best {top} classes", f"1 to {MAX_CLASSES}", "try --top 5")
    return tuple(int(k) for k in np.argsort(-shares, kind="stable")[:top])


def _chosen(wanted: Sequence[str | int], names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the indices of classes named in any case, or given by index; all unknown ones at once."""
    places = {name.lower(): k for k, name in reversed(list(enumerate(names)))}
    chosen: list[int] = []
    unknown: list[str] = []
    for name in wanted:
        text = str(name).strip().lower()
        if text in places:
            chosen.append(places[text])
        elif text.isdecimal() and int(text) < len(names):
            chosen.append(int(text))
        else:
            containing = [known for known in places if text and text in known]
            near = dict.fromkeys([*get_close_matches(text, places, n=3, cutoff=0.5), *containing[:3]])
            said = ", ".join(names[places[known]] for known in near)
            unknown.append(f"{str(name)!r}" + (f" (perhaps {said})" if said else ""))
    if unknown or len(chosen) > MAX_CLASSES:
        raise ConfigError(
            f"classes that are not known: {'; '.join(unknown)}" if unknown else f"{len(chosen)} classes",
            f"names of the {len(names)} classes, or numbers from 0 to {len(names) - 1}, "
            f"{MAX_CLASSES} at most",
            "correct them, or leave them out for the best five",
        )
    return tuple(dict.fromkeys(chosen))
