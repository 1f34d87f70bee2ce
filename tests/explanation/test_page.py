"""The page of every kind of network: whole, safe, readable by machines and by those who cannot see it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from contextlib import suppress
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import fullyconv as fc
from fullyconv import cli, commands
from fullyconv.classifiers import Classifier
from fullyconv.errors import ConfigError, InputError
from fullyconv.explanation.page import SECTIONS
from fullyconv.images import write_image
from fullyconv.models import Normalization
from fullyconv.progress import Quiet

HOSTILE = ('<script>alert("a")</script>', "b & c", "'><img src=x onerror=alert(1)>", "naïve ☃")
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """What a browser would find: every tag with its attributes, and the text of some."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.texts = [], [], {}
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag):
        return [attributes for found, attributes in self.tags if found == tag]


def scene(height=48, width=64, channels=3):
    rng = np.random.default_rng(0)
    pixels = rng.normal(70, 20, (height, width, channels))
    pixels[10:30, 20:45] += 110
    return pixels.clip(0, 255).astype(np.uint8)


def decided(network):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.normal_(0, 0.3)
    return network


def classifier():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=4, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    normalization = Normalization((120.0,), (60.0,)).per_channel(3)
    return Classifier(module.eval(), "timm", "test", (16, 16), 3, 4, normalization, HOSTILE)


def network(kind):
    torch.manual_seed(0)
    if kind == "classifier":
        return classifier()
    if kind == "fcn":
        return decided(fc.FCN("squeezenet1_1", HOSTILE, stride=8))
    if kind == "backbone_unet":
        return decided(fc.UNet(HOSTILE, encoder="squeezenet1_1", widths=(4, 4, 6, 8)))
    return decided(fc.UNet(HOSTILE, widths=(4, 8)))


@pytest.fixture(scope="module")
def explained():
    """The explanation of a network of each kind, on one small image."""
    return {kind: fc.explain(network(kind), scene(), at=(20, 30)) for kind in SECTIONS}


@pytest.fixture(scope="module")
def pages(explained):
    return {kind: (found.html, Page(found.html)) for kind, found in explained.items()}


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_section_has_text_figures_sources_and_numbers(kind, explained):
    found = explained[kind]
    assert len(found.sections) == len(SECTIONS[kind])
    for section in found.sections:
        assert isinstance(section.content[0], str), section.title
        assert any(not isinstance(piece, str) for piece in section.content), section.title
        assert section.sources, section.title
        assert all(source.url.startswith("https://") for source in section.sources)
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(said["sections"]) == {section.title for section in found.sections}
    assert (found.label in HOSTILE, found.rival in HOSTILE) == (True, True)
    assert found.label in str(found)


@pytest.mark.parametrize("kind", SECTIONS)
def test_nothing_is_loaded_and_no_text_becomes_markup(kind, pages):
    html, page = pages[kind]
    assert len(page.all("script")) == 1
    assert "alert(" not in "".join(page.texts["script"])
    assert {tag for tag, _ in page.tags}.isdisjoint({"iframe", "object", "link", "base", "form"})
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href"):
            value = attributes.get(name, "")
            inside = value.startswith(("#", "data:image/webp;base64,")) or not value
            assert inside or (tag == "a" and value.startswith("https://")), (tag, value)
    assert "url(" not in html
    assert "@import" not in html


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_policy_names_the_one_script(kind, pages):
    _, page = pages[kind]
    (policy,) = [found["content"] for found in page.all("meta") if "http-equiv" in found]
    script = "".join(page.texts["script"])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:")


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_page_can_be_read_without_seeing_it(kind, pages):
    _, page = pages[kind]
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in page.tags:
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in names
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in names
    assert all(found.get("alt") for found in page.all("img"))
    pictures = [found for found in page.all("svg") if "picture" in found.get("class", "")]
    assert len(pictures) >= 15
    assert all(found["role"] == "img" and found["aria-label"] for found in pictures)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("a")[0]["class"] == "skip"
    for table in (found for found in page.all("th")):
        assert table["scope"] in ("col", "row")


def test_a_picture_that_is_drawn_twice_is_embedded_once(pages):
    html, page = pages["unet"]
    uses = [found["href"] for found in page.all("use")]
    assert len(set(uses)) == len(page.all("image")) < len(uses)
    assert len(html) < 400_000


def test_the_same_input_gives_the_same_page():
    small = scene(20, 24)
    first, second = (fc.explain(network("unet"), small, at=(9, 9)).html for _ in range(2))
    assert first == second


