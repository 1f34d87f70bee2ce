"""Stages of an FCN and levels of features: they add up to the network, and change what they should."""

import numpy as np
import pytest
import torch
from torch import nn

import fullyconv as fc
from fullyconv.explanation import feature_levels, score_stages
from fullyconv.explanation.levels import two_patterns, without_skip
from fullyconv.explanation.subject import see


def scored(network):
    """Give a network's head weights that decide something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.normal_(0, 0.2)
    return network.eval()


@pytest.fixture(scope="module")
def fcn():
    torch.manual_seed(0)
    return scored(fc.FCN("squeezenet1_1", 3, stride=4))


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return scored(fc.UNet(3, widths=(4, 8, 12)))


def image(height=45, width=70):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255


def test_the_last_stage_is_the_network(fcn):
    pixels = image()
    found = score_stages(fcn, pixels)
    assert [stage.stride for stage in found] == [16, 8, 4]
    with torch.no_grad():
        torch.testing.assert_close(found[-1].scores, fcn(pixels), rtol=0, atol=0)


def test_the_first_stage_is_the_network_without_skips(fcn):
    """Upsampling starts bilinear, fixed in the coarser network: the same layer gives the same scores."""
    pixels = image()
    coarsest, finest = (fc.FCN(fcn.backbone, 3, stride=stride).eval() for stride in (16, 4))
    for network in (coarsest, finest):
        network.head.score["16"].load_state_dict(fcn.head.score["16"].state_dict())
    finest.head.score["4"].load_state_dict(fcn.head.score["4"].state_dict())
    with torch.no_grad():
        expected = coarsest(pixels)
        assert (finest(pixels) - expected).abs().max() > 1
    torch.testing.assert_close(score_stages(finest, pixels)[0].scores, expected, rtol=1e-4, atol=1e-4)


def test_what_a_skip_adds_is_linear_in_its_scores(fcn):
    """Doubling the weights of one score layer doubles what its stage adds."""
    pixels = image()
    before = score_stages(fcn, pixels)
    added = before[1].scores - before[0].scores
    layer = fcn.head.score["8"]
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.mul_(2)
    after = score_stages(fcn, pixels)
    with torch.no_grad():
        layer.weight.div_(2)
        layer.bias.div_(2)
    torch.testing.assert_close(after[1].scores - after[0].scores, 2 * added, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(after[0].scores, before[0].scores)


def test_silencing_leaves_no_trace(fcn):
    pixels = image()
    with torch.no_grad():
        before = fcn(pixels)
        score_stages(fcn, pixels)
        torch.testing.assert_close(fcn(pixels), before, rtol=0, atol=0)


def test_levels_of_an_fcn_are_its_backbone_s_maps(fcn):
    pixels = image(64, 96)
    levels = feature_levels(fcn, pixels)
    assert [level.stride for level in levels] == list(fcn.backbone.strides)
    assert {level.path for level in levels} == {"down"}
    for level in levels:
        assert level.features.shape[1] >= 64 // level.stride


def test_levels_of_a_unet_go_down_and_up_again(unet):
    levels = feature_levels(unet, image(33, 50))
    assert [(level.stride, level.path) for level in levels] == [
        (1, "down"),
        (2, "down"),
        (4, "down"),
        (2, "up"),
        (1, "up"),
    ]
    assert [level.features.shape[0] for level in levels] == [4, 8, 12, 8, 4]
    with torch.no_grad():
        torch.testing.assert_close(unet.head(levels[-1].features[None]), unet(image(33, 50)))


def test_a_skip_without_place_is_its_mean(unet):
    """On an image of one colour away from its border every skip is flat already, so nothing changes there."""
    pixels = np.full((80, 90, 3), 77, np.uint8)
    subject = see(unet, pixels, (40, 45))
    changed = (without_skip(subject, unet, 0) - subject.scores)[0, :, 40, 45]
    assert float(changed.abs().max()) < 0.05 * float(subject.scores.abs().max())
    noisy = see(unet, np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8), (40, 45))
    assert float((without_skip(noisy, unet, 0) - noisy.scores).abs().max()) > 0.01
    with torch.no_grad():
        torch.testing.assert_close(unet(noisy.image), noisy.scores)


def test_two_patterns_show_what_differs_most():
    """Of features made of a strong and a weak pattern, the first is the light and the second the colour."""
    rows, columns = torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 15)
    strong, weak = torch.meshgrid(rows, columns, indexing="ij")
    mixing = torch.linalg.qr(torch.randn(7, 2, generator=torch.Generator().manual_seed(3))).Q
    features = torch.einsum("ck,khw->chw", mixing, torch.stack((5 * strong, weak)))
    pixels, share = two_patterns(features)
    light = pixels.mean(axis=2)
    color = pixels[..., 0].astype(float) - pixels[..., 2]
    assert abs(np.corrcoef(light.ravel(), strong.ravel())[0, 1]) > 0.99
    assert abs(np.corrcoef(color.ravel(), weak.ravel())[0, 1]) > 0.99
    assert share == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("features", [torch.zeros(5, 3, 4), torch.ones(1, 1, 1), torch.randn(1, 6, 5)])
def test_two_patterns_take_any_features(features):
    pixels, share = two_patterns(features)
    assert pixels.shape == (*features.shape[1:], 3)
    assert pixels.dtype == np.uint8
    assert 0 <= share <= 1 + 1e-9


def test_two_patterns_do_not_depend_on_the_sign_of_an_eigenvector(monkeypatch):
    features = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    before, _ = two_patterns(features)
    eigh = np.linalg.eigh

    def turned(matrix):
        values, vectors = eigh(matrix)
        return values, -vectors

    monkeypatch.setattr(np.linalg, "eigh", turned)
    np.testing.assert_array_equal(two_patterns(features)[0], before)


def test_a_network_of_one_s_own_has_stages_too():
    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(4, 6, 2, stride=2)

        def forward(self, images):
            fine = self.fine(images).relu()
            return [fine, self.coarse(fine)]

    network = scored(fc.FCN(Trunk(), 2, stride=2))
    assert [stage.stride for stage in score_stages(network, image(9, 11))] == [4, 2]
