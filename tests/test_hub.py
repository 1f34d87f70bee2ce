"""Models go to a hub and come back; the hub is a server of the test's own."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fullyconv import hub
from fullyconv.errors import ConfigError, InputError, MachineError, ModelFileError
from fullyconv.hub import from_pretrained, model_card, push_to_hub, save_pretrained
from fullyconv.labels import ClassTable
from fullyconv.models import Normalization, Provenance, SegmentationModel, UNet

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_stand_in"


class StandIn(BaseHTTPRequestHandler):
    """What of a hub's interface uploading two files and downloading one takes."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    asked: ClassVar[list[str]] = []

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}"

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(f"POST {self.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            name = json.loads(body)["name"]
            organization = json.loads(body).get("organization")
            name = f"{organization}/{name}" if organization else name
            self.repositories.setdefault(name, {})
            self.answer(200, {"url": f"{self.address}/{name}", "name": name, "id": name})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif "/commit/" in self.path:
            repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    file = entry["value"]
                    self.repositories[repository][file["path"]] = base64.b64decode(file["content"])
            self.answer(
                200, {"commitUrl": f"{self.address}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
            )
        else:
            self.answer(404, {"error": self.path})

    def do_HEAD(self) -> None:
        self.do_GET(with_body=False)

    def do_GET(self, with_body: bool = True) -> None:
        self.asked.append(f"{self.command} {self.path}")
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        if repository not in self.repositories:
            known = repository.removeprefix("api/models/").partition("/revision")[0]
            if known in self.repositories:
                self.answer(200, {"id": known, "sha": COMMIT, "siblings": []}, with_body=with_body)
            else:
                missing = {"X-Error-Code": "RepoNotFound"}
                self.answer(404, {"error": "not found"}, missing, with_body=with_body)
            return
        file = self.repositories[repository].get(rest.partition("/")[2])
        if file is None:
            self.answer(404, {}, {"X-Error-Code": "EntryNotFound"}, with_body=with_body)
            return
        etag = f'"{hashlib.sha1(file).hexdigest()}"'
        self.answer(200, file, {"ETag": etag, "X-Repo-Commit": COMMIT}, with_body=with_body)

    def answer(
        self, status: int, content: object, headers: dict[str, str] | None = None, with_body: bool = True
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    StandIn.repositories.clear()
    StandIn.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def network() -> SegmentationModel:
    torch.manual_seed(0)
    table = ClassTable(("background", "cell | <b>*"), ((0, 0, 0), (255, 128, 0)))
    model = UNet(table, 2, widths=(4, 6), normalization=Normalization((100.0, 9.5), (50.0, 3.0), "uint16"))
    model.provenance = Provenance((96, 128), {"mean_iu": 0.8125}, "abc", 7, 1200)
    return model.eval()


def assert_equal(again: SegmentationModel, model: SegmentationModel) -> None:
    assert type(again) is type(model)
    assert (again.classes, again.provenance) == (model.classes, model.provenance)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_folder_holds_the_model_and_a_card(tmp_path: Path) -> None:
    model = network()
    folder = save_pretrained(model, tmp_path / "a" / "b", license="apache-2.0")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.safetensors"]
    assert_equal(from_pretrained(folder), model)
    with pytest.raises(InputError, match="already exists"):
        save_pretrained(model, folder)
    save_pretrained(model, folder, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        save_pretrained(model, tmp_path / "file")


def test_the_card_says_what_the_file_says_and_nothing_runs_in_it() -> None:
    from huggingface_hub import ModelCard

    text = model_card(network(), license="cc-by-4.0")
    card = ModelCard(text)
    assert card.data.to_dict() == {
        "library_name": "fullyconv",
        "pipeline_tag": "image-segmentation",
        "license": "cc-by-4.0",
        "tags": ["semantic-segmentation", "fully-convolutional-network", "unet"],
    }
    for said in (
        "2 channel(s) of uint16",
        "mean 100, 9.5, std 50, 3",
        r"| 1 | cell \| \<b\>\* | #ff8000 |",
        "| mean iu | 0.8125 |",
        "| steps | 1200 |",
        "96×128 pixels",
    ):
        assert said in text, said
    assert "license" not in model_card(network())
    untrained = network()
    untrained.provenance = Provenance()
    assert "Scores" not in model_card(untrained)


def test_what_is_pushed_comes_back(endpoint: str) -> None:
    model = network()
    address = push_to_hub(model, "me/cells", token=TOKEN, endpoint=endpoint)
    assert address.endswith(COMMIT)
    files = StandIn.repositories["me/cells"]
    assert {"README.md", "model.safetensors"} <= files.keys()
    assert files["README.md"].decode() == model_card(model)
    assert_equal(from_pretrained("me/cells", endpoint=endpoint), model)
    asked = len(StandIn.asked)
    assert_equal(from_pretrained("me/cells", endpoint=endpoint, offline=True), model)
    assert len(StandIn.asked) == asked


def test_a_damaged_file_of_a_hub_is_refused(endpoint: str) -> None:
    StandIn.repositories["me/cells"] = {"model.safetensors": b"\x80\x04 a pickle"}
    with pytest.raises(ModelFileError):
        from_pretrained("me/cells", endpoint=endpoint)


def test_what_a_hub_has_not_is_said(endpoint: str) -> None:
    StandIn.repositories["me/other"] = {}
    with pytest.raises(InputError, match="no repository or revision me/nothing"):
        from_pretrained("me/nothing", endpoint=endpoint)
    with pytest.raises(InputError, match=r"me/other has no file model\.safetensors"):
        from_pretrained("me/other", endpoint=endpoint)
    with pytest.raises(ConfigError, match="neither a folder nor"):
        from_pretrained("not a name at all", endpoint=endpoint)
    with pytest.raises(InputError, match=r"the hub refuses.*hf auth login"):
        push_to_hub(network(), "me/cells", token="wrong", endpoint=endpoint)
    assert "me/cells" not in StandIn.repositories


def test_without_a_connection_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    nowhere = "http://127.0.0.1:9"
    with pytest.raises(MachineError, match=r"not on this machine.*copy the repository's files"):
        from_pretrained("me/cells", endpoint=nowhere, offline=True)
    with pytest.raises(MachineError, match=r"not on this machine|cannot be reached"):
        from_pretrained("me/cells", endpoint=nowhere)
    with pytest.raises(MachineError, match="cannot be reached"):
        push_to_hub(network(), "me/cells", token=TOKEN, endpoint=nowhere)
    assert hub.MODEL_FILE == "model.safetensors"
