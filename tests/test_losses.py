"""Laws that hold for every loss of the table, then each against a definition by loops or another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import f1_score, jaccard_score
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from fullyconv.errors import ConfigError, DataError, GeometryError
from fullyconv.losses import (
    CLASS_WEIGHTS,
    LOSSES,
    CrossEntropy,
    Dice,
    Focal,
    Jaccard,
    LovaszSoftmax,
    Tversky,
    border_weights,
    inverse_frequency_weights,
    median_frequency_weights,
    parse_loss,
    signed_distances,
)

EVERY = sorted(LOSSES)
REGIONS = ["dice", "jaccard", "lovasz_softmax", "tversky"]
IGNORE = 255


def draw(seed=0, count=2, classes=3, height=6, width=7, ignored=0.2):
    """Random scores, labels of which a share is ignored, and weights."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, classes, height, width, generator=generator) * 2
    labels = torch.randint(0, classes, (count, height, width), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = IGNORE
    weights = torch.rand(labels.shape, generator=generator) * 3
    return scores, labels, weights


def gradient(loss, scores, labels, weights=None):
    scores = scores.clone().requires_grad_()
    loss(scores, labels, weights).backward()
    return scores.grad


shapes = {
    "seed": st.integers(0, 10**6),
    "count": st.integers(1, 3),
    "classes": st.integers(2, 5),
    "height": st.integers(1, 8),
    "width": st.integers(1, 8),
    "ignored": st.sampled_from([0.0, 0.3, 1.0]),
}


# Laws of all


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("weighted", [False, True])
@settings(max_examples=15, deadline=None)
@given(**shapes)
def test_a_finite_scalar_with_a_finite_gradient(name, weighted, **shape):
    scores, labels, weights = draw(**shape)
    loss = LOSSES[name]()
    value = loss(scores, labels, weights if weighted else None)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert gradient(loss, scores, labels, weights if weighted else None).isfinite().all()


@pytest.mark.parametrize("options", [{}, {"class_weights": (1, 2, 3)}])
@pytest.mark.parametrize("name", [*EVERY, "hardest", "smoothed"])
def test_zero_with_zero_gradient_where_no_pixel_counts(name, options):
    special = {"hardest": {"hardest": 0.5}, "smoothed": {"label_smoothing": 0.1}}
    loss = (
        CrossEntropy(**special[name], **options)
        if name in special
        else LOSSES[name](ignore_index=IGNORE, **options)
    )
    scores, labels, weights = draw()
    for labels_, weights_ in [
        (torch.full_like(labels, IGNORE), None),
        (torch.full_like(labels, IGNORE), weights),
        (labels, torch.zeros_like(weights)),
    ]:
        assert loss(scores, labels_, weights_) == 0
        assert torch.equal(gradient(loss, scores, labels_, weights_), torch.zeros_like(scores))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("ignore_index", [255, 65535, -1])
def test_ignored_pixels_do_not_matter(name, ignore_index):
    scores, labels, weights = draw()
    ignored = labels == IGNORE
    labels[ignored] = ignore_index
    loss = LOSSES[name](ignore_index=ignore_index)
    other = torch.where(ignored[:, None], 100 * torch.randn_like(scores), scores)
    assert loss(other, labels, weights) == pytest.approx(loss(scores, labels, weights).item(), rel=1e-5)
    slopes = gradient(loss, scores, labels, weights).movedim(1, -1)
    assert (slopes[ignored] == 0).all()
    assert slopes[~ignored].abs().sum() > 0


@pytest.mark.parametrize("name", EVERY)
def test_weight_zero_is_ignored_and_weight_one_is_no_weight(name):
    scores, labels, _ = draw()
    loss = LOSSES[name]()
    shown = torch.where(labels == IGNORE, 1, labels)
    masked = loss(scores, shown, (labels != IGNORE).float())
    assert masked == pytest.approx(loss(scores, labels).item(), rel=1e-5)
    assert loss(scores, labels, torch.ones(labels.shape)) == loss(scores, labels)


@pytest.mark.parametrize("name", EVERY)
def test_weight_two_counts_twice(name):
    scores, labels, weights = draw(count=2)
    twice = weights * torch.tensor([2.0, 1.0])[:, None, None]
    expected = LOSSES[name]()(scores[[0, 0, 1]], labels[[0, 0, 1]], weights[[0, 0, 1]])
    assert LOSSES[name]()(scores, labels, twice) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_class_weights_are_weights_of_the_pixels_of_a_class(name):
    scores, labels, weights = draw()
    table = torch.tensor([0.5, 2.0, 3.0])
    expected = LOSSES[name]()(scores, labels, weights * table[labels.where(labels != IGNORE, 0)])
    for given_as in (table, table.tolist(), table.double().numpy()):
        loss = LOSSES[name](class_weights=given_as)
        assert loss(scores, labels, weights) == pytest.approx(expected.item(), rel=1e-6)
        assert not loss.state_dict()


# Fixed seeds, since the Lovász extension has kinks, across which no difference measures a slope.
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_is_the_slope(name, seed):
    scores, labels, weights = draw(seed, height=3, width=3)
    loss = LOSSES[name]()
    # Along the gradient itself the slope is largest and rounding smallest.
    direction = gradient(loss, scores, labels, weights)
    step = 1e-2 * direction / direction.norm()
    measured = (loss(scores + step, labels, weights) - loss(scores - step, labels, weights)) / 2e-2
    assert measured == pytest.approx(direction.norm().item(), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_following_the_gradient_finds_the_labels(name):
    scores, labels, _ = draw(height=4, width=4)
    scores = (0.1 * scores).requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        LOSSES[name]()(scores, labels).backward()
        optimizer.step()
    right = (scores.argmax(dim=1) == labels)[labels != IGNORE].float().mean()
    # Along a boundary the distance is zero inside, and the boundary loss alone leaves those pixels free.
    assert right > (0.8 if name == "boundary" else 0.99)


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_and_autocast_compute_in_float32(name):
    scores, labels, weights = draw(height=40, width=40)
    half = scores.bfloat16()
    loss = LOSSES[name](class_weights=(1, 2, 3))
    expected = loss(half.float(), labels, weights)
    assert torch.equal(loss(half, labels, weights), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(half, labels, weights), expected)
    assert gradient(loss, half, labels, weights).dtype == torch.bfloat16


@pytest.mark.parametrize("name", EVERY)
def test_huge_scores_stay_finite(name):
    scores, labels, weights = draw()
    for factor in (1e3, 1e30):
        assert LOSSES[name]()(scores * factor, labels, weights).isfinite()
        assert gradient(LOSSES[name](), scores * factor, labels, weights).isfinite().all()


@pytest.mark.parametrize("name", EVERY)
def test_channels_last_gives_the_same(name):
    scores, labels, weights = draw()
    other = scores.contiguous(memory_format=torch.channels_last)
    value = LOSSES[name]()(other, labels, weights)
    assert value == pytest.approx(LOSSES[name]()(scores, labels, weights).item(), rel=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_refuses_what_does_not_fit(name):
    scores, labels, weights = draw()
    loss = LOSSES[name]()
    with pytest.raises(GeometryError, match="crop the labels"):
        loss(scores[..., 1:], labels)
    with pytest.raises(GeometryError, match="N×H×W"):
        loss(scores, labels, weights[:1])
    with pytest.raises(GeometryError):
        loss(scores[0], labels[0])
    with pytest.raises(DataError, match="from 0 to 3"):
        loss(scores, torch.where(labels == 2, 3, labels))
    with pytest.raises(DataError, match="from -1 to"):
        loss(scores, torch.where(labels == 2, -1, labels))
    with pytest.raises(ConfigError, match="2 class weights for 3"):
        LOSSES[name](class_weights=(1, 2))(scores, labels)
    for wrong in [(1, -1, 1), (1, math.nan, 1), [[1, 1, 1]]]:
        with pytest.raises(ConfigError, match="class weights"):
            LOSSES[name](class_weights=wrong)


# Definitions, by loops over pixels in float64


def pixel_loss(function):
    def oracle(probabilities, labels, mass):
        total = sum(
            mass[place] * function(probabilities[place[0], :, place[1], place[2]], labels[place])
            for place in np.ndindex(mass.shape)
        )
        return total / mass.sum()

    return oracle


def region_loss(function):
    """``function`` of the probability of the class, where it is, and the weights: each a list of pixels."""

    def oracle(probabilities, labels, mass):
        pixels = [place for place in np.ndindex(mass.shape) if mass[place] > 0]
        weights = np.array([mass[place] for place in pixels])
        losses = []
        for index in range(probabilities.shape[1]):
            truth = np.array([labels[place] == index for place in pixels])
            given = np.array([probabilities[place[0], index, place[1], place[2]] for place in pixels])
            if truth.any():
                losses.append(function(given, truth, weights))
        return np.mean(losses)

    return oracle


def tversky(alpha, beta):
    def loss(given, truth, weights):
        hit = sum(w * p for p, t, w in zip(given, truth, weights, strict=True) if t)
        false = sum(w * p for p, t, w in zip(given, truth, weights, strict=True) if not t)
        missed = sum(w * (1 - p) for p, t, w in zip(given, truth, weights, strict=True) if t)
        return 1 - hit / (hit + alpha * false + beta * missed)

    return region_loss(loss)


def lovasz(given, truth, weights):
    """The Lovász extension by its definition: the Jaccard loss of growing sets of wrong pixels."""

    def jaccard_loss(wrong):
        union = truth | wrong
        return weights[wrong].sum() / weights[union].sum()

    errors = np.abs(truth - given)
    order = np.argsort(-errors, kind="stable")
    total, before = 0.0, 0.0
    for count in range(1, len(order) + 1):
        wrong = np.zeros(len(order), bool)
        wrong[order[:count]] = True
        after = jaccard_loss(wrong)
        total += errors[order[count - 1]] * (after - before)
        before = after
    return total


def boundary(probabilities, labels, mass):
    field = np.stack(
        [signed_distances_by_loops(np.where(m > 0, y, -1), 3) for y, m in zip(labels, mass, strict=True)]
    )
    return ((probabilities * field).mean(axis=1) * mass).sum() / mass.sum()


def signed_distances_by_loops(labels, classes):
    result = np.zeros((classes, *labels.shape))
    for index in range(classes):
        inside, outside = np.argwhere(labels == index), np.argwhere(labels != index)
        if len(inside) and len(outside):
            for place in np.ndindex(labels.shape):
                if labels[place] == index:
                    result[(index, *place)] = 1 - np.sqrt(((outside - place) ** 2).sum(axis=1)).min()
                else:
                    result[(index, *place)] = np.sqrt(((inside - place) ** 2).sum(axis=1)).min()
    return result


ORACLES = {
    "cross_entropy": pixel_loss(lambda p, y: -math.log(p[y])),
    "focal": pixel_loss(lambda p, y: -((1 - p[y]) ** 2) * math.log(p[y])),
    "dice": tversky(0.5, 0.5),
    "tversky": tversky(0.3, 0.7),
    "jaccard": tversky(1, 1),
    "lovasz_softmax": region_loss(lovasz),
    "boundary": boundary,
}


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 6), width=st.integers(2, 6))
def test_equals_its_definition(name, seed, height, width):
    scores, labels, weights = draw(seed, height=height, width=width)
    labels[0, 0, 0] = 0
    mass = (weights * (labels != IGNORE)).double().numpy()
    probabilities = scores.double().softmax(dim=1).numpy()
    expected = ORACLES[name](probabilities, np.where(labels == IGNORE, 0, labels), mass)
    assert LOSSES[name]()(scores, labels, weights).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


# Other libraries


def test_cross_entropy_equals_torch():
    scores, labels, _ = draw()
    table = torch.tensor([0.5, 2.0, 3.0])
    expected = F.cross_entropy(scores, labels, weight=table, ignore_index=IGNORE)
    torch.testing.assert_close(CrossEntropy(class_weights=table)(scores, labels), expected)
    expected = F.cross_entropy(scores, labels, ignore_index=IGNORE, label_smoothing=0.2)
    torch.testing.assert_close(CrossEntropy(label_smoothing=0.2)(scores, labels), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_equals_torchvision_for_two_classes(gamma):
    scores, labels, _ = draw(classes=2, ignored=0)
    margin = scores[:, 1] - scores[:, 0]
    expected = sigmoid_focal_loss(margin, labels.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(Focal(gamma=gamma)(scores, labels), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_a_slope_where_it_is_certain(gamma):
    scores = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1)
    assert gradient(Focal(gamma=gamma), scores, torch.zeros(1, 1, 1, dtype=torch.int64)).isfinite().all()


def hard(labels, classes):
    """Scores whose softmax is the labels."""
    return 1e4 * F.one_hot(labels, classes).movedim(-1, 1).float()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_overlaps_of_certain_scores_are_those_of_scikit_learn(seed):
    scores, labels, _ = draw(seed, classes=4, ignored=0)
    certain = hard(scores.argmax(dim=1), 4)
    flat, given_ = labels.flatten().numpy(), scores.argmax(dim=1).flatten().numpy()
    shown = np.unique(flat)
    dice = f1_score(flat, given_, labels=shown, average="macro")
    jaccard = jaccard_score(flat, given_, labels=shown, average="macro")
    assert Dice()(certain, labels).item() == pytest.approx(1 - dice, abs=1e-5)
    assert Jaccard()(certain, labels).item() == pytest.approx(1 - jaccard, abs=1e-5)
    assert LovaszSoftmax()(certain, labels).item() == pytest.approx(1 - jaccard, abs=1e-5)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"boundary"}))
