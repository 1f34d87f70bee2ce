"""Checkpoints: all that a run needs to go on as if nothing had happened, whole or not at all.

A checkpoint is ``N.safetensors``, tensors with a JSON header, and beside it ``N.sha256``, a line as
``sha256sum --check`` reads it. The second is written when the first is on the disk: without it there is no
checkpoint. Each has a number of its own, so that none is ever written over. Nothing in them can run code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor

from fullyconv.images import atomic_file
from fullyconv.progress import Progress

KEPT = 2
_Count = Annotated[int, Field(ge=0)]


class State(BaseModel):
    """Where a run is, apart from its tensors.

    Parameters
    ----------
    step, epoch
        Steps done, and epochs done with their validation.
    validated
        The step of the last validation.
    ending
        Whether the steps of the epoch are done and its validation is not.
    finished
        Whether the run is over.
    seconds
        Time spent, in all sittings.
    reserved
        Seconds that the work after the last step will take.
    losses, loss_count
        Sum of the epoch's losses so far, and their number.
    parts
        In how many pieces a batch is computed, for want of memory.
    averaged
        How many steps the averaged weights have seen.
    best
        Confusion counts of the best validation so far, K×K.
    threads, processes
        What it was computed with: others give other last bits.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal[1] = 1
    step: _Count
    epoch: _Count
    validated: _Count
    ending: bool
    finished: bool
    seconds: float
    reserved: float
    losses: float
    loss_count: _Count
    parts: Annotated[int, Field(ge=1)]
    averaged: _Count
    best: list[list[_Count]] | None
    threads: _Count
    processes: _Count


class Checkpoints:
    """The checkpoints of a run, of which the last two are kept.

    Parameters
    ----------
    folder
        Where they lie; it must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._damaged: set[Path] = set()

    def save(self, state: State, tensors: Mapping[str, Tensor], *, keep: int = KEPT) -> None:
        """Write a checkpoint, then remove all but the last ``keep``.

        Raises
        ------
        MachineError
            The disk is full; the earlier checkpoints are as they were.
        """
        files = self._files()
        path = self.folder / f"{int(files[-1].stem) + 1 if files else 1:06}.safetensors"
        data = serialize(dict(tensors), metadata={"state": state.model_dump_json()})
        with atomic_file(path) as temporary:
            temporary.write_bytes(data)
        with atomic_file(_checksum_file(path)) as temporary:
            temporary.write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n", encoding="ascii")
        whole = [each for each in files if _checksum_file(each).exists() and each not in self._damaged]
        for old in {*files} - {*[*whole, path][-keep:]}:
            _checksum_file(old).unlink(missing_ok=True)
            old.unlink()

    def load(self, progress: Progress) -> tuple[State, dict[str, Tensor]] | None:
        """Return the last checkpoint that is whole, and say which were not; ``None`` without any."""
        for path in reversed(self._files()):
            try:
                return _read(path)
            except (OSError, ValueError, KeyError, SafetensorError, ValidationError) as error:
                self._damaged.add(path)
                reason = str(error).splitlines()[0]
                progress.say(f"checkpoint {path.name} is not used: {reason}; going back to the one before")
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.safetensors"))


def _read(path: Path) -> tuple[State, dict[str, Tensor]]:
    if not _checksum_file(path).exists():
        raise ValueError("it was not finished")
    data = path.read_bytes()
    if _checksum_file(path).read_text(encoding="ascii").split()[:1] != [hashlib.sha256(data).hexdigest()]:
        raise ValueError("its checksum is wrong, the file is damaged")
    with safe_open(path, framework="pt") as file:
        state = State.model_validate_json(file.metadata()["state"])
    return state, deserialize(data)


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")
