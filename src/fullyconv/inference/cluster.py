"""Many machines: tiles of large images, and small images, as tasks of a Dask cluster.

Paths and numbers travel through the scheduler. Workers read windows from the path that all of them share,
compile the network once, and write the chunks of their own tiles; a task whose worker is lost runs again
elsewhere, and writes the same. Only the client marks tiles as done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from fullyconv.errors import ConfigError, ImageError, MachineError
from fullyconv.images import open_image
from fullyconv.inference.job import Job
from fullyconv.inference.ledger import model_hash
from fullyconv.inference.outputs import Outputs
from fullyconv.inference.predictor import Predictor
from fullyconv.models import locate
from fullyconv.progress import Progress

_PATIENCE = 30  # seconds for a scheduler to answer
_TILES = 8  # in a task: enough to keep an engine busy, little to lose
_IMAGES = 16
_MOST_TASKS = 50_000  # that a scheduler carries with ease

_lock = Lock()
_predictors: dict[_Network, Predictor] = {}


@dataclass(frozen=True)
class _Network:
    """What a worker makes its predictor from; equal ones are the same network."""

    model: Path
    digest: str
    options: tuple[tuple[str, Any], ...]


class Cluster:
    """A connection to the scheduler of a Dask cluster.

    Parameters
    ----------
    address
        Of the scheduler, such as ``"tcp://10.0.0.1:8786"``.
    model
        The model file or folder of folds, under a path that all workers share.
    options
        Of their `Predictor`.

    Raises
    ------
    ConfigError
        The precision is int8, whose calibration would differ between workers.
    MachineError
        Dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str, model: Path, options: dict[str, Any]) -> None:
        if options.get("precision") == "int8":
            raise ConfigError("int8 on a cluster", "f32 or bf16", "take --precision auto")
        try:
            from distributed import Client
        except ImportError:
            raise MachineError(
                "prediction on a cluster without Dask",
                "dask and distributed, here and on the workers",
                "pip install 'fullyconv[cluster]'",
            ) from None
        self._network = _Network(locate(model).resolve(), model_hash(model), tuple(sorted(options.items())))
        try:
            self._client = Client(address, timeout=_PATIENCE)
        except (OSError, TimeoutError, ValueError) as error:
            raise MachineError(
                f"no scheduler answers at {address} ({error})",
                "a running one",
                "dask scheduler; dask worker tcp://SCHEDULER:8786 (on each machine)",
            ) from error

    def compute(self, job: Job, path: Path, outputs: Outputs, progress: Progress) -> None:
        """Compute what is missing of a job, by as many workers as there are.

        Parameters
        ----------
        job
            In a folder that all workers share.
        path
            Of the image, likewise.
        outputs
            What will be written of it.
        progress
            Told how far it is.
        """
        todo = job.todo
        blocks = _batched(todo, max(_TILES, -(-len(todo) // _MOST_TASKS)))
        calls = [(self._network, job.folder.resolve(), path.resolve(), outputs, block) for block in blocks]
        done = job.count - len(todo)
        for numbers in self._results(_compute_block, calls):
            job.store.mark(*numbers)
            done += len(numbers)
            progress.advance(f"predicting {job.name}", done, job.count, "tiles")

    def predict(
        self, paths: Sequence[Path], out: Path, outputs: Outputs
    ) -> Iterator[tuple[Path, tuple[str, ...] | ImageError]]:
        """Predict small images; yield each with the reasons why it is not exact, or why it cannot be used."""
        calls = [(self._network, block, out.resolve(), outputs) for block in _batched(paths, _IMAGES)]
        for outcomes in self._results(_predict_images, calls):
            yield from outcomes

    def close(self) -> None:
        """Leave the cluster, which goes on without us."""
        self._client.close()

    def _results(self, function: Any, calls: list[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield results as they come; what a task raises is raised here, and the others are given up."""
        from distributed import as_completed

        futures = [self._client.submit(function, *call, pure=False) for call in calls]
        try:
            for future in as_completed(futures):
                yield future.result()
                future.release()
        finally:
            self._client.cancel(futures)


def _batched(values: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(values[start : start + size]) for start in range(0, len(values), size)]


def _predictor(network: _Network) -> Predictor:
    """Return this worker's predictor of a network, compiled once."""
    if network not in _predictors:
        if model_hash(network.model) != network.digest:
            raise ConfigError(
                f"{network.model} differs from the client's", "one model file for all", "share the folder"
            )
        _predictors.clear()  # one network at a time: memory is for tiles
        _predictors[network] = Predictor(network.model, **dict(network.options))
    return _predictors[network]


def _compute_block(
    network: _Network, folder: Path, path: Path, outputs: Outputs, numbers: list[int]
) -> list[int]:
    """Compute and write some pieces of a job; they are on the disk when this returns."""
    with _lock:
        predictor = _predictor(network)
        with open_image(path, cache=predictor.fitting.cache) as source:
            job = Job(folder, source, predictor, outputs.shares)
            for piece in job.pieces(numbers):
                job.write(piece)
    return numbers


def _predict_images(
    network: _Network, paths: list[Path], out: Path, outputs: Outputs
) -> list[tuple[Path, tuple[str, ...] | ImageError]]:
    """Predict some images and write what is wanted of them."""
    outcomes: list[tuple[Path, tuple[str, ...] | ImageError]] = []
    with _lock:
        predictor = _predictor(network)
        for path in paths:
            try:
                with open_image(path) as source:
                    prediction = predictor.predict(source, probabilities=outputs.shares is not None)
                    outputs.write(out, source, prediction)
                outcomes.append((path, prediction.reasons))
            except ImageError as error:
                outcomes.append((path, error))
    return outcomes
