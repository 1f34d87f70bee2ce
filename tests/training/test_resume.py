"""A run that is killed, stopped or out of disk ends with the weights of one that was not."""

import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from fullyconv import cli
from fullyconv.errors import ConfigError
from fullyconv.images import _atomic as atomic_module
from fullyconv.models import load
from fullyconv.progress import Quiet
from fullyconv.training import checkpoints as checkpoints_module
from fullyconv.training import loop as loop_module
from fullyconv.training import resume

OPTIONS = shlex.split(
    "--widths 4 --widths 8 --batch 4 --crop 32 --precision f32 --turns all --epochs 2 --seed 3"
)
# Every child begins from a process that has imported all and computed nothing.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["fullyconv.cli", "fullyconv.training", "fullyconv.evaluation", "pytest"])
SHM = Path("/dev/shm")


def command(arguments, log, temporary, disk=None, dies_at=None):
    """Run the command line as a process of its own that saves often."""
    os.environ["TMPDIR"] = str(temporary)
    os.setpgrp()
    torch.set_num_threads(1)
    sys.stderr = sys.stdout = log.open("a", buffering=1)
    loop_module.SAVE_SECONDS, loop_module.SAVE_SHARE = 0.1, 1e9
    if disk:
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
    if dies_at:  # in the middle of writing this file of the third checkpoint
        die_while_writing(dies_at)
    cli.main([str(argument) for argument in arguments])


