"""An exported network beside the library's own answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fullyconv.engines import DeployedGraph
from fullyconv.errors import ConfigError

Run = Callable[[NDArray[Any]], NDArray[Any]]  # N×H×W×C in raw values to answers

_TOLERANCE = 1e-3  # of the largest value


@dataclass(frozen=True)
class Comparison:
    """How far an exported network's answer to one batch is from the library's.

    Parameters
    ----------
    shape
        (N, H, W, C) of the batch.
    values
        Numbers in the answer.
    classes
        Of labels, how many classes the library's answer has: where it is one, little is compared. None for
        other answers.
    differing
        Of labels, how many are not those of the library; None for other answers.
    difference
        The largest absolute difference; of labels, the score by which the library's label led the other.
    largest
        The largest absolute score, probability or value of the library's answer, which sets the scale.
    """

    shape: tuple[int, ...]
    values: int
    classes: int | None
    differing: int | None
    difference: float
    largest: float

    @property
    def agrees(self) -> bool:
        """Whether what differs is rounding."""
        return self.difference <= _TOLERANCE * self.largest

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {**asdict(self), "shape": list(self.shape)}

    def __str__(self) -> str:
        shape = "×".join(map(str, self.shape))
        if self.differing is None:
            return f"{shape}: differs by at most {self.difference:.1e}, where values reach {self.largest:.2g}"
        if not self.differing:
            return f"{shape}: all {self.values} labels are equal, {self.classes} class(es) among them"
        return (
            f"{shape}: {self.differing} of {self.values} labels differ, where scores are "
            f"{self.difference:.1e} apart and reach {self.largest:.2g}"
        )


def compare(run: Run, graph: DeployedGraph, batch: NDArray[Any]) -> Comparison:
    """Answer a batch by an exported network and by the library.

    Raises
    ------
    ConfigError
        The exported network fails, or its answer has another shape.
    """
    shape = "×".join(map(str, batch.shape))
    try:
        answer = run(batch)
    except Exception as error:  # runtimes raise what they like
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(
            f"an exported network that fails on a batch of {shape} ({first:.200})", "an answer", ""
        ) from error
    with torch.inference_mode():
        images = torch.from_numpy(batch.astype(np.float32)).permute(0, 3, 1, 2)
        scores = graph.model(images)
        expected = graph.finish(scores).numpy()
    if answer.shape != expected.shape:
        raise ConfigError(
            f"an exported network that answers a batch of {shape} by an array of {answer.shape}",
            f"one of {expected.shape}",
            "",
        )
    if graph.answer != "labels":
        difference = np.abs(answer.astype(np.float64) - expected).max()
        return Comparison(
            batch.shape, answer.size, None, None, float(difference), float(np.abs(expected).max())
        )
    where = answer != expected
    if int(answer.max()) >= scores.shape[1]:
        raise ConfigError(f"an exported network with the label {answer.max()}", "one of its classes", "")
    given = torch.from_numpy(answer.astype(np.int64))[:, None]
    lead = (scores.amax(1) - scores.gather(1, given)[:, 0]).numpy()
    return Comparison(
        batch.shape,
        answer.size,
        len(np.unique(expected)),
        int(where.sum()),
        float(lead[where].max(initial=0.0)),
        float(scores.abs().max()),
    )
