"""A small network with scores that vary."""

import pytest
import torch

from fullyconv.models import Normalization, UNet, save


@pytest.fixture(scope="session")
def small_unet():
    torch.manual_seed(0)
    model = UNet(("sky", "sea", "sand"), widths=(4, 6), normalization=Normalization((100.0,), (50.0,))).eval()
    with torch.no_grad():
        model.head.weight.normal_()  # spread the scores, so that labels vary
    return model


@pytest.fixture(scope="session")
def small_unet_file(small_unet, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(small_unet, path)
    return path
