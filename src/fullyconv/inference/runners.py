"""The compiled forms of one network, made when they are first needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from fullyconv.engines import Answer, Precision, Runner, choose_precision, compile_model
from fullyconv.models import SegmentationModel
from fullyconv.progress import Progress

_KEPT = 4


class Runners:
    """Compiles a network for windows of one size, or of any.

    Parameters
    ----------
    model
        The network.
    engine, precision, threads
        As in `Predictor`.
    progress
        Told what was chosen.

    Attributes
    ----------
    precision : str
        ``"auto"`` until `settle` has chosen one.
    """

    def __init__(
        self,
        model: SegmentationModel,
        engine: str,
        precision: Precision | Literal["auto"],
        threads: int | None,
        progress: Progress,
    ) -> None:
        self.precision = precision
        self._options: dict[str, Any] = {"engine": engine, "threads": threads}
        self._model, self._progress = model, progress
        self._calibration: Sequence[NDArray[Any]] = ()
        self._made: dict[tuple[tuple[int, int] | None, Answer], Runner] = {}
        self._told: set[str] = set()
        self._version = -1

    @property
    def is_settled(self) -> bool:
        """Whether `settle` has nothing to do."""
        return self.precision != "auto" and (self.precision != "int8" or bool(self._calibration))

    def settle(self, windows: Sequence[NDArray[Any]]) -> None:
        """Choose the precision by the labels of the first window, or calibrate int8 on all of them."""
        if self.precision == "int8":
            self._calibration = windows
        elif self.precision == "auto":
            choice = choose_precision(self._model, windows[0], **self._options)
            self.precision = choice.precision
            self._forget_old_weights()
            if choice.runner is not None:
                self._made[None, "labels"] = choice.runner
            if choice.agreement is not None:
                self._progress.say(f"{choice} (--precision)")

    def get(self, size: tuple[int, int] | None, answer: Answer) -> Runner:
        """Return what runs windows of ``size`` pixels (None: of any size), compiled at most once.

        `settle` must have been called before.
        """
        self._forget_old_weights()
        key = (size, answer)
        if key not in self._made:
            assert self.precision != "auto"
            while len(self._made) >= _KEPT:
                self._made.pop(next(iter(self._made))).close()
            runner = compile_model(
                self._model,
                size=size,
                precision=self.precision,
                answer=answer,
                calibration=self._calibration,
                **self._options,
            )
            for note in runner.notes:
                if note not in self._told:
                    self._progress.say(f"{note} (--engine)")
            self._told.update(runner.notes)
            self._made[key] = runner
        return self._made[key]

    def _forget_old_weights(self) -> None:
        """Let go of what was compiled, where the network was trained since."""
        version = sum(part._version for part in self._model.parameters() if not part.is_inference())
        if version != self._version:
            self.close()
            self._version = version

    def close(self) -> None:
        """Let go of everything compiled."""
        while self._made:
            self._made.popitem()[1].close()
