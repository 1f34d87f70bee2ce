"""A server of a small network, on a port of its own."""

from contextlib import contextmanager

import pytest
import torch
from clients import Client, disc, encoded

from fullyconv.models import UNet, save
from fullyconv.server import Server

OPTIONS = {"engine": "torch", "precision": "f32", "threads": 1}  # nothing has to be compiled


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    model = UNet(("background", "disc"), widths=(4, 8)).eval()
    with torch.no_grad():
        model.head.weight.normal_()  # spread the scores, so that labels vary
    return model


@pytest.fixture(scope="session")
def model_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "discs.safetensors"
    save(network, path)
    return path


@pytest.fixture(scope="session")
def serving(model_file):
    """Start a server for a block: ``with serving(limits=...) as client``."""

    @contextmanager
    def start(headers=None, **options):
        server = Server([model_file], port=0, **OPTIONS | options)
        with server.background() as url:
            yield Client(url, headers or {}, server.service)

    return start


@pytest.fixture(scope="module")  # so that it is over before tests of other things begin
def client(serving):
    with serving() as client:
        yield client


@pytest.fixture(scope="session")
def png():
    return encoded(disc())
