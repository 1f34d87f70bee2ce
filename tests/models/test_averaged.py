"""Several networks, and mirror images, as one network: held to the definition."""

import numpy as np
import pytest
import torch

from fullyconv.errors import ConfigError
from fullyconv.models import FLIPS, Averaged, Normalization, UNet, assemble, load, model_files, save
from fullyconv.models.averaged import AveragedArchitecture


def network(seed, **options):
    torch.manual_seed(seed)
    model = UNet(
        options.pop("classes", 3),
        options.pop("channels", 3),
        widths=options.pop("widths", (4, 6)),
        normalization=options.pop("normalization", Normalization((10.0 * seed,), (1.0 + seed,))),
        **options,
    )
    with torch.no_grad():
        model.head.weight.normal_()
    return model.eval()


def by_definition(models, images, flips):
    """The mean of the probabilities, one network and one mirror image at a time, in NumPy."""
    every = []
    for model in models:
        for axes in FLIPS[flips]:
            seen = torch.from_numpy(np.ascontiguousarray(np.flip(images.numpy(), axes)))
            with torch.no_grad():
                every.append(np.flip(model(seen).softmax(1).numpy(), axes))
    return np.mean(every, 0)


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("count", [1, 3])
def test_scores_are_those_of_the_mean_probabilities(flips, count):
    members = [network(seed) for seed in range(count)]
    images = torch.rand(2, 3, 21, 34) * 50
    with torch.no_grad():
        scores = Averaged(members, flips).eval()(images)
    assert np.abs(scores.softmax(1).numpy() - by_definition(members, images, flips)).max() < 1e-6


def test_normalised_images_are_scored_as_raw_ones():
    model = Averaged([network(1), network(2)]).eval()
    images = torch.rand(1, 3, 16, 16) * 50
    with torch.no_grad():
        again = model.scores((images - model.mean) / model.std)
        assert (again - model(images)).abs().max() < 1e-4


def test_certain_answers_stay_finite():
    model = network(0)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.0, 1e4, 0.0]))
        assert Averaged([model, model]).eval()(torch.zeros(1, 3, 16, 16)).isfinite().all()


def test_an_average_of_mirror_images_mirrors_with_the_image():
    model = Averaged([network(3)], "both").eval()
    images = torch.rand(1, 3, 24, 18) * 50
    with torch.no_grad():
        for axes in FLIPS["both"]:
            assert (model(images.flip(axes)).flip(axes) - model(images)).abs().max() < 1e-4


def test_unpadded_members_of_other_depth_need_a_size_that_fits_all():
    deep, shallow = (network(0, widths=widths, padding="valid") for widths in ((4, 4, 4), (4, 4)))
    with pytest.raises(ConfigError, match="margin"):
        Averaged([deep, shallow])
    model = Averaged([deep, deep], "both")
    assert model.margin == deep.margin
    assert model.valid_input_size((50, 61)) == deep.valid_input_size((50, 61))
    assert model.stride == deep.stride


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"classes": ("sky", "sea", "sand")}, "classes"),
        ({"channels": 1, "normalization": Normalization()}, "channels"),
        ({"normalization": Normalization(dtype="uint16")}, "pixel type"),
    ],
)
def test_networks_that_do_not_go_together_are_refused(other, what):
    with pytest.raises(ConfigError, match=rf"first has {what} .* number 2"):
        Averaged([network(0), network(1, **other)])


def test_no_networks_and_no_such_flips_are_refused():
    with pytest.raises(ConfigError, match="no networks"):
        Averaged([])
    with pytest.raises(ConfigError, match="none, horizontal, both"):
        Averaged([network(0)], "diagonal")


def test_it_is_put_together_and_never_saved(tmp_path):
    model = Averaged([network(0)], "both")
    assert isinstance(model.architecture, AveragedArchitecture)
    assert model.mirrored == (True, True)
    assert model.straight.mirrored == (False, False)
    with pytest.raises(ConfigError, match="save the network itself"):
        save(model, tmp_path / "averaged.safetensors")
    assert not list(tmp_path.iterdir())


# --- files --------------------------------------------------------------------------------------------


def test_a_folder_of_folds_stands_for_its_networks_in_order(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / f"fold-{number}").mkdir()
        save(network(number), tmp_path / f"fold-{number}" / "model.safetensors")
    files = model_files(tmp_path)
    assert [file.parent.name for file in files] == ["fold-1", "fold-2", "fold-10"]
    model = assemble(tmp_path)
    assert len(model.networks) == 3
    images = torch.rand(1, 3, 16, 16) * 50
    with torch.no_grad():
        expected = Averaged([load(file) for file in files]).eval()(images)
        assert torch.equal(model.eval()(images), expected)
        assert torch.equal(assemble([*files]).eval()(images), expected)


def test_one_network_without_flips_is_itself(tmp_path):
    model = network(0)
    assert assemble(model) is model
    assert assemble([model]) is model
    save(model, tmp_path / "m.safetensors")
    assert isinstance(assemble(tmp_path / "m.safetensors"), UNet)
    assert isinstance(assemble(tmp_path / "m.safetensors", "both"), Averaged)


def test_a_folder_without_folds_is_refused_with_the_file_meant(tmp_path):
    with pytest.raises(ConfigError, match="without folds"):
        model_files(tmp_path)
    save(network(0), tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"name the file: .*model\.safetensors"):
        model_files(tmp_path)
