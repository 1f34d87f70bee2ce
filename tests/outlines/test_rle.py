"""Run lengths: golden texts that pycocotools 2.0 wrote, laws, and damaged input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullyconv.errors import ImageError
from fullyconv.outlines import decode_rle, encode_rle, encode_rles


def disc():
    return np.add.outer((np.arange(64) - 30) ** 2, (np.arange(80) - 41) ** 2) < 500


def window():
    mask = np.zeros((30, 12), bool)
    mask[4:25, 2:10] = True
    mask[10:15, 4:7] = False
    return mask


def long_runs():
    mask = np.zeros((4000, 3000), bool)
    mask[1:3999, 1] = True
    mask[3:5, 2998] = True
    return mask


GOLDEN = {  # what pycocotools.mask.encode gives
    "disc": (
        disc,
        "kV17e18J4L4L4M2N2N2N2N2O0O2O0O2O0O2O00000O2O000000000001N1000001N101N101N101N2N2N2N2N3L4L4L6HYo0",
    ),
    "window": (window, "P2e0900AL44LL44LL44;0000h1"),
    "long runs": (long_runs, "Qm3nl3TTg];TSLge`bD"),
    "full": (lambda: np.ones((3, 2), bool), "06"),
    "empty": (lambda: np.zeros((5, 7), bool), "S1"),
    "noise": (
        lambda: np.random.default_rng(5).random((9, 11)) > 0.5,
        "0110030M21NO020N0000020N010O20N11OO23OO0NO10O031M41KO010O0110",
    ),
}
MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=14))


@pytest.mark.parametrize("name", GOLDEN)
def test_texts_are_those_of_pycocotools(name):
    make, text = GOLDEN[name]
    mask = make()
    assert encode_rle(mask) == {"size": list(mask.shape), "counts": text}
    for counts in (text, text.encode("ascii")):
        assert np.array_equal(decode_rle({"size": mask.shape, "counts": counts}), mask)


@settings(deadline=None, max_examples=200)
@given(MASKS, st.booleans())
def test_masks_come_back(mask, compress):
    rle = encode_rle(mask, compress=compress)
    back = decode_rle(rle)
    assert back.dtype == bool
    assert np.array_equal(back, mask)


@settings(deadline=None, max_examples=100)
@given(MASKS)
def test_numbers_are_runs_down_the_columns(mask):
    expected, now = [], False
    length = 0
    for value in mask.T.ravel().tolist():
        if value != now:
            expected.append(length)
            length, now = 0, value
        length += 1
    assert encode_rle(mask, compress=False)["counts"] == [*expected, length]


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 5)),
    st.booleans(),
)
def test_all_labels_at_once_are_each_mask_alone(labels, compress):
    encoded = encode_rles(labels, compress=compress)
    assert list(encoded) == np.unique(labels).tolist()
    for label, rle in encoded.items():
        assert rle == encode_rle(labels == label, compress=compress)


def test_nothing_to_encode():
    assert encode_rles(np.zeros((0, 3), int)) == {}
    for wrong in (np.zeros((2, 2)), np.zeros(4, int)):
        with pytest.raises(ImageError, match="labels of shape"):
            encode_rles(wrong)
    with pytest.raises(ImageError, match="mask of shape"):
        encode_rle(np.zeros(4))


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ({"counts": "13"}, "size None"),
        ({"size": [2], "counts": "13"}, r"size \[2\]"),
        ({"size": [2, -2], "counts": "13"}, "size"),
        ({"size": [2.0, 2], "counts": "13"}, "size"),
        ({"size": [1 << 30, 1 << 30], "counts": "13"}, "size"),
        ({"size": "22", "counts": "13"}, "size"),
        ({"size": [2, 2]}, "given as NoneType"),
        ({"size": [2, 2], "counts": [1, "3"]}, "given as list"),
        ({"size": [2, 2], "counts": [1.5, 2.5]}, "given as list"),
        ({"size": [2, 2], "counts": [1, 1 << 70]}, "given as list"),
        ({"size": [2, 2], "counts": [5, -1]}, "least -1"),
        ({"size": [2, 2], "counts": [1, 2]}, "sum to 3"),
        ({"size": [2, 2], "counts": []}, "sum to 0"),
        ({"size": [2, 2], "counts": ""}, "sum to 0"),
        ({"size": [2, 2], "counts": "14"}, "sum to 5"),
        ({"size": [2, 2], "counts": "1OO"}, "least -1"),
        ({"size": [2, 2], "counts": "1p"}, "byte 112 at position 1"),
        ({"size": [2, 2], "counts": "1 3"}, "byte 32 at position 1"),
        ({"size": [2, 2], "counts": "1×"}, "byte 195 at position 1"),
        ({"size": [2, 2], "counts": "1S"}, "end within a number"),
        ({"size": [2, 2], "counts": "P" * 12 + "0"}, "number of 13 letters"),
        ({"size": [2, 2], "counts": "P" * 11 + "7"}, "run of"),
    ],
)
def test_what_is_malformed_is_refused(rle, words):
    with pytest.raises(ImageError, match=words):
        decode_rle(rle)


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
def test_any_text_is_decoded_or_refused(text):
    try:
        mask = decode_rle({"size": [30, 40], "counts": text})
    except ImageError:
        return
    assert mask.shape == (30, 40)
