"""Processes that train together: what one would get, one voice, and no one left alone."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fullyconv import cli
from fullyconv.datasets import AugmentConfig, Dataset, open_dataset, split_dataset
from fullyconv.errors import ConfigError
from fullyconv.evaluation import evaluate
from fullyconv.models import UNet, load
from fullyconv.progress import Quiet
from fullyconv.training import TrainConfig, train
from fullyconv.training import choices as choices_module
from fullyconv.training import loop as loop_module
from fullyconv.training import runs as runs_module
from fullyconv.training.interruption import Interruption, Stopped

CONFIG = TrainConfig(
    epochs=2, batch=4, precision="f32", workers=0, loss="cross_entropy", augment=AugmentConfig(crop=(32, 32))
)
OPTIONS = [
    "--widths",
    "4",
    "--widths",
    "8",
    "--batch",
    "4",
    "--crop",
    "32",
    "--precision",
    "f32",
    "--turns",
    "all",
]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["fullyconv.cli", "fullyconv.training", "fullyconv.evaluation", "pytest"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(rank, processes, port, log):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = log.open("a", buffering=1)


def train_together(rank, processes, port, log, data, out, config, norm):
    together(rank, processes, port, log)
    choices_module.LEAST_STEPS = 6
    torch.manual_seed(1)
    opened, fingerprint = runs_module.opened, Dataset.fingerprint

    def opening(*arguments):
        print(f"opens {rank}")
        dataset = opened(*arguments)
        print(f"opened {rank}")
        return dataset

    runs_module.opened = opening
    Dataset.fingerprint = lambda dataset: print(f"reads every byte {rank}") or fingerprint(dataset)
    train(UNet(2, 3, widths=(4, 8), norm=norm), data, out=out, config=config)


def command_together(rank, processes, port, log, arguments):
    together(rank, processes, port, log)
    loop_module.SAVE_SECONDS, loop_module.SAVE_SHARE = 0.1, 1e9
    cli.main(arguments)


def start(target, processes, log, *arguments):
    port = free_port()
    children = [
        CONTEXT.Process(target=target, args=(rank, processes, port, log, *arguments))
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    return children


def finish(children, log):
    for child in children:
        child.join(120)
        assert child.exitcode == 0, log.read_text()


def history(out):
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("norm", "tolerance"), [("group", 2e-3), ("batch", 0.15)])
def test_two_processes_get_what_one_gets(made_data, tmp_path, norm, tolerance):
    """With group normalisation to rounding; batch normalisation sees the batch of its process alone."""
    log = tmp_path / "log.txt"
    for processes in (1, 2):
        out = tmp_path / str(processes)
        finish(start(train_together, processes, log, made_data, out, CONFIG, norm), log)
    one, two = ([row["mean_iu"] for row in history(tmp_path / name)] for name in "12")
    assert two == pytest.approx(one, abs=tolerance)
    if norm == "group":
        first, second = (load(tmp_path / name / "model.safetensors").state_dict() for name in "12")
        assert all(torch.allclose(first[name], second[name], atol=1e-3) for name in first)
    said = log.read_text()
    assert said.count("reads every byte 0") == 2  # the first process of each run, and no other
    assert "reads every byte 1" not in said
    assert said.rindex("opened 0") < said.index("opens 1")  # what the first looked at is known to the second
    assert said.count("batch: 4 crops a step") == said.count("epoch 1:") == 2  # each run once
    dataset = split_dataset(open_dataset(made_data), seed=0)
    again = evaluate(tmp_path / "2" / "model.safetensors", dataset, split="val")
    best = max(history(tmp_path / "2"), key=lambda row: row["mean_iu"])
    assert again.scores.mean_iu == pytest.approx(best["mean_iu"], abs=1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_others_and_the_run_goes_on(made_data, tmp_path, rank):
    log, out = tmp_path / "log.txt", tmp_path / "run"
    options = [*OPTIONS, "--out", str(out), "--epochs", "3"]
    children = start(command_together, 2, log, ["train", str(made_data), *options])
    while not list((out / "checkpoints").glob("*.sha256")):
        assert all(child.is_alive() for child in children), log.read_text()
        time.sleep(0.05)
    children[rank].kill()
    children[1 - rank].join(30)
    assert children[1 - rank].exitcode == 3, log.read_text()
    assert "lost the others" in log.read_text()
    assert not (out / "model.safetensors").exists() or load(out / "model.safetensors")
    finish(start(command_together, 2, log, ["train", "--resume", str(out)]), log)
    assert "resuming at step" in log.read_text()
    assert history(out)[-1]["epoch"] == 3
    assert log.read_text().count("model: ") == 1


def test_sigterm_to_one_process_stops_all_at_the_same_step(made_data, tmp_path):
    log, out = tmp_path / "log.txt", tmp_path / "run"
    options = [*OPTIONS, "--out", str(out), "--epochs", "30"]
    children = start(command_together, 2, log, ["train", str(made_data), *options])
    while not list((out / "checkpoints").glob("*.sha256")):
        assert all(child.is_alive() for child in children), log.read_text()
        time.sleep(0.05)
    os.kill(children[1].pid, signal.SIGTERM)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [143, 143], log.read_text()
    assert log.read_text().count("SIGTERM: stopped at step") == 1


def test_a_signal_that_comes_while_processes_agree_is_told_at_the_next_step(monkeypatch):
    interruption = Interruption()
    run = SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=2, device=torch.device("cpu")),
        clock=SimpleNamespace(share=0.5),
        interruption=interruption,
    )

    def meanwhile(news, operation):
        interruption.signal = signal.SIGTERM

    monkeypatch.setattr(torch.distributed, "all_reduce", meanwhile)
    loop_module.Run._agree_on_time(run)  # the others do not know of it
    assert run.share == 0.5
    with pytest.raises(Stopped):
        loop_module.Run._agree_on_time(run)


@pytest.mark.slow
def test_torchrun_starts_a_run_and_one_killed_process_ends_it(made_data, tmp_path):
    out = tmp_path / "run"
    options = [*OPTIONS, "--out", str(out), "--epochs", "99"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launched = subprocess.Popen(
        [
            *launcher,
            "--master-port",
            str(free_port()),
            "-m",
            "fullyconv",
            "train",
            str(made_data),
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        until = time.monotonic() + 120
        while not (out / "history.jsonl").exists() and launched.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.1)
        ranks = [int(pid) for pid in children_of(launched.pid)]
        os.kill(ranks[1], signal.SIGKILL)
        said, _ = launched.communicate(timeout=45)
    finally:
        launched.kill()
    assert launched.returncode not in (0, None)
    assert "go on: fullyconv train --resume" in said


def children_of(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_batch_that_cannot_be_shared_is_refused(made_data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module.Accelerator, "num_processes", 3)
    with pytest.raises(ConfigError, match=r"a batch of 4 for 3 processes; .*--batch 6"):
        train(None, made_data, out=tmp_path / "run", config=CONFIG, progress=Quiet())
