import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullyconv.errors import ConfigError
from fullyconv.labels import ClassTable, default_color


def test_of_takes_a_table_names_or_a_number():
    table = ClassTable(("sky", "road"))
    assert ClassTable.of(table) is table
    assert ClassTable.of(["sky", "road"]) == table
    assert ClassTable.of(3).names == ("class 0", "class 1", "class 2")
    assert ClassTable.of(300).ignore_index == 65535


def test_default_colors_never_repeat():
    colors = [default_color(k) for k in range(255)]
    assert len(set(colors)) == 255
    assert all(0 <= part <= 255 for color in colors for part in color)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 20))
)
def test_colors_and_labels_are_inverse(labels):
    table = ClassTable.of(21)
    back, known = table.from_colors(table.to_colors(labels))
    assert known.all()
    assert np.array_equal(back, labels)
    assert back.dtype == table.dtype


def test_unknown_colors_become_ignored():
    table = ClassTable(("a", "b"), ((0, 0, 0), (0, 0, 255)))
    labels, known = table.from_colors(np.array([[[0, 0, 255], [0, 0, 254]]], np.uint8))
    assert labels.tolist() == [[1, 255]]
    assert known.tolist() == [[True, False]]


def test_ignored_pixels_are_painted_white_and_unknown_labels_refused():
    table = ClassTable.of(2)
    assert table.to_colors(np.array([[255]], np.uint8)).tolist() == [[[255, 255, 255]]]
    with pytest.raises(ConfigError, match=r"labels \[7\]; expected 0 to 1 or 255"):
        table.to_colors(np.array([[7]], np.uint8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ("one",)}, "two or more"),
        ({"names": ("a", "a")}, "used twice"),
        ({"names": ("a", "b"), "colors": ((0, 0, 0),)}, "1 colours for 2 classes"),
        ({"names": ("a", "b"), "colors": ((0, 0, 0), (0, 0, 256))}, "0 to 255"),
        ({"names": ("a", "b"), "ignore_index": 1}, "ignore index 1"),
        ({"names": ("a", "b"), "ignore_index": 70000}, "65535"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ClassTable(**arguments)
