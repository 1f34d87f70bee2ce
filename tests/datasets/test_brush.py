"""Label Studio's packed strokes are read as they are written, whatever the runs; damage never passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_samples import brush, pack_brush

from fullyconv.datasets._layouts._brush import decode_brush
from fullyconv.errors import ImageError

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def pixels_of(size: tuple[int, int], values: list[int]) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (*size, 4))


@settings(max_examples=60, deadline=None)
@given(
    SIZES,
    st.lists(st.sampled_from([0, 0, 0, 255, 7]), min_size=1, max_size=60),
    st.permutations([1, 3, 4, 9]) | st.just([3, 4, 8, 16]),
)
def test_what_is_packed_is_unpacked(size, values, lengths):
    pixels = pixels_of(size, values)
    packed = pack_brush(pixels.ravel(), tuple(lengths))
    assert (decode_brush(packed, size) == pixels[..., 3]).all()


@settings(max_examples=30, deadline=None)
@given(SIZES, st.lists(st.booleans(), min_size=1, max_size=40))
def test_strokes_are_their_alpha(size, values):
    covered = np.resize(np.array(values), size)
    assert ((decode_brush(brush(covered), size) > 0) == covered).all()


@settings(max_examples=60, deadline=None)
@given(SIZES, st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_stroke_are_refused_not_misread(size, packed):
    with pytest.raises(ImageError, match="damaged brush stroke"):
        decode_brush(packed, size)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_stroke_that_is_cut_off_is_refused(data):
    packed = brush(np.eye(6, 7, dtype=bool))
    keep = data.draw(st.integers(0, len(packed) - 2))
    with pytest.raises(ImageError, match="damaged brush stroke"):
        decode_brush(packed[:keep], (6, 7))


def test_known_bits_mean_what_the_format_says():
    # 4 words of 8 bits; lengths of 4, 4, 4, 16 bits; one repeated run of 3 zeros, one word 255.
    bits = (
        f"{4:032b}"
        + f"{7:05b}"
        + "0011" * 3
        + "1111"
        + "1"
        + "00"
        + "0010"
        + f"{0:08b}"
        + "0"
        + "01"
        + "0000"
        + f"{255:08b}"
    )
    bits += "0" * (-len(bits) % 8)
    packed = [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]
    assert decode_brush(packed, (1, 1)).tolist() == [[255]]


def test_a_run_beyond_the_last_pixel_is_refused():
    bits = f"{4:032b}" + f"{7:05b}" + "0011" * 4 + "1" + "00" + f"{4:04b}" + f"{9:08b}"
    bits += "0" * (-len(bits) % 8)
    packed = [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]
    with pytest.raises(ImageError, match="a run of 5 bytes after 0 of 4"):
        decode_brush(packed, (1, 1))


@pytest.mark.parametrize("packed", [[256], [-1], [0.5], ["a"], [[1]], None, {}])
def test_what_is_no_list_of_bytes_is_refused(packed):
    with pytest.raises(ImageError, match="no list of bytes"):
        decode_brush(packed, (2, 2))


def test_a_stroke_of_another_size_is_refused():
    with pytest.raises(ImageError, match="144 words"):
        decode_brush(brush(np.ones((6, 6), bool)), (5, 7))
