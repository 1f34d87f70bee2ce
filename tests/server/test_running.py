"""From files to a server and to its end: hostile models stop it before it listens; SIGTERM loses nothing."""

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from clients import Client, disc, encoded, eventually

from fullyconv import cli, commands
from fullyconv.errors import ConfigError, InputError, MachineError, ModelFileError
from fullyconv.progress import Quiet
from fullyconv.server import Server
from fullyconv.server.running import load_models

BEGUN = 6


def test_models_are_called_as_their_files_or_folders(model_file, tmp_path):
    trained = tmp_path / "nuclei" / "model.safetensors"
    trained.parent.mkdir()
    trained.write_bytes(model_file.read_bytes())
    assert list(load_models([model_file, trained])) == ["discs", "nuclei"]


def test_a_folder_of_folds_is_one_model(model_file, tmp_path, png):
    """Its networks are averaged, over mirror images too: of equal ones the mean is what one says."""
    for fold in ("fold-1", "fold-2"):
        (tmp_path / "cells" / fold).mkdir(parents=True)
        (tmp_path / "cells" / fold / "model.safetensors").write_bytes(model_file.read_bytes())
    server = Server([tmp_path / "cells", model_file], port=0, engine="torch", flips="horizontal")
    with server.background() as url:
        client = Client(url)
        assert [model["kind"] for model in client.ask("/v1/models").json["models"]] == ["averaged", "unet"]
        both = [client.predict(png, f"?model={name}&output=labels").body for name in ("cells", "discs")]
    assert both[0] == both[1]


def test_a_system_that_cannot_bound_processes_is_refused(model_file, monkeypatch):
    monkeypatch.setattr("fullyconv.server.running.find_spec", lambda name: None)
    with pytest.raises(MachineError, match="WSL"):
        Server([model_file], port=0)


def test_models_of_one_name_and_none_are_refused(model_file):
    with pytest.raises(ConfigError, match="several models called discs"):
        load_models([model_file, model_file])
    with pytest.raises(ConfigError, match="no model"):
        load_models([])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 1000,
        pickle.dumps({"weights": [1.0]}),
        b"\x80\x02csystem\nexit\n.",
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        b"PK\x03\x04" + bytes(100),
    ],
    ids=range(7),
)
def test_a_hostile_model_is_named_before_anything_listens(content, model_file, tmp_path, monkeypatch, capsys):
    def listen(*arguments, **options):
        raise AssertionError("it listens")

    monkeypatch.setattr(socket, "create_server", listen)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    with pytest.raises(ModelFileError, match=re.escape(str(bad))):
        Server([model_file, bad], port=0, engine="torch")
    with pytest.raises(SystemExit) as caught:
        cli.main(["serve", str(bad), "--port", "0"])
    assert caught.value.code == 2
    assert "bad.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [20, 2000, -1])
def test_a_model_that_is_cut_off_is_named(model_file, tmp_path, cut):
    (tmp_path / "cut.safetensors").write_bytes(model_file.read_bytes()[:cut])
    with pytest.raises(ModelFileError, match="cut"):
        load_models([tmp_path / "cut.safetensors"])


def test_a_model_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="missing"):
        load_models([tmp_path / "missing.safetensors"])


def test_an_address_that_is_taken_is_named(model_file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}"):
            Server([model_file], port=port, engine="torch")


def test_workers_are_one_or_more(model_file):
    with pytest.raises(ConfigError, match="0 workers"):
        Server([model_file], workers=0)


def test_a_server_listens_where_only_this_machine_is(serving):
    with serving() as client:
        assert client.address[0] == "127.0.0.1"
    with pytest.raises(ConnectionError):
        client.ask("/livez")


def test_parts_that_are_missing_are_named(monkeypatch, model_file):
    monkeypatch.setattr(
        "fullyconv.commands._serve.find_spec", lambda name: None if name == "uvicorn" else name
    )
    with pytest.raises(MachineError, match=r"pip install 'fullyconv\[serve\]'"):
        commands.serve(model_file, progress=Quiet())


def test_the_token_comes_from_a_file_or_the_environment(monkeypatch, model_file, tmp_path):
    taken = {}

    def serve(models, **options):
        taken.update(options)

    monkeypatch.setattr("fullyconv.server.serve", serve)
    monkeypatch.setenv("FULLYCONV_TOKEN", "from-the-environment")
    commands.serve(model_file, progress=Quiet())
    assert taken["access"].token == "from-the-environment"
    (tmp_path / "token").write_text("from-a-file-of-mine\n")
    commands.serve(
        model_file, token_file=tmp_path / "token", max_upload=3, max_megapixels=2, progress=Quiet()
    )
    assert taken["access"].token == "from-a-file-of-mine"
    assert (taken["limits"].upload, taken["limits"].pixels) == (3_000_000, 2_000_000)
    with pytest.raises(ConfigError, match="--token-file"):
        commands.serve(model_file, token_file=tmp_path / "none", progress=Quiet())
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigError, match="0 characters"):
        commands.serve(model_file, token_file=tmp_path / "token", progress=Quiet())


@pytest.mark.slow
def test_sigterm_under_load_loses_nothing_that_was_begun(model_file):
    """As a user starts it, and as systemd and Docker end it: all that was begun is answered, then exit 0."""
    command = [sys.executable, "-m", "fullyconv", "serve", str(model_file), "--port", "0", "--json"]
    environment = os.environ | {"FULLYCONV_CACHE": ""}
    with subprocess.Popen(
        [*command, "--engine", "torch", "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as program:  # fmt: skip
        try:
            line = program.stderr.readline()
            client = Client(re.search(r"http://\S+", line)[0])
            assert line.startswith("serving discs at ")
            body = encoded(disc(1000, 1000))
            with ThreadPoolExecutor(BEGUN) as pool:
                asked = [pool.submit(client.predict, body, "?output=json", timeout=120) for _ in range(BEGUN)]
                eventually(
                    lambda: f"fullyconv_places_taken {BEGUN}.0".encode() in client.ask("/metrics").body
                )
                program.send_signal(signal.SIGTERM)
                replies = [each.result() for each in asked]
            said, complaints = program.communicate(timeout=60)
        finally:
            program.kill()
    assert [reply.status for reply in replies] == [200] * BEGUN
    assert all(reply.json["width"] == 1000 for reply in replies)
    assert program.returncode == 0
    assert json.loads(said)["requests"] >= BEGUN
    assert complaints == ""
    with pytest.raises(ConnectionError):
        client.ask("/livez")