def test_certain_and_right_is_zero(name):
    _, labels, _ = draw(ignored=0)
    assert LOSSES[name]()(hard(labels, 3), labels).item() == pytest.approx(0, abs=1e-6)


def test_boundary_loss_is_least_for_the_labels_themselves():
    _, labels, _ = draw(ignored=0, height=20, width=20)
    labels[:, 5:15, 5:15] = 1
    least = LOSSES["boundary"]()(hard(labels, 3), labels)
    assert least < 0
    for seed in range(5):
        assert least <= LOSSES["boundary"]()(hard(draw(seed, ignored=0, height=20, width=20)[1], 3), labels)


# Options


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.01, 0.25, 0.5, 1.0]))
def test_hardest_takes_the_largest_terms(seed, share):
    scores, labels, weights = draw(seed)
    losses = F.cross_entropy(scores, labels, ignore_index=IGNORE, reduction="none").flatten()
    mass = (weights * (labels != IGNORE)).flatten()
    pixels = sorted(range(len(mass)), key=lambda i: -float(losses[i] * mass[i]))
    taken = pixels[: math.ceil(share * int((mass > 0).sum()))]
    expected = (losses[taken] * mass[taken]).sum() / mass[taken].sum()
    loss = CrossEntropy(hardest=share)
    assert loss(scores, labels, weights) == pytest.approx(expected.item(), rel=1e-5)
    moved = gradient(loss, scores, labels, weights).abs().sum(dim=1).flatten() > 0
    assert set(moved.nonzero().flatten().tolist()) <= set(taken)


