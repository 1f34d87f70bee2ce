import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullyconv.training.schedule import Clock, learning_rate


def test_the_rate_rises_to_its_peak_and_falls_to_nothing():
    assert learning_rate(0.0, 0.1, 0.2) == 0
    assert learning_rate(0.1, 0.1, 0.2) == pytest.approx(0.05)
    assert learning_rate(0.2, 0.1, 0.2) == pytest.approx(0.1)
    assert learning_rate(0.6, 0.1, 0.2) == pytest.approx(0.05)
    assert learning_rate(1.0, 0.1, 0.2) == pytest.approx(0)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.9))
def test_the_rate_falls_after_the_warm_up_and_stays_within_bounds(a, b, warmup):
    early, late = sorted([a, b])
    assert 0 <= learning_rate(a, 1.0, warmup) <= 1
    if early >= warmup:
        assert learning_rate(early, 1.0, warmup) >= learning_rate(late, 1.0, warmup)


def test_a_clock_of_steps_is_over_after_the_last():
    clock = Clock(steps=4)
    assert clock.share == 0
    clock.step = 1
    assert clock.share == 0.25
    clock.step = 5
    assert clock.share == 1


def test_a_clock_of_seconds_leaves_the_reserved_ones():
    clock = Clock(seconds=100.0, started=time.monotonic() - 40)
    assert clock.share == pytest.approx(0.4, abs=0.01)
    clock.reserved = 60.0
    assert clock.share == pytest.approx(1.0, abs=0.01)


def test_the_earlier_end_counts():
    clock = Clock(steps=2, seconds=1e9)
    clock.step = 1
    assert clock.share == 0.5
    clock.seconds = 1e-9
    assert clock.share == 1


def test_a_clock_without_an_end_never_ends():
    clock = Clock(step=10**9)
    assert math.isclose(clock.share, 0)
