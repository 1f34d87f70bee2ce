import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullyconv.metrics import boundary_sums, score_boundaries
from fullyconv.metrics._boundaries import TOLERANCE, WIDTH

CLASSES, IGNORE = 3, 255


def neighbours(shape, row, column, reach, *, corners):
    for r in range(row - reach, row + reach + 1):
        for c in range(column - reach, column + reach + 1):
            if corners or abs(r - row) + abs(c - column) <= reach:
                yield r, c, 0 <= r < shape[0] and 0 <= c < shape[1]


def border_by_loops(labels, index):
    points = []
    for row, column in np.ndindex(labels.shape):
        if labels[row, column] == index and any(
            inside and labels[r, c] not in (index, IGNORE)
            for r, c, inside in neighbours(labels.shape, row, column, 1, corners=False)
        ):
            points.append((row, column))
    return points


def f1_by_loops(truth, answered, index, tolerance):
    true, given = border_by_loops(truth, index), border_by_loops(answered, index)
    if not true and not given:
        return 0.0, 0
    if not true or not given:
        return 0.0, 1
    recall = sum(min(math.dist(p, q) for q in given) < tolerance for p in true) / len(true)
    precision = sum(min(math.dist(p, q) for q in true) < tolerance for p in given) / len(given)
    return (2 * precision * recall / (precision + recall) if precision + recall else 0.0), 1


def region_by_loops(labels, index, steps):
    """What lies within so many steps of the outside, which begins at the edge and not at ignored pixels."""
    return {
        (row, column)
        for row, column in np.ndindex(labels.shape)
        if labels[row, column] == index
        and any(
            not inside or labels[r, c] not in (index, IGNORE)
            for r, c, inside in neighbours(labels.shape, row, column, steps, corners=True)
        )
    }


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_sums_equal_loops(data):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    # Coarse blocks, so that there are insides and not only borders.
    block = data.draw(st.integers(1, 5))
    coarse = tuple(-(-side // block) for side in shape)
    cells = st.sampled_from([0, 1, 2, IGNORE])
    truth = data.draw(hnp.arrays(np.uint8, coarse, elements=cells))
    prediction = data.draw(hnp.arrays(np.uint8, coarse, elements=st.integers(0, 2)))
    truth, prediction = (
        np.kron(labels, np.ones((block, block), np.uint8))[: shape[0], : shape[1]]
        for labels in (truth, prediction)
    )
    with pytest.MonkeyPatch.context() as patch:  # tolerances of some pixels in images of this size
        patch.setattr("fullyconv.metrics._boundaries.TOLERANCE", 0.15)
        patch.setattr("fullyconv.metrics._boundaries.WIDTH", 0.1)
        sums = boundary_sums(truth, prediction, CLASSES, IGNORE)
    answered = np.where(truth == IGNORE, IGNORE, prediction)
    diagonal = math.hypot(*shape)
    for index in range(CLASSES):
        expected = f1_by_loops(truth, answered, index, 0.15 * diagonal)
        assert sums[index, :2] == pytest.approx(expected)
        steps = max(1, round(0.1 * diagonal))
        regions = [region_by_loops(labels, index, steps) for labels in (truth, answered)]
        assert sums[index, 2:4].tolist() == [len(regions[0] & regions[1]), len(regions[0] | regions[1])]
        assert sums[index, 4] == (truth == index).sum()


def test_the_published_tolerances():
    assert (TOLERANCE, WIDTH) == (0.0075, 0.02)


def square(shift=0, size=200):
    labels = np.zeros((size, size), np.uint8)
    labels[50 + shift : 150 + shift, 50:150] = 1
    return labels


def test_a_shift_within_the_tolerance_is_no_error_and_beyond_is_one():
    """The tolerance of a 200×200 image is 2.12 pixels."""
    for shift, perfect in ((0, True), (2, True), (3, False)):
        sums = boundary_sums(square(), square(shift), 2, IGNORE)
        assert (score_boundaries(sums)["boundary_f1"] == 1) is np.bool_(perfect)
    assert score_boundaries(boundary_sums(square(), square(), 2, IGNORE))["boundary_iu"] == 1
    assert score_boundaries(boundary_sums(square(), square(2), 2, IGNORE))["boundary_iu"] < 0.85


def test_an_absent_class_has_no_score_and_a_missed_one_has_zero():
    truth, nothing = square(), np.zeros((200, 200), np.uint8)
    missed = score_boundaries(boundary_sums(truth, nothing, 3, IGNORE))
    assert missed["class_boundary_f1"][1] == 0
    assert missed["class_boundary_iu"][1] == 0
    assert np.isnan(missed["class_boundary_f1"][2])
    invented = score_boundaries(boundary_sums(nothing, truth, 3, IGNORE))
    assert np.isnan(invented["class_boundary_f1"][1])
    assert invented["class_boundary_f1"][0] == 0
    flat = score_boundaries(boundary_sums(nothing, nothing, 2, IGNORE))
    assert np.isnan(flat["boundary_f1"])
    assert flat["boundary_iu"] == 1  # the edge of the image is where a region ends


def test_images_add_up():
    sums = [boundary_sums(square(), square(shift), 2, IGNORE) for shift in (0, 60)]
    alone = [score_boundaries(each)["class_boundary_f1"] for each in sums]
    together = score_boundaries(sums[0] + sums[1])
    assert together["class_boundary_f1"] == pytest.approx(np.mean(alone, 0))
    stacked = score_boundaries(np.stack([sums[0], sums[1], sums[0] + sums[1]]))
    assert stacked["boundary_f1"][2] == together["boundary_f1"]
