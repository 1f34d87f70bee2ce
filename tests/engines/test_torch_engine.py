"""What the torch engine does with batches, as on a GPU."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch

from fullyconv.engines import RunOptions
from fullyconv.engines._torch import TorchEngine
from fullyconv.models import Normalization, UNet

SIZES = [(40, 50)] * 5 + [(33, 20)] * 2 + [(40, 50)]


@pytest.fixture(scope="module")
def model() -> UNet:
    torch.manual_seed(0)
    model = UNet(3, 3, widths=(4, 8), normalization=Normalization((100.0,), (50.0,))).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def batching(model: UNet, options: RunOptions) -> TorchEngine:
    engine = TorchEngine(model, options, torch.device("cpu"))
    engine.workers, engine._behind, engine.in_flight = 3, 1, 9
    return engine


@pytest.mark.parametrize("size", [None, (40, 50)], ids=str)
def test_neighbours_of_one_size_go_through_together_and_come_out_in_order(
    model: UNet, size: tuple[int, int] | None
) -> None:
    sizes = SIZES if size is None else [size] * 7
    windows = [
        np.random.default_rng(place).integers(0, 256, (*each, 3)).astype(np.uint8)
        for place, each in enumerate(sizes)
    ]
    batches: list[int] = []
    pulled = 0

    def source():
        nonlocal pulled
        for window in windows:
            pulled += 1
            yield window

    with closing(batching(model, RunOptions(size, answer="scores"))) as engine:
        engine._graph.register_forward_hook(lambda _, given, made: batches.append(len(given[0])))
        answers = []
        for answered, answer in enumerate(engine.run(source())):
            assert pulled - answered <= engine.in_flight
            answers.append(answer)
    # Where windows have one size a last batch is filled up, so that what was compiled for it serves it too.
    assert batches == ([3, 2, 2, 1] if size is None else [3, 3, 3])
    assert len(answers) == len(windows)
    for window, answer in zip(windows, answers, strict=True):
        with torch.inference_mode():
            scores = model(torch.from_numpy(window).permute(2, 0, 1)[None].float())[0].numpy()
        np.testing.assert_allclose(answer, scores, atol=1e-4)


def test_the_network_is_used_in_place(model: UNet) -> None:
    window = np.full((40, 50, 3), 90, np.uint8)
    with closing(TorchEngine(model, RunOptions(answer="scores"), torch.device("cpu"))) as engine:
        before = next(engine.run([window]))
        with torch.no_grad():
            model.head.bias += 1
        assert np.allclose(next(engine.run([window])), before + 1, atol=1e-5)
        model.head.bias.data -= 1


def test_threads_are_those_asked_for(model: UNet) -> None:
    before = torch.get_num_threads()
    try:
        TorchEngine(model, RunOptions(threads=1), torch.device("cpu"))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
