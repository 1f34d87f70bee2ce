"""What every network here is to the outside: raw pixels in, scores out, and what is needed to use them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fullyconv import __version__
from fullyconv.errors import ConfigError
from fullyconv.labels import ClassTable

PixelType = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]
ScoreName = Literal["pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"]

# What pydantic holds these dataclasses to when they stand inside a model file's header.
_Positive = Annotated[int, Field(ge=1, lt=2**63)]
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Normalization:
    """How raw pixel values become what the network sees: (value − mean) / std, per channel.

    Parameters
    ----------
    mean, std
        In raw units (0 to 255 for uint8 images); one number per channel, or one for all.
    dtype
        The type of the images the network was trained on; images of another type are refused by
        those who read them, never rescaled.

    Raises
    ------
    ConfigError
        A number is not finite, or a standard deviation is not above 0.

    Examples
    --------
    >>> Normalization(mean=(127.5,), std=(64.0,)).per_channel(3).mean
    (127.5, 127.5, 127.5)
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: PixelType = "uint8"

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.mean, *self.std))) or not all(part > 0 for part in self.std):
            raise ConfigError(
                f"normalisation with mean {self.mean} and std {self.std}",
                "finite numbers, and std above 0",
                "leave out channels that are constant, or give them std=1",
            )

    def per_channel(self, channels: int) -> Normalization:
        """Return the same with exactly ``channels`` numbers each.

        Raises
        ------
        ConfigError
            The numbers are neither one nor ``channels``.
        """
        return Normalization(_spread(self.mean, channels), _spread(self.std, channels), self.dtype)


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise ConfigError(
            f"normalisation with {len(values)} numbers for {channels} channels",
            f"1 or {channels} numbers",
            "give one number per channel",
        )
    return tuple(float(value) for value in values) * (channels // len(values))


@dataclass(frozen=True)
class Provenance:
    """Where a network comes from: facts only, no free text, so that a model file says nothing private.

    Parameters
    ----------
    training_size
        (height, width) of the training crops in pixels.
    scores
        Validation scores, 0 to 1, by name.
    data_fingerprint
        What `Dataset.fingerprint` returned for the training data.
    seed, steps
        Of the training run.
    library_version
        Of the library that trained the network.

    Raises
    ------
    ConfigError
        A score is outside 0 to 1.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    training_size: tuple[_Positive, _Positive] | None = None
    scores: dict[ScoreName, float] = field(default_factory=dict)
    data_fingerprint: Annotated[str, Field(pattern=r"^[0-9A-Za-z:_-]{1,128}$")] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    steps: _Positive | None = None
    library_version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+!-]{1,64}$")] = __version__

    def __post_init__(self) -> None:
        scores = {name: float(value) for name, value in sorted(self.scores.items())}
        object.__setattr__(self, "scores", scores)
        if not all(0 <= value <= 1 for value in scores.values()):
            raise ConfigError(f"scores {scores}", "numbers from 0 to 1", "leave out scores that are n/a")


class Architecture(BaseModel):
    """What rebuilds a network apart from its weights, classes, channels and normalisation.

    One subclass per kind, with ``kind`` a literal; its other fields are the builder's options.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str

    @property
    def classifier(self) -> tuple[str, str] | None:
        """``"LIBRARY:NAME"`` of the classifier inside, and what its tensors' names begin with."""
        return None

    def options(self) -> dict[str, Any]:
        """Return the builder's keyword arguments."""
        return {name: value for name, value in self if name != "kind"}


class SegmentationModel(nn.Module, ABC):
    """A network from raw pixels to scores, together with all that is needed to use it.

    Subclasses write `scores`; `architecture` and `stride` are theirs to set.

    Parameters
    ----------
    classes
        A class table, a list of names, or a number of classes.
    channels
        Of the image.
    normalization
        Lives inside the network: callers pass raw values.

    Attributes
    ----------
    architecture : Architecture
        What rebuilds this network.
    stride : int
        The total stride: tiles start at multiples of it.
    margin : int
        Pixels at each side of the image that get no score; 0 where scores have the image's size.
    provenance : Provenance
        Set by whoever trains the network.
    """

    architecture: Architecture
    stride: int
    margin: int = 0
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classes: ClassTable | Sequence[str] | int,
        channels: int,
        normalization: Normalization,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ConfigError(f"{channels} channels", "1 or more", "count the channels of your images")
        self.classes = ClassTable.of(classes)
        self.channels = channels
        self.normalization = normalization.per_channel(channels)
        self.provenance = Provenance()
        # Not persistent: the file's header holds them once, as text.
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.normalization, name), dtype=torch.float32)
            self.register_buffer(name, values.view(1, channels, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Score every pixel.

        Parameters
        ----------
        images
            N×C×H×W in raw units, any floating or unsigned 8-bit type.

        Returns
        -------
        scores
            N×K×H×W logits (H and W less twice the `margin`). Where a network is built with auxiliary
            scores and is in training mode: a tuple of such, the network's own first.
        """
        return self.scores((images - self.mean) / self.std)

    @abstractmethod
    def scores(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Score every pixel of normalised images N×C×H×W; see `forward`."""

    def valid_input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the smallest image size (height, width) whose scores are at least of ``size``."""
        return size
