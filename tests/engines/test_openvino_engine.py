"""How OpenVINO divides the processor among windows, and what its failures are."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from fullyconv.engines import compile_model
from fullyconv.errors import FullyconvError
from fullyconv.models import UNet


@pytest.fixture(scope="module")
def model() -> UNet:
    torch.manual_seed(0)
    model = UNet(3, 1, widths=(4, 8)).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def windows(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (64, 64, 1)).astype(np.uint8) for _ in range(count)]


def test_a_window_that_comes_alone_has_all_cores(model: UNet, tmp_path: Path) -> None:
    with closing(compile_model(model, engine="openvino", threads=6, cache=tmp_path)) as runner:
        together = list(runner.run(windows(4)))
        assert (runner.workers, list(runner._streams)) == (3, [3])  # the other waits until it is needed
        (alone,) = runner.run(windows(1))
        assert list(runner._streams) == [3, 1]
        assert runner._streams[1]._compiled.get_property("NUM_STREAMS") == 1
        assert np.array_equal(alone, together[0])
        assert not list(runner.run([]))


def test_few_cores_are_not_divided(model: UNet, tmp_path: Path) -> None:
    with closing(compile_model(model, engine="openvino", threads=2, cache=tmp_path)) as runner:
        list(runner.run(windows(1)))
        assert (runner.workers, list(runner._streams)) == (1, [1])


def test_a_failed_request_is_an_error_of_ours(
    model: UNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def set_input_tensor(self, tensor: object) -> None: ...

        def start_async(self) -> None: ...

        def wait(self) -> None:
            raise RuntimeError("out of memory")

    with closing(compile_model(model, engine="openvino", cache=tmp_path)) as runner:
        monkeypatch.setattr("fullyconv.engines._openvino._Streams.take", lambda _: Failing())
        with pytest.raises(FullyconvError, match="out of memory"):
            list(runner.run(windows(3)))