def die_while_writing(ending):
    publish, written = atomic_module._publish, []

    def publish_or_die(temporary, path, *, overwrite):
        written.append(path.suffix == ending)
        if sum(written) == 3:
            os.truncate(temporary, temporary.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        publish(temporary, path, overwrite=overwrite)

    atomic_module._publish = publish_or_die


class Runs:
    def __init__(self, folder, data):
        self.folder, self.data = folder, data
        self.temporary, self.log = folder / "temporary", folder / "log.txt"
        self.temporary.mkdir()

    def begin(self, out, *options, **how):
        return self.start(["train", self.data, "--out", out, *OPTIONS, *options], **how)

    def resume(self, out, **how):
        return self.start(["train", "--resume", out], **how)

    def start(self, arguments, **how):
        process = CONTEXT.Process(target=command, args=(arguments, self.log, self.temporary), kwargs=how)
        process.start()
        return process

    def finish(self, process):
        process.join(100)
        assert process.exitcode == 0, self.log.read_text()

    def said(self):
        return self.log.read_text()


@pytest.fixture(scope="module")
def runs(made_data, tmp_path_factory):
    data = tmp_path_factory.mktemp("data") / "discs"
    shutil.copytree(made_data, data)
    return Runs(tmp_path_factory.mktemp("killed"), data)


@pytest.fixture(scope="module")
def whole(runs):
    """A run without a break."""
    out = runs.folder / "whole"
    runs.finish(runs.begin(out, "--workers", 0))
    return out


def fingerprint(out):
    """All that must be equal: the kept network, the last state of training, the history but its times."""
    *_, last = sorted((out / "checkpoints").glob("[0-9]*.safetensors"))
    with checkpoints_module.safe_open(last, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    for row in [state, *rows]:
        for name in ("seconds", "reserved", "compute_share", "crops_per_second"):
            row.pop(name, None)
    return (
        hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        digest.hexdigest(),
        state,
        rows,
    )


def kill_at_random(runs, process, draw):
    """Kill a process after a random while; return whether it was still at work."""
    process.join(draw.uniform(0.2, 0.8))
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return True
    assert process.exitcode == 0, runs.said()
    return False


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(runs, whole, workers):
    out, draw = runs.folder / f"killed-{workers}", random.Random(workers)
    process = runs.begin(out, "--workers", workers)
    wait_for(out / "recipe.toml")
    killed = []
    while len(killed) < 6 and kill_at_random(runs, process, draw):
        killed.append(process.pid)
        process = runs.resume(out)
    runs.finish(process)
    assert len(killed) >= 3
    assert fingerprint(out) == fingerprint(whole)
    assert nothing_is_left(out)
    ours = [path.name for path in SHM.glob("torch_*") if path.name.split("_")[1] in map(str, killed)]
    assert not ours


@pytest.mark.parametrize("dies_at", [".safetensors", ".sha256"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(runs, whole, dies_at):
    out = runs.folder / f"half{dies_at}"
    process = runs.begin(out, "--workers", 0, dies_at=dies_at)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    runs.finish(runs.resume(out))
    assert fingerprint(out) == fingerprint(whole)
    assert nothing_is_left(out)


@pytest.mark.parametrize(
    ("number", "code", "workers"),
    [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 0)],
)
def test_a_signal_to_all_processes_saves_and_says_how_to_go_on(runs, whole, number, code, workers):
    out = runs.folder / f"signal-{number}-{workers}"
    process = runs.begin(out, "--workers", workers)
    wait_for(out / "checkpoints" / "000003.sha256")
    os.killpg(process.pid, number)
    process.join(30)
    assert process.exitcode == code, runs.said()
    assert f"{number.name}: stopped at step" in runs.said()
    assert f"go on: fullyconv train --resume {out}" in runs.said()
    assert not children_of_group(process.pid)
    assert not list(runs.temporary.glob("pymp-*"))
    runs.finish(runs.resume(out))
    assert fingerprint(out) == fingerprint(whole)


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(runs, whole):
    out = runs.folder / "full"
    process = runs.begin(out, "--workers", 0, disk=30_000)  # room for the network, not for a checkpoint
    process.join(60)
    assert process.exitcode == 3, runs.said()
    assert "could not be written: File too large" in runs.said()
    assert nothing_is_left(out)
    runs.finish(runs.resume(out))
    assert fingerprint(out) == fingerprint(whole)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(runs, whole):
    out = runs.folder / "damaged"
    process = runs.begin(out, "--workers", 0)
    wait_for(out / "checkpoints" / "000003.sha256")
    process.kill()
    process.join()
    last = max((out / "checkpoints").glob("[0-9]*.sha256")).with_suffix(".safetensors")
    data = bytearray(last.read_bytes())
    data[-5] ^= 1
    last.write_bytes(data)
    runs.finish(runs.resume(out))
    assert f"checkpoint {last.name} is not used: its checksum is wrong" in runs.said()
    assert "resuming at the start" not in runs.said().rpartition(last.name)[2]
    assert fingerprint(out) == fingerprint(whole)


def test_a_finished_run_is_only_reported(runs, whole, made_data):
    before = fingerprint(whole)
    result = resume(whole, progress=Quiet())
    assert (result.epochs, result.steps) == (2, 64)
    assert load(result.model).provenance.scores["mean_iu"] == pytest.approx(
        result.evaluation.scores.mean_iu, abs=1e-6
    )
    assert fingerprint(whole) == before
    assert len(list((whole / "checkpoints").glob("[0-9]*"))) == 2  # one, and its checksum


def test_other_data_is_refused(runs, whole, tmp_path):
    shutil.copytree(runs.data, tmp_path / "other")
    (tmp_path / "other" / "masks" / "00.png").write_bytes((runs.data / "masks" / "01.png").read_bytes())
    shutil.copy(runs.data / "images" / "01.png", tmp_path / "other" / "images" / "00.png")
    with pytest.raises(ConfigError, match="not those that"):
        resume(whole, data=tmp_path / "other", progress=Quiet())


def test_where_no_run_has_begun_there_is_none_to_resume(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}, where no run has begun")):
        resume(tmp_path, progress=Quiet())


def wait_for(path):
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.02)


def nothing_is_left(out):
    return not list(out.rglob(".*.part"))


def children_of_group(group):
    """Processes of a group that are still there and not merely waiting to be reaped."""
    stats = [
        path.read_text().rpartition(")")[2].split()
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.exists()
    ]
    return [stat for stat in stats if int(stat[2]) == group and stat[0] != "Z"]
