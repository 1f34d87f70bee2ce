"""Files to files: small images in one stream, large ones each as a job; both go on where they stopped."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from fullyconv.errors import ConfigError, ImageError
from fullyconv.images import ImageSource, open_image
from fullyconv.inference.behind import Behind
from fullyconv.inference.cluster import Cluster
from fullyconv.inference.job import Job
from fullyconv.inference.ledger import Ledger, model_hash
from fullyconv.inference.outputs import Outputs
from fullyconv.inference.prediction import Prediction
from fullyconv.inference.predictor import Predictor
from fullyconv.progress import Progress

LARGE = 1 << 24  # pixels from which on an image is a job of its own, kept on disk while it is computed


@dataclass(frozen=True)
class Written:
    """What became of the images.

    Parameters
    ----------
    files
        Image name -> kind of output ("masks", "overlays", ...) -> its file.
    problems
        One line for each image that cannot be predicted.
    approximate
        Why some answers are not those of the whole image.
    """

    files: dict[str, dict[str, Path]]
    problems: tuple[str, ...]
    approximate: tuple[str, ...]

    def by_kind(self) -> dict[str, tuple[Path, ...]]:
        """Return kind of output -> its files, in order of the images' names."""
        ordered = [self.files[name] for name in sorted(self.files)]
        kinds = dict.fromkeys(kind for paths in ordered for kind in paths)
        return {kind: tuple(paths[kind] for paths in ordered) for kind in kinds}


class FilePredictor:
    """Predicts files into a folder.

    Parameters
    ----------
    predictor
        The network.
    out
        The folder.
    outputs
        What to write there.
    ledger
        What is done already.
    progress
        Told how far it is.
    """

    def __init__(
        self,
        predictor: Predictor,
        out: Path,
        outputs: Outputs,
        ledger: Ledger,
        progress: Progress,
    ) -> None:
        self._predictor, self._out, self._outputs = predictor, out, outputs
        self._ledger, self._progress = ledger, progress
        self._written: dict[str, dict[str, Path]] = {}
        self._problems: list[str] = []
        self._reasons: dict[str, None] = {}
        self._count = 0
        self._cluster: Cluster | None = None

    def predict(self, files: Sequence[Path], cluster: Cluster | None = None) -> Written:
        """Predict files; of those done before, only the names of what was written are returned.

        Parameters
        ----------
        files
            Images, of names that differ.
        cluster
            Computes in our place.
        """
        self._count, self._cluster = len(files), cluster
        self.settle(files)
        large: list[Path] = []
        if self._cluster is None:
            self._predict_small(files, large)
        else:
            self._send_small(files, large, self._cluster)
        for path in large:
            try:
                with open_image(path, cache=self._predictor.fitting.cache) as source:
                    self._predict_large(source)
            except ImageError as error:
                self._refuse(path, error)
        return Written(self._written, tuple(self._problems), tuple(self._reasons))

    def _predict_small(self, files: Sequence[Path], large: list[Path]) -> None:
        given: deque[tuple[ImageSource, str]] = deque()
        outcomes = self._predictor.try_many(
            self._small(files, given, large), probabilities=self._outputs.shares is not None
        )
        with Behind(threads=2, waiting=4) as writer:
            for outcome in outcomes:
                source, fingerprint = given.popleft()
                if isinstance(outcome, ImageError):
                    source.close()
                    self._refuse(source.path, outcome)
                else:
                    writer.call(self._write, source, outcome, fingerprint)

    def _send_small(self, files: Sequence[Path], large: list[Path], cluster: Cluster) -> None:
        fingerprints = {}
        given: deque[tuple[ImageSource, str]] = deque()
        for source in self._small(files, given, large):
            source.close()
            fingerprints[source.path] = given.pop()[1]
        for path, outcome in cluster.predict(list(fingerprints), self._out, self._outputs):
            if isinstance(outcome, ImageError):
                self._refuse(path, outcome)
            else:
                with open_image(path) as source:
                    self._finish(source, fingerprints[path], outcome)

    def settle(self, files: Sequence[Path]) -> None:
        """Choose by measuring on the first image that can be read, and keep the choice for going on."""
        for path in files:
            with suppress(ImageError), open_image(path) as source:
                self._predictor.settle(source, "labels" if self._outputs.shares is None else "probabilities")
                self._ledger.agree(precision=self._predictor.runners.precision)
                return

    def _small(
        self, files: Sequence[Path], given: deque[tuple[ImageSource, str]], large: list[Path]
    ) -> Iterator[ImageSource]:
        """Open what is not done, one by one; leave large images for later."""
        for path in files:
            try:
                with ExitStack() as stack:
                    source = stack.enter_context(open_image(path))
                    fingerprint = source.fingerprint()
                    if self._ledger.is_done(path.stem, fingerprint):
                        self._note(source)
                    elif prod(source.size) >= LARGE:
                        large.append(path)
                    else:
                        stack.pop_all()  # whoever finishes it closes it
                        given.append((source, fingerprint))
                        yield source
            except ImageError as error:
                self._refuse(path, error)

    def _write(self, source: ImageSource, prediction: Prediction, fingerprint: str) -> None:
        try:
            self._outputs.write(self._out, source, prediction)
        finally:
            source.close()
        self._finish(source, fingerprint, prediction.reasons)

    def _predict_large(self, source: ImageSource) -> None:
        job = Job(self._ledger.folder / source.path.stem, source, self._predictor, self._outputs.shares)
        if len(job.todo) < job.count:
            done = job.count - len(job.todo)
            self._progress.say(f"{source.path.name}: going on, {done} of {job.count} tiles are done")
        if self._cluster is None:
            job.compute(self._progress)
        else:
            self._cluster.compute(job, source.path, self._outputs, self._progress)
        self._predictor.runners.close()  # writing takes memory, too, the more the wider the image
        self._outputs.write_stored(self._out, source, self._predictor.model.classes, job.store)
        self._finish(source, job.record.image, job.record.reasons)
        job.remove()

    def _finish(self, source: ImageSource, fingerprint: str, reasons: Sequence[str]) -> None:
        self._note(source)
        self._reasons.update(dict.fromkeys(reasons))
        self._ledger.finish(source.path.stem, fingerprint)
        self._progress.advance("predicting", self._done, self._count, "images")

    def _note(self, source: ImageSource) -> None:
        self._written[source.path.stem] = self._outputs.paths(self._out, source)

    def _refuse(self, path: Path, error: ImageError) -> None:
        self._problems.append(str(error) if str(path) in error.given else f"{path}: {error}")

    @property
    def _done(self) -> int:
        return len(self._written) + len(self._problems)


