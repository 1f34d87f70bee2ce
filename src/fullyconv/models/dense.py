"""A classifier that slides over the image as a network that labels pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError
from torch import Tensor, nn

from fullyconv.backbones import torchvision_network
from fullyconv.errors import ConfigError
from fullyconv.labels import ClassTable
from fullyconv.models.segmentation import Architecture, Normalization, SegmentationModel
from fullyconv.surgery import convolutionalize, dilate

Size = tuple[int, int]
Library = Literal["torchvision", "timm"]
_Extent = Annotated[int, Field(ge=1, le=4096)]


class DenseArchitecture(Architecture):
    """The options of `DensePredictor`, which describes them."""

    kind: Literal["dense"] = "dense"
    library: Library
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,100}$")]
    input_size: tuple[_Extent, _Extent]
    output_stride: Annotated[int, Field(ge=1, le=4096)] | None

    @property
    def classifier(self) -> tuple[str, str]:
        """``"LIBRARY:NAME"`` of the classifier inside, and what its tensors' names begin with."""
        return f"{self.library}:{self.name}", "dense."


class DensePredictor(SegmentationModel):
    """A classifier of torchvision or timm at every position, its scores interpolated to the image's size.

    The score of a window belongs to the window's centre; between centres scores are interpolated
    bilinearly, and beyond the outermost centres they stay what they are there. Images smaller than a
    window are padded evenly, with the mean colour (Long, Shelhamer, Darrell, arXiv 1411.4038, section 3.1).

    Parameters
    ----------
    classes
        A class table, a list of names, or a number of classes.
    channels
        Of the image.
    library, name
        Where the classifier is from: a key of `LIBRARIES`, and the name there.
    input_size
        (height, width) of the images it was trained on, in pixels.
    output_stride
        Dilate the classifier so that its windows lie so many pixels apart; its own stride when ``None``.
    normalization
        Of raw pixel values.

    Raises
    ------
    ConfigError
        An option is out of range, or the library knows no classifier of that name.
    SurgeryError
        The classifier has no dense form.

    Notes
    -----
    Scores at full size take 4·K·H·W bytes, 4 GB for 1000 classes of a megapixel: predict in tiles.
    """

    architecture: DenseArchitecture

    def __init__(
        self,
        classes: ClassTable | Sequence[str] | int,
        channels: int = 3,
        *,
        library: Library,
        name: str,
        input_size: Size,
        output_stride: int | None = None,
        normalization: Normalization = Normalization(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(classes, channels, normalization)
        self.architecture = _checked(
            library=library, name=name, input_size=tuple(input_size), output_stride=output_stride
        )
        classifier = build_classifier(library, name, len(self.classes), channels)
        dense = convolutionalize(classifier, self.architecture.input_size, pad=True, channels=channels)
        self.dense = dense if output_stride is None else dilate(dense, output_stride)
        self.stride = lcm(*self.dense.stride)

    def scores(self, images: Tensor) -> Tensor:
        """Score every pixel of normalised images N×C×H×W."""
        size = images.shape[-2], images.shape[-1]  # not int(…): a program may be exported with free sizes
        return spread(self.dense(images), self.architecture.input_size, self.dense.stride, size)


def spread(scores: Tensor, input_size: Size, stride: Size, size: Size) -> Tensor:
    """Interpolate the scores of windows to pixels.

    Parameters
    ----------
    scores
        N×K×h×w, of windows whose centres lie at (input_size − 1) / 2 + stride · (i, j).
    input_size
        (height, width) of a window.
    stride
        Pixels from window to window, (down, right).
    size
        (height, width) H×W of the image. Along an axis shorter than a window, whose one score is that of
        the padded image, every pixel has it.

    Returns
    -------
    Tensor
        N×K×H×W: bilinear between the centres, constant beyond the outermost.
    """
    rows, columns = (_Axis(*axis) for axis in zip(input_size, stride, size, scores.shape[-2:], strict=True))
    tents = torch.outer(_tent(rows), _tent(columns)).to(scores)
    padded = F.pad(scores, (columns.before, columns.after, rows.before, rows.after), mode="replicate")
    channels = scores.shape[1]
    fine = F.conv_transpose2d(padded, tents.expand(channels, 1, *tents.shape), stride=stride, groups=channels)
    return fine[..., rows.start : rows.start + size[0], columns.start : columns.start + size[1]]


class _Axis:
    """How cells become pixels along one axis: by a tent on each cell, as long as two strides.

    The tent's peak lies on a pixel or between two, as the window's centre does: then every offset is whole.
    """

    def __init__(self, window: int, stride: int, length: int, cells: int) -> None:
        self.stride = stride
        self.taps = 2 * stride - window % 2
        centre = window - 1  # in half pixels, as the peak is
        peak = self.taps - 1
        beyond = 2 * (length - 1 - stride * (cells - 1)) - centre
        self.before = -(-centre // (2 * stride))
        # Neither -(-a // b) nor max: exported programs divide towards zero, and not all know the other.
        after = (beyond + 2 * stride - 1) // (2 * stride)
        self.after = after if after > 0 else 0
        self.start = stride * self.before + (peak - centre) // 2


def _tent(axis: _Axis) -> Tensor:
    distances = (torch.arange(axis.taps, dtype=torch.float64) - (axis.taps - 1) / 2).abs()
    return 1 - distances / axis.stride


def build_classifier(library: str, name: str, classes: int, channels: int = 3) -> nn.Module:
    """Build a classifier with random weights; nothing is read from a file or a network.

    Parameters
    ----------
    library, name
        A key of `LIBRARIES`, and the name of an architecture there.
    classes
        Number of scores.
    channels
        Of the image.

    Raises
    ------
    ConfigError
        The library knows no classifier of that name, or not for so many channels.
    """
    names, builder = LIBRARIES[library]
    if name not in names():
        raise ConfigError(f"classifier {name!r}", f"a name that {library} knows", f"list those of {library}")
    return builder(name, classes, channels)


def _torchvision_names() -> Sequence[str]:
    from torchvision import models

    return tuple(models.list_models(module=models))


def _build_torchvision(name: str, classes: int, channels: int) -> nn.Module:
    if channels != 3:
        raise ConfigError(f"{channels} channels", "3, as all of torchvision's classifiers take", "use timm's")
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision_network(name, num_classes=classes, **options)


def _timm_names() -> Sequence[str]:
    import timm

    return tuple(timm.list_models())


def _build_timm(name: str, classes: int, channels: int) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels)
    return model


def _checked(**options: Any) -> DenseArchitecture:
    try:
        return DenseArchitecture.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0])
        raise ConfigError(
            f"DensePredictor option {option}={options[option]!r}",
            first["msg"],
            "see help(fullyconv.models.DensePredictor)",
        ) from None


# Library -> (the names of its classifiers, what builds one from name, classes and channels).
LIBRARIES: dict[str, tuple[Callable[[], Sequence[str]], Callable[[str, int, int], nn.Module]]] = {
    "torchvision": (_torchvision_names, _build_torchvision),
    "timm": (_timm_names, _build_timm),
}