def test_tversky_favours_recall_by_beta():
    labels = torch.tensor([[[0, 0, 1, 1]]])
    missed, false = hard(torch.tensor([[[0, 0, 0, 1]]]), 2), hard(torch.tensor([[[0, 1, 1, 1]]]), 2)
    loss = Tversky(alpha=0.1, beta=0.9, background=False)
    assert loss(missed, labels).item() == pytest.approx(1 - 1 / 1.9, abs=1e-5)
    assert loss(false, labels).item() == pytest.approx(1 - 2 / 2.1, abs=1e-5)
    # The background sees the two mistakes the other way round.
    both = Tversky(alpha=0.1, beta=0.9)
    assert both(missed, labels).item() == pytest.approx(both(false, labels).item(), abs=1e-5)


@pytest.mark.parametrize("name", REGIONS)
def test_background_may_be_left_out_of_the_mean(name):
    scores, labels, _ = draw(ignored=0)
    loss = LOSSES[name](background=False)
    # The mean of all classes is the mean of class 0 and of the others, each at its share.
    background = 3 * LOSSES[name]()(scores, labels) - 2 * loss(scores, labels)
    # Class 0 alone: the loss without background where 0 and 1 have changed places and 2 has no pixels.
    swapped, others = scores[:, [1, 0, 2]], torch.where(labels == 0, 1, 0)
    assert background.item() == pytest.approx(loss(swapped, others).item(), rel=1e-4)
    empty = torch.zeros_like(labels)
    assert loss(scores, empty) == 0
    assert not gradient(loss, scores, empty).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossEntropy(label_smoothing=1.5),
        lambda: CrossEntropy(hardest=0),
        lambda: CrossEntropy(hardest=math.nan),
        lambda: Focal(gamma=-1),
        lambda: Tversky(alpha=-0.1),
        lambda: Tversky(beta=0),
    ],
)
def test_refuses_options_out_of_range(make):
    with pytest.raises(ConfigError):
        make()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 8), width=st.integers(1, 8))
