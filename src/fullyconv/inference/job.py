"""One image too large to be held in memory, predicted piece by piece into a store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fullyconv.errors import ConfigError, MachineError
from fullyconv.images import ImageSource, atomic_file
from fullyconv.inference.behind import Behind
from fullyconv.inference.ledger import changed
from fullyconv.inference.mirrored import MirroredImage
from fullyconv.inference.pieces import Piece, compute_pieces, count_pieces
from fullyconv.inference.plans import AxisPlan, TilePlan
from fullyconv.inference.predictor import Predictor
from fullyconv.inference.shares import Shares
from fullyconv.inference.store import Store
from fullyconv.progress import Progress

CHUNKS = (512, 256, 128)  # sides of a store's chunks


class JobRecord(BaseModel):
    """What must stay the same until the job is finished."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    rows: AxisPlan
    columns: AxisPlan
    reasons: tuple[str, ...]
    chunk: int

    @property
    def plan(self) -> TilePlan:
        """Of the tiles."""
        return TilePlan(self.rows, self.columns, self.reasons)


class Job:
    """The prediction of one image into a store, which goes on where it was stopped.

    Parameters
    ----------
    folder
        For what is unfinished.
    source
        The image.
    predictor
        The network.
    shares
        Which probabilities to keep beside the labels.

    Attributes
    ----------
    folder : Path
        As given.
    record : JobRecord
        Its plan.
    store : Store
        What was predicted.

    Raises
    ------
    ConfigError
        What is unfinished is of another image.
    MachineError
        Memory does not suffice for any tiles.
    """

    def __init__(
        self, folder: Path, source: ImageSource, predictor: Predictor, shares: Shares | None
    ) -> None:
        self.folder = folder
        self._source, self._predictor, self._shares = source, predictor, shares
        path = folder / "job.json"
        fingerprint = source.fingerprint()
        if path.exists():
            self.record = JobRecord.model_validate_json(path.read_text("utf-8"))
            if self.record.image != fingerprint:
                raise changed(folder.name, "it has changed since its prediction began")
            self.store = Store(folder)
        else:
            chunk, plan = plan_job(source, predictor, shares is not None)
            self.record = JobRecord(
                image=fingerprint, rows=plan.rows, columns=plan.columns, reasons=plan.reasons, chunk=chunk
            )
            self.store = Store.create(
                folder,
                source.size,
                count_pieces(plan),
                chunk,
                predictor.model.classes.dtype,
                shares,
            )
            with atomic_file(path) as temporary:
                temporary.write_text(self.record.model_dump_json(), "utf-8")

    @property
    def todo(self) -> list[int]:
        """The numbers of the pieces that are missing."""
        return self.store.missing()

    @property
    def name(self) -> str:
        """Of the image's file."""
        return self._source.path.name

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return count_pieces(self.record.plan)

    def compute(self, progress: Progress) -> None:
        """Compute what is missing: pieces are written while others are computed."""
        with Behind() as writer:
            todo = self.todo
            for done, piece in enumerate(self.pieces(todo), self.count - len(todo) + 1):
                writer.call(self._keep, piece)
                progress.advance(f"predicting {self.name}", done, self.count, "tiles")

    def pieces(self, wanted: list[int]) -> Iterator[Piece]:
        """Compute pieces."""
        plan = self.record.plan
        answer = self._predictor.answer(plan, probabilities=self._shares is not None)
        runner = self._predictor.runner(plan, answer)
        seen = MirroredImage(self._source, self._predictor.model)
        return compute_pieces(plan, seen.read, runner.run, wanted, align=self.record.chunk)

    def write(self, piece: Piece) -> None:
        """Write a piece to the disk; it is not marked as done yet."""
        self.store.write(piece.where, *_kept(piece.values, self._shares))

    def remove(self) -> None:
        """Let go of what is unfinished, once the results are written."""
        shutil.rmtree(self.folder)

    def _keep(self, piece: Piece) -> None:
        self.write(piece)
        self.store.mark(piece.number)


def _kept(values: NDArray[Any], shares: Shares | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return labels, and the probabilities to keep, of an answer that is either."""
    if values.ndim == 2:
        return values, None
    return values.argmax(2), shares.kept(values) if shares else None


def plan_job(source: ImageSource, predictor: Predictor, probabilities: bool) -> tuple[int, TilePlan]:
    """Return the side of the store's chunks and the plan of tiles that keep to them.

    Small chunks leave tiles more sizes to choose from, large ones make fewer files: each step to smaller ones
    must save a twentieth of the work.
    """
    best: tuple[int, TilePlan] | None = None
    shortage: ConfigError | MachineError | None = None
    for chunk in CHUNKS:
        try:
            plan = predictor.plan(source, align=chunk, probabilities=probabilities)
        except (ConfigError, MachineError) as error:
            shortage = error
            continue
        if best is None or plan.overlap_cost < 0.95 * best[1].overlap_cost:
            best = chunk, plan
    if best is None:
        assert shortage is not None  # there are sides to try
        raise shortage
    return best
