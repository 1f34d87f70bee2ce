"""The contract every engine keeps, swept over `ENGINES`; a new engine adds nothing here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from fullyconv.engines import ENGINES, Answer, Runner, compile_model
from fullyconv.errors import ImageError
from fullyconv.models import Normalization, SegmentationModel, UNet

SIZES = [(96, 128), (117, 90), (9, 30), (64, 71), (96, 128)]
SCALES = {"uint8": 1.0, "uint16": 200.0, "float32": 0.01}


def network(dtype: str = "uint8") -> SegmentationModel:
    torch.manual_seed(0)
    scale = SCALES[dtype]
    normalization = Normalization((100.0 * scale,), (50.0 * scale,), dtype)
    model = UNet(3, 3, widths=(4, 8, 12), normalization=normalization).eval()
    torch.nn.init.normal_(model.head.weight)  # spread the scores, so that labels vary
    return model


def window(size: tuple[int, int], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    values = np.random.default_rng([seed, *size]).uniform(0, 255 * SCALES[dtype], (*size, 3))
    return values.astype(dtype)


def expected(model: SegmentationModel, pixels: np.ndarray) -> np.ndarray:
    """K×H×W scores of the network itself."""
    with torch.inference_mode():
        return model(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None])[0].numpy()


def assert_answers(answer: np.ndarray, scores: np.ndarray, kind: str) -> None:
    scale = np.abs(scores).max()
    if kind == "scores":
        assert answer.dtype == np.float32
        assert np.abs(answer - scores).max() <= 1e-4 * scale
    elif kind == "probabilities":
        shares = np.exp(scores - scores.max(0))
        assert answer.dtype == np.float32
        assert np.abs(answer - np.moveaxis(shares / shares.sum(0), 0, 2)).max() <= 1e-4
    else:
        ranked = np.sort(scores, 0)
        clear = ranked[-1] - ranked[-2] > 1e-3
        assert answer.dtype == np.uint8
        assert clear.mean() > 0.9
        assert np.array_equal(answer[clear], scores.argmax(0)[clear])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(params=ENGINES, ids=str)
def make(request: pytest.FixtureRequest, cache: Path) -> Iterator[Callable[..., Runner]]:
    """Compile with the engine under test; all that was compiled is closed in the end."""
    made: list[Runner] = []

    def compiled(model: SegmentationModel, **options: Any) -> Runner:
        made.append(compile_model(model, engine=request.param, cache=cache, **options))
        return made[-1]

    yield compiled
    for runner in made:
        runner.close()


@pytest.mark.parametrize("answer", get_args(Answer))
def test_windows_of_any_size_are_answered_in_order(make: Callable[..., Runner], answer: Answer) -> None:
    model = network()
    runner = make(model, answer=answer)
    windows = [window(size, seed=place) for place, size in enumerate(SIZES)]
    answers = list(runner.run(iter(windows)))
    assert len(answers) == len(windows)
    for pixels, given in zip(windows, answers, strict=True):
        assert_answers(given, expected(model, pixels), answer)


@pytest.mark.parametrize("dtype", SCALES)
@pytest.mark.parametrize("size", [(96, 128), (33, 47)], ids=str)
def test_windows_of_one_size_and_each_type_are_answered(
    make: Callable[..., Runner], dtype: str, size: tuple[int, int]
) -> None:
    model = network(dtype)
    runner = make(model, answer="scores", size=size)
    windows = [window(size, dtype, seed) for seed in range(3)]
    for pixels, given in zip(windows, runner.run(windows), strict=True):
        assert_answers(given, expected(model, pixels), "scores")


def test_what_a_runner_says_of_itself_is_so(make: Callable[..., Runner]) -> None:
    runner = make(network(), size=(64, 64), answer="probabilities", precision="f32")
    assert ENGINES[runner.engine] is type(runner)
    assert (runner.precision, runner.answer, runner.notes) == ("f32", "probabilities", ())
    assert runner.in_flight > runner.workers >= 1


def test_windows_are_pulled_no_farther_ahead_than_in_flight(make: Callable[..., Runner]) -> None:
    runner = make(network(), size=(64, 64))
    pulled = 0

    def windows() -> Iterator[np.ndarray]:
        nonlocal pulled
        for _ in range(12):
            pulled += 1
            yield window((64, 64))

    run = runner.run(windows())
    assert pulled == 0
    for answered, _ in enumerate(run):
        assert pulled - answered <= runner.in_flight
    assert pulled == 12


def test_the_next_window_is_read_before_the_first_answer_is_asked_for_again(
    make: Callable[..., Runner],
) -> None:
    runner = make(network(), size=(64, 64))
    second = threading.Event()

    def windows() -> Iterator[np.ndarray]:
        yield window((64, 64))
        second.set()
        yield window((64, 64))

    with closing(runner.run(windows())) as run:
        next(run)
        assert second.wait(30)


def test_what_the_windows_raise_passes_and_the_runner_goes_on(make: Callable[..., Runner]) -> None:
    runner = make(network(), size=(64, 64))

    def broken() -> Iterator[np.ndarray]:
        yield window((64, 64))
        yield window((64, 64), seed=1)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(runner.run(broken()))
    assert len(list(runner.run([window((64, 64))] * 5))) == 5


def test_a_window_that_does_not_fit_is_refused(make: Callable[..., Runner]) -> None:
    runner = make(network(), size=(64, 64))
    for wrong in (window((64, 65)), window((64, 64))[..., :2], window((64, 64), "uint16")):
        with pytest.raises(ImageError):
            list(runner.run([window((64, 64)), wrong]))


def test_windows_may_be_read_only_views(make: Callable[..., Runner]) -> None:
    runner = make(network(), size=(64, 64))
    image = window((80, 200))
    image.flags.writeable = False
    views = [image[8:72, 10:74], image[8:72, 138:74:-1]]
    for view, given in zip(views, runner.run(views), strict=True):
        assert np.array_equal(given, next(runner.run([view.copy()])))


def test_answers_are_the_callers_own(make: Callable[..., Runner]) -> None:
    runner = make(network(), size=(64, 64))
    windows = [window((64, 64), seed=seed) for seed in range(6)]
    answers = list(runner.run(windows))
    alone = [next(runner.run([pixels])) for pixels in windows]
    assert all(given.flags.writeable and given.flags.c_contiguous for given in answers)
    assert all(map(np.array_equal, answers, alone))


def test_a_run_that_is_left_early_leaves_nothing_behind(make: Callable[..., Runner]) -> None:
    runner = make(network(), size=(64, 64))
    before = set(threading.enumerate())
    with closing(runner.run(window((64, 64), seed=seed) for seed in range(9))) as run:
        next(run)
    assert set(threading.enumerate()) == before
    assert len(list(runner.run([window((64, 64))] * 3))) == 3
    runner.close()
    runner.close()
    assert set(threading.enumerate()) == before


def test_classes_beyond_a_byte_keep_their_numbers(make: Callable[..., Runner]) -> None:
    torch.manual_seed(0)
    model = UNet(300, 3, widths=(4, 6), normalization=Normalization((100.0,), (50.0,))).eval()
    with torch.no_grad():
        model.head.bias[290] = 100.0
    given = next(make(model, size=(32, 40)).run([window((32, 40))]))
    assert given.dtype == np.uint16
    assert (given == 290).all()
