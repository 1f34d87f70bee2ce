"""What an output is to hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fullyconv.images._georeference import Georeference
from fullyconv.labels import ClassTable

Content = Literal["labels", "probabilities"]


@dataclass(frozen=True)
class Planned:
    """What an output is to hold.

    Parameters
    ----------
    size
        (height, width).
    classes
        Of the labels or probabilities.
    content
        Which of the two.
    dtype
        Of the values.
    channels
        The class of each channel of probabilities; empty for labels.
    chunk
        Side of its tiles.
    georeference
        Where it lies on the ground, if known.
    """

    size: tuple[int, int]
    classes: ClassTable
    content: Content
    dtype: np.dtype[Any]
    channels: tuple[int, ...]
    chunk: int
    georeference: Georeference | None

    @property
    def depth(self) -> int:
        """Number of channels."""
        return len(self.channels) or 1

    @property
    def names(self) -> list[str]:
        """Of the channels of probabilities."""
        return [self.classes.names[channel] for channel in self.channels]

    def describe(self) -> str:
        """Return a line of JSON for whoever opens the file."""
        facts: dict[str, Any] = {"content": self.content}
        if self.content == "labels":
            facts["classes"] = [
                {"label": label, "name": name, "color": list(color)}
                for label, (name, color) in enumerate(
                    zip(self.classes.names, self.classes.colors, strict=True)
                )
            ]
            facts["ignore_index"] = self.classes.ignore_index
        else:
            facts["channels"] = self.names
            facts["one"] = 255 if self.dtype == np.uint8 else 1
        return json.dumps({"fullyconv": facts})
