"""Changing an image's values as other light, stains, sensors and lenses would."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from fullyconv.datasets._augment_config import AugmentConfig


def change_values(
    image: torch.Tensor, dtype: np.dtype[Any], config: AugmentConfig, rng: np.random.Generator
) -> torch.Tensor:
    """Vary an image C×h×w, float32, whose values came from pixels of ``dtype``.

    Power, then one affine map of the channels (brightness, contrast, gain, mixing, hue, inversion), then
    rarely blur and noise. Amounts are relative to the values themselves, so that any dtype and any
    sensor works: the range is 0 to 255 for uint8, and otherwise what the crop holds.
    """
    low, high = (0.0, 255.0) if dtype == np.uint8 else (float(image.min()), float(image.max()))
    if config.gamma and high > low:
        power = math.exp(rng.uniform(-config.gamma, config.gamma))
        image = ((image - low) / (high - low)).clamp_(min=0).pow_(power).mul_(high - low).add_(low)
    if config.brightness or config.contrast or config.color or config.saturation or config.hue:
        image = _change_colors(image, low, config, rng)
    if config.gray and rng.random() < config.gray:
        image = image.mean(0, keepdim=True).expand_as(image).contiguous()
    if config.invert and rng.random() < config.invert:
        image = (low + high) - image
    if config.blur and rng.random() < config.rare:
        image = _blur(image, rng.uniform(0.0, config.blur))
    if config.noise and rng.random() < config.rare:
        sigma = rng.uniform(0.0, config.noise) * float(image.std(correction=0))
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + sigma * torch.from_numpy(noise)
    return image


def _change_colors(
    image: torch.Tensor, low: float, config: AugmentConfig, rng: np.random.Generator
) -> torch.Tensor:
    channels = image.shape[0]
    gains = np.exp(rng.uniform(-config.color, config.color, channels) * (channels > 1))
    mixed = rng.uniform(-config.saturation, config.saturation) * (channels > 1)
    matrix = np.diag(gains) @ ((1 - mixed) * np.eye(channels) + mixed / channels)
    if channels == 3 and config.hue:
        matrix = matrix @ _turn_around_gray(2 * math.pi * rng.uniform(-config.hue, config.hue))
    brightness = math.exp(rng.uniform(-config.brightness, config.brightness))
    contrast = math.exp(rng.uniform(-config.contrast, config.contrast))
    flat = image.reshape(channels, -1)
    mean = flat.mean(1).double().numpy()
    # y = low + brightness · matrix · (mean + contrast · (x − mean) − low), multiplied out.
    offset = low + brightness * matrix @ ((1 - contrast) * mean - low)
    factor = brightness * contrast * matrix
    changed = torch.addmm(_tensor(offset[:, None]), _tensor(factor), flat)
    return changed.reshape(image.shape)


def _turn_around_gray(angle: float) -> NDArray[np.float64]:
    """Return the 3×3 rotation that keeps grey (Rodrigues' formula about the diagonal)."""
    cosine, sine = math.cos(angle), math.sin(angle) / math.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return cosine * np.eye(3) + (1 - cosine) / 3 + sine * cross


def _blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    radius = max(1, math.ceil(3 * sigma))
    distance = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (distance / max(sigma, 1e-3)) ** 2)
    kernel /= kernel.sum()
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def _tensor(array: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))