def predict_files(
    model: Path,
    files: Sequence[Path],
    out: Path,
    outputs: Outputs,
    *,
    overwrite: bool = False,
    restart: bool = False,
    cluster: str | None = None,
    progress: Progress,
    **options: Any,
) -> Written:
    """Predict files into a folder; the same call again goes on with what was stopped.

    Parameters
    ----------
    model
        A model file, or a folder of folds.
    files
        Images, of names that differ.
    out
        The folder.
    outputs
        What to write there.
    overwrite
        Replace files that exist.
    restart
        Forget what was left unfinished there.
    cluster
        Address of a Dask scheduler whose workers compute; they share all paths.
    progress
        Told how far it is.
    options
        Of `Predictor`.

    Raises
    ------
    ConfigError
        Names are doubled, files exist, what is unfinished is of another command, or an image has changed.
    MachineError
        The disk is full, or memory does not suffice; what is done is kept.
    """
    _refuse_doubled(files)
    names = [file.stem for file in files]
    facts = {"model": model_hash(model), "outputs": asdict(outputs), "options": options}
    ledger = Ledger(out, facts, names, restart=restart)
    finished = False
    try:
        if not overwrite:
            outputs.refuse_existing(out, [name for name in names if name not in ledger.began])
        if ledger.resumed:
            progress.say(f"{out}: going on with what was stopped")
        predictor = Predictor(model, progress=progress, **{**options, **ledger.agree()})
        worker = FilePredictor(predictor, out, outputs, ledger, progress)
        if cluster is None:
            written = worker.predict(files)
        else:
            worker.settle(files)
            with closing(Cluster(cluster, model, {**options, **ledger.agree()})) as machines:
                written = worker.predict(files, machines)
        finished = True
        return written
    finally:
        ledger.close(finished=finished or ledger.is_empty)


def _refuse_doubled(files: Sequence[Path]) -> None:
    name, count = Counter(file.stem for file in files).most_common(1)[0]
    if count > 1:
        namesakes = ", ".join(str(file) for file in files if file.stem == name)
        raise ConfigError(
            f"several images named {name}: {namesakes}",
            "one image per name",
            "predict folder by folder, each to its own --out",
        )
