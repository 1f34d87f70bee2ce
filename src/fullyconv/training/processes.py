"""The processes that train together: one alone, or those that a launcher started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.tracking import get_available_trackers
from accelerate.utils import broadcast_object_list

from fullyconv.engines import pick_device
from fullyconv.errors import MachineError
from fullyconv.training.config import TrainConfig

_Value = TypeVar("_Value")

PATIENCE = timedelta(hours=1)  # with a process that looks at a large dataset for the first time


def join_processes(config: TrainConfig, out: Path) -> Accelerator:
    """Return this process's view of all that train together; its trackers write below ``out``.

    Raises
    ------
    MachineError
        A tracker is not installed.
    """
    missing = [name for name in config.track if name not in map(str, get_available_trackers())]
    if missing:
        raise MachineError(
            f"--track {missing[0]}, which is not installed",
            f"one of {', '.join(map(str, get_available_trackers())) or 'none so far'}",
            f"pip install 'fullyconv[track]' for tensorboard, pip install {missing[0]} for others",
        )
    # Where a backbone is frozen for a while, some parameters have no gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=config.frozen_epochs > 0)
    return Accelerator(
        cpu=pick_device().type == "cpu",
        kwargs_handlers=[unused, InitProcessGroupKwargs(timeout=PATIENCE)],
        log_with=list(config.track) or None,
        project_dir=out,
    )


def agreed(value: _Value) -> _Value:
    """Return the first process's value in all processes."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


@contextmanager
def one_before_others(accelerator: Accelerator) -> Iterator[None]:
    """Let one process on each machine go first, and the others find what it keeps on the machine's disk."""
    if not accelerator.is_local_main_process:
        accelerator.wait_for_everyone()
    try:
        yield
    finally:  # where it fails, so will the others, each with a word of its own
        if accelerator.is_local_main_process:
            accelerator.wait_for_everyone()
