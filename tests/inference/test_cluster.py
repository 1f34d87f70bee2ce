"""A real scheduler with two worker processes: the same bytes as alone, also when one is killed."""

import subprocess
import sys
import time

import numpy as np
import pytest
from pictures import blocks
from test_files import MASKS, digest, run

from fullyconv.errors import ConfigError, MachineError
from fullyconv.images import write_image
from fullyconv.inference import files
from fullyconv.inference.ledger import FOLDER

distributed = pytest.importorskip("distributed", reason="an extra: cluster")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*:ResourceWarning")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """(address of the scheduler, two worker processes)."""
    file = tmp_path_factory.mktemp("cluster") / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [*dask, "scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
    worker = [*dask, "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    processes = [subprocess.Popen([*scheduler, "--scheduler-file", str(file)], **quiet)]
    try:
        processes += [subprocess.Popen([*worker, "--scheduler-file", str(file)], **quiet) for _ in range(2)]
        while not file.exists():
            assert processes[0].poll() is None
            time.sleep(0.05)
        with distributed.Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(2, timeout=120)
            address = client.scheduler.address
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_the_result_is_the_same_also_when_a_worker_is_lost(cluster, small_unet_file, tmp_path, monkeypatch):
    address, workers = cluster
    monkeypatch.setattr(files, "LARGE", 300_000)
    monkeypatch.setattr("fullyconv.inference.job.CHUNKS", (128,))
    monkeypatch.setattr("fullyconv.inference.cluster._TILES", 2)
    for number in range(5):
        write_image(tmp_path / f"{number}.png", blocks(40 + number, 50, seed=number))
    write_image(tmp_path / "deep.png", np.zeros((5, 5, 3), np.uint16))
    write_image(tmp_path / "large.tif", blocks(900, 1100))
    images = sorted(path for path in tmp_path.iterdir() if path.suffix in (".png", ".tif"))
    alone = run(small_unet_file, images, tmp_path / "alone", tile=200)

    killed = []

    class Watching:
        def say(self, line):
            pass

        def advance(self, task, done, total, note=""):
            if note == "tiles" and 4 <= done < total - 4 and not killed:
                workers[0].kill()
                killed.append(done)

    together = files.predict_files(
        small_unet_file, images, tmp_path / "together", MASKS, cluster=address, tile=200,
        engine="torch", precision="f32", progress=Watching(),
    )  # fmt: skip
    assert killed
    assert workers[0].wait() != 0
    assert digest(tmp_path / "together") == digest(tmp_path / "alone")
    assert together.files.keys() == alone.files.keys()
    assert [line.rpartition("/")[2] for line in together.problems] == [
        line.rpartition("/")[2] for line in alone.problems
    ]
    assert not (tmp_path / "together" / FOLDER).exists()


def test_without_a_scheduler_it_says_how_to_start_one(small_unet_file, tmp_path, monkeypatch):
    monkeypatch.setattr("fullyconv.inference.cluster._PATIENCE", 1)
    write_image(tmp_path / "a.png", blocks(20, 20))
    with pytest.raises(MachineError, match="dask scheduler"):
        run(small_unet_file, [tmp_path / "a.png"], tmp_path / "out", cluster="tcp://127.0.0.1:1")


def test_int8_would_differ_between_workers(small_unet_file):
    from fullyconv.inference.cluster import Cluster

    with pytest.raises(ConfigError, match="int8"):
        Cluster("tcp://127.0.0.1:1", small_unet_file, {"precision": "int8"})