def test_signed_distances_by_loops(seed, height, width):
    labels = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width), p=[0.6, 0.2, 0.1, 0.1])
    np.testing.assert_allclose(
        signed_distances(labels.astype(np.uint8), 4), signed_distances_by_loops(labels, 4), rtol=1e-6
    )


# Sums


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("dice", [(1, Dice())]),
        ("cross_entropy + 0.5*dice", [(1, CrossEntropy()), (0.5, Dice())]),
        (" 2 * focal(gamma=1)+dice*3 + jaccard", [(2, Focal(gamma=1)), (3, Dice()), (1, Jaccard())]),
        (
            "cross_entropy(label_smoothing=0.1, hardest=0.5) + 1e-2*lovasz_softmax()",
            [(1, CrossEntropy(label_smoothing=0.1, hardest=0.5)), (0.01, LovaszSoftmax())],
        ),
        ("tversky(beta=1, background=False)", [(1, Tversky(beta=1, background=False))]),
    ],
)
def test_text_becomes_the_sum_it_says(text, terms):
    scores, labels, weights = draw()
    expected = sum(factor * loss(scores, labels, weights) for factor, loss in terms)
    torch.testing.assert_close(parse_loss(text)(scores, labels, weights), expected)


def test_a_sum_hands_on_ignore_index_and_class_weights():
    total = parse_loss("cross_entropy + dice", ignore_index=7, class_weights=(1, 2))
    assert all(loss.ignore_index == 7 and loss.class_weights.tolist() == [1, 2] for loss in total.losses)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cross_entropy"),
        ("dise", "one of cross_entropy"),
        ("dice +", "joined by"),
        ("dice - focal", "joined by"),
        ("-1*dice", "joined by"),
        ("0*dice", "above 0"),
        ("1e999*dice", "above 0"),
        ("dice(smooth=1)", "default: background=True"),
        ("boundary(smooth=1)", "default: none"),
        ("focal(2)", "joined by"),
        ("focal(gamma='2')", "default: gamma=2.0"),
        ("focal(gamma=True)", "default: gamma=2.0"),
        ("dice(background=1)", "default: background=True"),
        ("dice(ignore_index=3)", "default: background=True"),
        ("cross_entropy(hardest=2)", "up to 1"),
        ("__import__('os').system('true')", "joined by"),
        ("dice\0", "joined by"),
    ],
)
def test_refuses_text_that_names_no_sum(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_loss(text)


# Weights from the data


def test_median_frequency_by_the_definition():
    counts = np.array([[50, 50, 0, 0], [90, 0, 10, 0], [100, 0, 0, 0]])
    frequency = {0: 240 / 300, 1: 50 / 100, 2: 10 / 100}
    weights = median_frequency_weights(counts)
    assert weights.tolist() == pytest.approx([0.5 / frequency[0], 1.0, 0.5 / frequency[2], 1.0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 6))
def test_inverse_frequency_equals_scikit_learn(seed, classes):
    labels = np.random.default_rng(seed).integers(0, classes, 50)
    counts = np.bincount(labels, minlength=classes + 1)
    weights = inverse_frequency_weights(counts)
    shown = np.unique(labels)
    np.testing.assert_allclose(weights[shown], compute_class_weight("balanced", classes=shown, y=labels))
    assert weights[-1] == 1
    assert (weights * counts).sum() == pytest.approx(50)


@pytest.mark.parametrize("name", sorted(CLASS_WEIGHTS))
def test_class_weights_from_counts(name):
    weights = CLASS_WEIGHTS[name]([[10, 20, 70], [30, 0, 70]])
    assert weights.argsort().tolist() == [2, 0, 1] if name == "median" else [2, 0, 1]
    np.testing.assert_allclose(CLASS_WEIGHTS[name]([5, 5]), [1, 1])
    for wrong in ([0, 0], [-1, 2], np.ones((2, 2, 2)), [math.nan, 1]):
        with pytest.raises(ConfigError, match="pixel counts"):
            CLASS_WEIGHTS[name](wrong)


def border_weights_by_definition(instances, labels, w0, sigma, table):
    weights = np.where(labels == IGNORE, 0, table[np.where(labels == IGNORE, 0, labels)])
    distances = [distance_transform_edt(instances != each) for each in np.unique(instances) if each]
    if len(distances) >= 2:
        nearest, second = np.sort(distances, axis=0)[:2]
        term = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
        weights = weights + np.where((instances == 0) & (labels != IGNORE), term, 0)
    return weights


def draw_instances(seed, height=40, width=50):
    generator = np.random.default_rng(seed)
    instances = np.zeros((height, width), np.int64)
    for number in generator.choice(10**6, generator.integers(0, 7)) + 1:
        row, column = generator.integers(0, height), generator.integers(0, width)
        instances[row : row + generator.integers(1, 12), column : column + generator.integers(1, 12)] = number
    labels = (instances > 0).astype(np.uint8)
    labels[generator.random(labels.shape) < 0.05] = IGNORE
    return instances, labels


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), w0=st.sampled_from([0.0, 10.0]), sigma=st.sampled_from([0.7, 2.0, 5.0]))
def test_border_weights_by_the_definition(seed, w0, sigma):
    instances, labels = draw_instances(seed)
    table = np.array([0.5, 2.0])
    result = border_weights(instances, labels, w0, sigma, class_weights=table)
    assert result.dtype == np.float32
    expected = border_weights_by_definition(instances, labels, w0, sigma, table)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_border_weights_of_a_gap_one_pixel_wide():
    instances = np.zeros((1, 41), np.uint8)
    instances[0, :20], instances[0, 21:] = 1, 2
    labels = (instances > 0).astype(np.uint8)
    weights = border_weights(instances, labels)
    counts = inverse_frequency_weights([1, 40])
    assert weights[0, 20] == pytest.approx(counts[0] + 10 * math.exp(-(2**2) / 50), rel=1e-6)
    np.testing.assert_allclose(np.delete(weights[0], 20), counts[1], rtol=1e-6)


def test_border_weights_without_a_gap():
    full = np.ones((4, 5), np.uint8)
    full[:, 2:] = 9
    np.testing.assert_allclose(border_weights(full, np.ones_like(full)), 1)
    assert not border_weights(full, np.full_like(full, IGNORE)).any()


def test_border_weights_refuse_what_does_not_fit():
    ones = np.ones((4, 5), np.int64)
    with pytest.raises(GeometryError):
        border_weights(ones, ones[1:])
    with pytest.raises(GeometryError):
        border_weights(ones[:0], ones[:0])
    for wrong in [{"sigma": 0}, {"w0": -1}, {"w0": math.nan}, {"class_weights": [1]}]:
        with pytest.raises(ConfigError):
            border_weights(ones, ones, **wrong)
    for instances, labels in [(-ones, ones), (ones, -ones)]:
        with pytest.raises(ConfigError):
            border_weights(instances, labels)


def test_border_weights_serve_a_loss():
    instances, labels = draw_instances(3)
    weights = torch.from_numpy(border_weights(instances, labels))[None]
    scores = torch.randn(1, 2, *labels.shape)
    assert parse_loss("cross_entropy + dice")(
        scores, torch.from_numpy(labels).long()[None], weights
    ).isfinite()
