"""Runs: begun in a new folder, and gone on with in theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fullyconv.datasets import Dataset
from fullyconv.errors import ConfigError
from fullyconv.models import Provenance, SegmentationModel, load
from fullyconv.progress import Lines, Progress, Quiet
from fullyconv.training.callbacks import Callback
from fullyconv.training.choices import choose_plan
from fullyconv.training.config import TrainConfig
from fullyconv.training.folder import CHECKPOINTS, START, begin, require_begun, require_new
from fullyconv.training.loop import Run
from fullyconv.training.networks import choose_network
from fullyconv.training.preparation import divided, opened
from fullyconv.training.processes import agreed, join_processes, one_before_others
from fullyconv.training.recipes import NAME, Recipe, read_recipe
from fullyconv.training.result import TrainResult
from fullyconv.training.schedule import Clock


def train(
    model: SegmentationModel | None,
    data: Dataset | str | Path,
    *,
    out: str | Path,
    config: TrainConfig | None = None,
    classes: str | Path | None = None,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a network on a folder of images and masks.

    The folder ``out`` then holds ``model.safetensors`` (best validation mean IU), ``recipe.toml`` (every
    option, as chosen), ``history.jsonl`` and ``history.csv``, ``split/*.txt``, ``overlays/`` and
    ``checkpoints/``. Ctrl-C and SIGTERM finish the step and save; `resume` goes on. Started by ``torchrun``
    or ``accelerate launch``, the processes share every batch.

    Parameters
    ----------
    model
        The network, trained in place; ``None`` takes a U-Net that fits the data.
    data
        A folder, or an opened dataset.
    out
        The run's folder: new or empty.
    config
        See `TrainConfig`.
    classes
        A ``classes.toml``, where ``data`` is a folder without one.
    progress
        Told about choices and progress; plain lines on standard error when ``None``.
    callbacks
        Told of every step and every validated epoch.

    Raises
    ------
    DataError
        The data has problems; all are listed.
    ConfigError
        ``out`` holds something already, the network does not fit the data, or the loss stops being a number.
    MachineError
        The disk is full, the memory is too small for one crop, or a worker died.
    KeyboardInterrupt, SystemExit
        After Ctrl-C, or SIGTERM; the run can be resumed.
    """
    return prepare(
        model,
        data,
        out=Path(out),
        config=config or TrainConfig(),
        classes=classes,
        progress=progress or Lines(),
        callbacks=callbacks,
    ).fit()


def prepare(
    model: SegmentationModel | None,
    data: Dataset | str | Path,
    *,
    out: Path,
    config: TrainConfig,
    classes: str | Path | None,
    progress: Progress,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Choose what is open, begin the run's folder, and return the run before its first step; see `train`."""
    clock = Clock()
    accelerator = join_processes(config, out)
    progress = progress if accelerator.is_main_process else Quiet()
    if accelerator.is_main_process:
        require_new(out)
    with one_before_others(accelerator):
        dataset = divided(opened(data, classes, progress), config, progress)
    if model is None:
        model = choose_network(dataset, config, progress)
    elif len(model.classes) != len(dataset.classes):
        raise ConfigError(
            f"a network of {len(model.classes)} classes",
            f"the {len(dataset.classes)} of {dataset.root}",
            "build it anew",
        )
    plan = agreed(choose_plan(model, dataset, config, accelerator.device, progress))
    fingerprint = agreed(dataset.fingerprint() if accelerator.is_main_process else "")
    if accelerator.is_main_process:
        model.provenance = Provenance(data_fingerprint=fingerprint, seed=config.seed)
        begin(out, model, Recipe(plan.config, dataset.root, Path(classes) if classes else None), dataset)
    accelerator.wait_for_everyone()  # the folder is there from here on
    return Run(accelerator, model, dataset, plan, out, progress, clock, fingerprint, callbacks)


def resume(
    run: str | Path,
    *,
    data: Dataset | str | Path | None = None,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Go on with a run that was stopped or killed, as if it had not been.

    On a CPU with as many threads, the weights come out bit by bit as those of a run without a break, where
    its length is in epochs or steps; of ``minutes``, those that were spent count.

    Parameters
    ----------
    run
        Its folder.
    data
        The data it began with, where that lies elsewhere now or was opened by hand.
    progress
        Told about progress; plain lines on standard error when ``None``.
    callbacks
        Told of every step and every validated epoch.

    Raises
    ------
    ConfigError
        The folder holds no run, or the data is not what the run began with.
    """
    clock, out = Clock(), Path(run)
    require_begun(out)
    recipe = read_recipe(out / NAME)
    accelerator = join_processes(recipe.config, out)
    progress = (progress or Lines()) if accelerator.is_main_process else Quiet()
    with one_before_others(accelerator):
        dataset = divided(opened(data or recipe.data or "", recipe.classes, Quiet()), recipe.config, Quiet())
    model = load(out / CHECKPOINTS / START)
    fingerprint = agreed(dataset.fingerprint() if accelerator.is_main_process else "")
    if fingerprint != model.provenance.data_fingerprint:
        raise ConfigError(
            f"{dataset.root}, whose files are not those that {out} began with",
            "the same data",
            "restore it, or say where it lies now: fullyconv train DATA --resume RUN",
        )
    plan = choose_plan(model, dataset, recipe.config, accelerator.device, Quiet())
    trained = Run(accelerator, model, dataset, plan, out, progress, clock, fingerprint, callbacks)
    trained.restore()
    return trained.fit()