def test_the_numbers_are_those_of_the_network(explained):
    found = explained["fcn"].to_dict()["sections"]
    (stages,) = [numbers["stages"] for numbers in found.values() if "stages" in numbers]
    assert [stage["stride"] for stage in stages] == [16, 8]
    model, pixels = network("fcn").eval(), scene()
    with torch.no_grad():
        labels = model(torch.from_numpy(pixels.transpose(2, 0, 1)).float()[None])[0].argmax(0)
    assert explained["fcn"].label == HOSTILE[int(labels[20, 30])]
    (shares,) = [numbers["shares"] for numbers in found.values() if "label" in numbers]
    assert shares[HOSTILE[int(labels[0, 0])]] == pytest.approx(float((labels == labels[0, 0]).float().mean()))


def test_a_network_in_training_mode_is_explained_as_it_predicts_and_left_so(monkeypatch):
    monkeypatch.setitem(SECTIONS, "unet", SECTIONS["unet"][:1])
    trained = network("unet").train()
    found = fc.explain(trained, scene(20, 24), at=(9, 9))
    assert trained.training
    same = fc.explain(network("unet").eval(), scene(20, 24), at=(9, 9))
    assert found.to_dict() == same.to_dict()


@pytest.fixture
def files(tmp_path):
    write_image(tmp_path / "a.png", scene(24, 30))
    fc.save(network("unet"), tmp_path / "m.safetensors")
    return tmp_path


def test_the_verb_writes_the_page_and_prints_what_it_found(files, capsys):
    arguments = ["explain", str(files / "a.png"), "--model", str(files / "m.safetensors")]
    arguments += ["--at", "9,11", "--out", str(files / "page.html")]
    with suppress(SystemExit):
        cli.main([*arguments, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["at"] == [9, 11]
    html = (files / "page.html").read_text("utf-8")
    assert "row 9, column 11" in html
    assert f"--model {files / 'm.safetensors'} --at ROW,COLUMN" in html
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "exists" in capsys.readouterr().err
    assert (files / "page.html").read_text("utf-8") == html


@pytest.mark.parametrize("at", ["9", "9;3", "a,b", "-1,2", "1,2,3", "99,0"])
def test_a_pixel_that_cannot_be_is_refused(files, at):
    with pytest.raises(ConfigError, match=r"row|ROW"):
        commands.explain(
            files / "a.png", model=str(files / "m.safetensors"), out=files / "p.html", at=at, progress=Quiet()
        )
    assert not (files / "p.html").exists()


def test_models_that_cannot_be_explained_are_refused(files):
    with pytest.raises(ConfigError, match="weights"):
        fc.explain(files / "m.safetensors", scene(), weights="w.pt")
    with pytest.raises(ConfigError, match="nothing_like_it"):
        fc.explain("nothing_like_it", scene())
    dense = fc.DensePredictor(3, library="timm", name="test_convnext", input_size=(64, 64))
    with pytest.raises(InputError, match="kind 'dense'"):
        fc.explain(dense, scene(70, 70))


def test_a_file_from_convert_is_explained_as_the_classifier_it_was(tmp_path, monkeypatch):
    dense = fc.DensePredictor(3, library="timm", name="test_convnext", input_size=(32, 32))
    fc.save(dense, tmp_path / "d.safetensors")
    monkeypatch.setitem(SECTIONS, "classifier", SECTIONS["classifier"][:1])
    found = fc.explain(tmp_path / "d.safetensors", scene(80, 90))
    (numbers,) = found.to_dict()["sections"].values()
    assert numbers["cells"] == [6, 6]
    assert numbers["image_size"] == [32 + 5 * 32] * 2
    assert numbers["head_difference"] < 1e-4


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_click_in_a_browser_writes_the_command(explained, tmp_path):
    """A script of the test's own clicks into the first picture; the policy is taken off for it."""
    html = re.sub(r"<meta http-equiv[^>]*>", "", explained["unet"].html)
    click = """<script>
      const drawn = document.querySelector("svg.place").getBoundingClientRect();
      const place = {clientX: drawn.left + drawn.width * 0.51, clientY: drawn.top + drawn.height * 0.26};
      document.querySelector("svg.place").dispatchEvent(new MouseEvent("click", place));
    </script>"""
    (tmp_path / "page.html").write_text(html.replace("</body>", click + "</body>"), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (command,) = re.findall(r'<pre[^>]*id="command"[^>]*>([^<]*)</pre>', done.stdout)
    assert "--at 12,32 --out" in command
