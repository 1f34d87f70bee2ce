"""How much training crops are varied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from fullyconv.errors import ConfigError


@dataclass(frozen=True)
class AugmentConfig:
    """How training crops are varied. Every amount of zero turns its change off.

    Parameters
    ----------
    crop
        (height, width) of the crop, that is of its labels.
    margin
        Pixels at each side by which the crop's image is larger than its labels, for networks that score less
        than they see. They give context only: crops lie as they would without.
    flips
        Which mirrorings: "both" directions, only "horizontal" (left and right), or "none".
    quarter_turns
        Whether the four turns by 90° occur.
    warp
        The share of crops with a free rotation, scale, shear and elastic deformation; the others keep
        their exact pixels, as prediction sees them.
    rotation
        Largest angle, in degrees to both sides.
    scale
        (smallest, largest) size of objects relative to the image's; log-uniform between.
    shear
        Largest tangent of the shearing angle.
    elastic
        Standard deviation in pixels of the random displacements on a 3×3 grid over the crop, smoothly
        interpolated between (Ronneberger et al. 2015, §3.1).
    brightness, contrast, gamma
        Largest exponent a: the factor e^u with u uniform in ±a multiplies the values, multiplies their
        distance from the mean, or is the power of the values within their range.
    color
        The same for each channel on its own.
    saturation
        Largest share by which channels are mixed with their mean, or driven away from it.
    hue
        Largest turn of the colours around grey, in parts of a whole turn; 3 channels only.
    gray
        Probability that all channels become their mean.
    invert
        Probability that bright and dark are swapped.
    noise
        Largest standard deviation of added Gaussian noise, in standard deviations of the crop.
    blur
        Largest standard deviation of a Gaussian blur, in pixels.
    rare
        Probability of the noise, and of the blur.
    border
        Where a crop reaches beyond its image, the image is mirrored. The labels there are "mirror"ed too,
        or become the ignore index ("ignore").

    Raises
    ------
    ConfigError
        A value is out of its range.
    """

    crop: tuple[int, int] = (256, 256)
    margin: int = 0
    flips: Literal["both", "horizontal", "none"] = "both"
    quarter_turns: bool = True
    warp: float = 0.75
    rotation: float = 20.0
    scale: tuple[float, float] = (0.7, 1.4)
    shear: float = 0.1
    elastic: float = 5.0
    brightness: float = 0.25
    contrast: float = 0.25
    gamma: float = 0.25
    color: float = 0.1
    saturation: float = 0.25
    hue: float = 0.03
    gray: float = 0.05
    invert: float = 0.0
    noise: float = 0.2
    blur: float = 1.0
    rare: float = 0.15
    border: Literal["mirror", "ignore"] = "mirror"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _RANGES.get(field.name, (0.0, float("inf")))
            if isinstance(value, float | int) and not low <= value <= high:
                raise ConfigError(
                    f"{field.name} = {value}", f"a number from {low:g} to {high:g}", "correct it"
                )
        if min(self.crop) < 1:
            raise ConfigError(f"crop = {self.crop}", "(height, width) of at least 1", "use (256, 256)")
        if not 0.05 <= self.scale[0] <= self.scale[1] <= 20:
            raise ConfigError(
                f"scale = {self.scale}", "(smallest, largest) between 0.05 and 20", "use (0.7, 1.4)"
            )
        for name, allowed in (("flips", ("both", "horizontal", "none")), ("border", ("mirror", "ignore"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}", f"one of {', '.join(allowed)}", "correct it"
                )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the crop's image, margins included."""
        return self.crop[0] + 2 * self.margin, self.crop[1] + 2 * self.margin

    @classmethod
    def varied(cls, crop: tuple[int, int]) -> AugmentConfig:
        """Return the defaults: a little of everything."""
        return cls(crop=crop)

    @classmethod
    def published(cls, crop: tuple[int, int]) -> AugmentConfig:
        """Return the variation of the U-Net paper (arXiv 1505.04597, section 3.1).

        Elastic deformation with a standard deviation of 10 pixels on a 3×3 grid, all shifts and rotations,
        and changes of brightness and contrast, for which the paper gives no numbers.
        """
        off: dict[str, Any] = dict.fromkeys(_AMOUNTS, 0.0)
        elastic = {"warp": 1.0, "rotation": 45.0, "elastic": 10.0, "brightness": 0.25, "contrast": 0.25}
        return cls(crop=crop, scale=(1.0, 1.0), **(off | elastic))

    @classmethod
    def plain(cls, crop: tuple[int, int]) -> AugmentConfig:
        """Return the configuration that only crops."""
        off: dict[str, Any] = dict.fromkeys(_AMOUNTS, 0.0)
        return cls(crop=crop, flips="none", quarter_turns=False, scale=(1.0, 1.0), **off)


_AMOUNTS = (
    *("warp", "rotation", "shear", "elastic", "brightness", "contrast", "gamma", "color"),
    *("saturation", "hue", "gray", "invert", "noise", "blur", "rare"),
)
# Amounts without a line here only have to be zero or more.
_RANGES = {
    **dict.fromkeys(("warp", "gray", "invert", "rare", "saturation"), (0.0, 1.0)),
    "rotation": (0.0, 180.0),
    "hue": (0.0, 0.5),
    "blur": (0.0, 20.0),
}

# Name -> configuration for a crop of (height, width).
AUGMENTATIONS: dict[str, Callable[[tuple[int, int]], AugmentConfig]] = {
    "varied": AugmentConfig.varied,
    "published": AugmentConfig.published,
    "plain": AugmentConfig.plain,
}
