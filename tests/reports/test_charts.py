import math
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullyconv.reports._charts import Line, line_chart, reliability_diagram, ticks


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_few_and_inside(low, width):
    high = low + width
    if high - low < 1e-9 * max(1, abs(low)):
        return
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-6 * width <= tick <= high + 1e-6 * width for tick in found)
    steps = {round((b - a) / (found[1] - found[0]), 3) for a, b in pairwise(found)}
    assert steps == {1.0}


def points(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in found.split()]
        for found in re.findall(r'<polyline points="([^"]*)"', svg)
    ]


def test_points_are_where_they_belong():
    drawn = line_chart("t", [Line("a", [(0, 0), (5, 0.5), (10, 1)])], x="x", y="y", y_range=(0, 1))
    ((start, middle, end),) = points(drawn)
    assert start[0] < middle[0] < end[0]
    assert start[1] > middle[1] > end[1]
    assert middle[1] == pytest.approx((start[1] + end[1]) / 2, abs=0.1)


def test_several_lines_have_a_legend_and_all_numbers_stand_in_a_table():
    drawn = line_chart("t", [Line("<a>", [(1, 2)]), Line("b", [(1, 3.25)])], x="x", y="y")
    assert drawn.count('class="key s') == 2
    assert "&lt;a&gt;" in drawn
    assert "<td>3.25</td>" in drawn
    assert 'role="img" aria-label="t"' in drawn


@pytest.mark.parametrize("line", [[], [(1, 0.5)], [(1, 2.0), (2, 2.0)]])
def test_few_or_equal_points_are_drawn_too(line):
    drawn = line_chart("t", [Line("a", line)], x="x", y="y")
    numbers = [value for pair in points(drawn)[0] for value in pair]
    assert all(map(math.isfinite, numbers))
    assert "nan" not in drawn


def test_a_level_is_named():
    drawn = line_chart("t", [Line("a", [(1, 0.5), (2, 0.9)])], x="x", y="y", levels=[("constant", 0.4)])
    assert ">constant</text>" in drawn


def test_a_reliability_diagram_shows_each_bin():
    drawn = reliability_diagram([(0.55, 0.5, 0.1), (0.95, 0.9, 0.9)], title="t")
    assert len(points(drawn)[0]) == 2
    assert "90.00%" in drawn
    assert drawn.count("<rect") == 2


@pytest.mark.parametrize(("last", "shown"), [(1, ["1"]), (3, ["1", "2", "3"])])
def test_there_are_no_half_epochs(last, shown):
    line = Line("a", [(epoch, 0.5) for epoch in range(1, last + 1)])
    drawn = line_chart("t", [line], x="epoch", y="y", y_range=(0, 1))
    assert re.findall(r'text-anchor="middle">([\d.]+)<', drawn) == shown
