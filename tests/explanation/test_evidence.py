"""Evidence for one position: exact where the truth is known, and never outside the receptive field."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fullyconv as fc
from fullyconv.errors import GeometryError
from fullyconv.explanation import (
    Question,
    effective_receptive_field,
    integrated_gradients,
    occlusion,
)
from fullyconv.explanation.evidence import distances


def image(height, width, seed=0, channels=3):
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


def linear_network(kernel=5):
    """Two convolutions without activations: every account of the evidence is then the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, kernel, padding=kernel // 2), nn.Conv2d(4, 3, 3, padding=1)).eval()


class LooksAside(nn.Module):
    """Class 1 where the pixel 6 rows above and 9 columns to the right is bright, through an activation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, (13, 19), padding=(6, 9), bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0, 0, 18] = 1

    def forward(self, images):
        seen = self.conv(images).relu()
        return torch.cat((torch.zeros_like(seen), seen - 0.5), dim=1)


@pytest.fixture
def aside():
    """A dim image with a bright spot of 3×3 pixels, centred 6 rows above and 9 columns right of (20, 15)."""
    pixels = torch.full((1, 1, 40, 50), 0.1)
    pixels[..., 13:16, 23:26] = 1
    return Question(LooksAside().eval(), pixels, (20, 15), (1, 0))


def test_both_methods_find_the_one_pixel_that_the_network_reads(aside):
    covered = occlusion(aside, side=3, step=1)
    gradients = integrated_gradients(aside)
    top, bottom, left, right = covered.strongest
    assert top <= 14 < bottom
    assert left <= 24 < right
    assert np.unravel_index(covered.map.argmax(), covered.map.shape) == (14, 24)
    assert np.flatnonzero(gradients).tolist() == [14 * 50 + 24]
    assert np.flatnonzero(effective_receptive_field(aside)).tolist() == [14 * 50 + 24]
    assert covered.agreement(gradients) == pytest.approx(1, abs=1e-3)


@settings(max_examples=8, deadline=None)
@given(st.integers(12, 30), st.integers(12, 30), st.integers(2, 9), st.integers(1, 5), st.integers(0, 99))
def test_on_a_linear_network_a_patch_s_fall_is_the_sum_of_its_gradients(height, width, side, step, seed):
    position = seed % height, (7 * seed) % width
    question = Question(linear_network(), image(height, width, seed), position, (0, 2))
    covered = occlusion(question, side=side, step=step)
    gradients = integrated_gradients(question, steps=1)
    sums = [gradients[top:bottom, left:right].sum() for top, bottom, left, right in covered.patches]
    np.testing.assert_allclose(covered.falls, sums, atol=1e-5)
    assert covered.agreement(gradients) > 0.999


@pytest.fixture(scope="module")
def trained_like():
    """A U-Net and an FCN with random scores of some size, their receptive fields smaller than the images."""
    torch.manual_seed(0)
    unet = fc.UNet(3, widths=(4, 8), normalization=None).eval()
    fcn = fc.FCN("squeezenet1_1", 3, stride=8).eval()
    with torch.no_grad():
        for network in (unet, fcn):
            for parameter in network.head.parameters():
                parameter.normal_(0, 0.3)
    return {"unet": unet, "fcn": fcn}


@pytest.mark.parametrize(("kind", "size"), [("unet", (37, 61)), ("fcn", (65, 90))])
def test_all_contributions_add_up_to_the_lead_over_the_flat_image(trained_like, kind, size):
    question = Question(trained_like[kind], image(*size), (20, 31), (0, 1))
    flat = question.margins(question.baseline.expand_as(question.part)).item()
    found = integrated_gradients(question, steps=200).sum()
    assert found == pytest.approx(question.margin - flat, rel=0.02, abs=0.02 * abs(question.margin))


@settings(max_examples=10, deadline=None)
@given(st.integers(20, 70), st.integers(20, 70), st.integers(0, 10**6))
def test_no_evidence_lies_outside_the_receptive_field(trained_like, height, width, seed):
    position = seed % height, seed // 7 % width
    question = Question(trained_like["unet"], image(height, width, seed), position, (0, 1))
    rows, columns = question.field
    outside = np.ones((height, width), bool)
    outside[rows.start : rows.stop, columns.start : columns.stop] = False
    strength = effective_receptive_field(question)
    for found in (strength, integrated_gradients(question, steps=2), occlusion(question, side=16).map):
        assert not found[outside].any()
        assert found[~outside].any()
    assert strength.sum() == pytest.approx(1, abs=1e-5)
    # The truth: whatever is outside may change, and the scores stay.
    other = question.image.clone()
    other[..., torch.from_numpy(outside)] = 50
    with torch.no_grad():
        before, after = (question.network(images)[0, :, *position] for images in (question.image, other))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(40, 100), st.integers(40, 100), st.integers(0, 10**6))
def test_running_on_a_part_gives_the_scores_of_the_whole(trained_like, height, width, seed):
    position = seed % height, seed // 7 % width
    for network in trained_like.values():
        question = Question(network, image(height, width, seed), position, (0, 1))
        with torch.no_grad():
            whole = network(question.image)[:, :, *position]
            part = question.scores(question.part)
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-4)


def test_a_small_receptive_field_is_run_on_a_small_part(trained_like):
    question = Question(trained_like["unet"], image(200, 200), (100, 100), (0, 1))
    assert max(question.part.shape[-2:]) < 40


def test_gradient_of_the_right_class_at_the_right_place():
    network = linear_network(kernel=3)
    question = Question(network, image(15, 17), (7, 9), (2, 0))
    pixels = question.image.clone().requires_grad_()
    network(pixels)[0, 2, 7, 9].backward()
    expected = pixels.grad[0].abs().sum(0)
    np.testing.assert_allclose(effective_receptive_field(question), expected / expected.sum(), atol=1e-6)


def test_distances_count_squares_around_the_pixel():
    strength = np.zeros((11, 13), np.float32)
    strength[5, 6], strength[5, 8], strength[1, 6], strength[10, 12] = 4, 3, 2, 1
    assert distances(strength, (5, 6), (0.4, 0.5, 0.7, 0.9, 1.0)) == (0, 2, 2, 4, 6)


def test_patches_cover_the_receptive_field_and_nothing_else():
    question = Question(linear_network(), image(30, 30), (2, 28), (0, 1))
    covered = occlusion(question, side=4, step=3)
    rows, columns = question.field
    count = np.zeros((30, 30), int)
    for top, bottom, left, right in covered.patches:
        count[top:bottom, left:right] += 1
    assert (count[rows.start : rows.stop, columns.start : columns.stop] > 0).all()
    assert count.sum() == count[rows.start : rows.stop, columns.start : columns.stop].sum()


def test_progress_reaches_its_end_and_sizes_are_checked():
    question = Question(linear_network(), image(12, 12), (6, 6), (0, 1))
    told = []
    occlusion(question, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    with pytest.raises(GeometryError, match="patches of 0"):
        occlusion(question, side=0)


def test_accounts_that_are_the_same_everywhere_do_not_correlate():
    question = Question(linear_network(), image(12, 12), (6, 6), (0, 1))
    assert np.isnan(occlusion(question).agreement(np.zeros((12, 12), np.float32)))
