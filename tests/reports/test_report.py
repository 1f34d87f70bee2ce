"""The page as a whole: true, safe to open, and readable by everyone."""

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from fullyconv import commands
from fullyconv.errors import ConfigError, InputError
from fullyconv.evaluation import evaluate
from fullyconv.metrics import interval, resample, score_regions
from fullyconv.progress import Quiet
from fullyconv.reports import _write, render, write_report
from fullyconv.training import Recipe, TrainConfig, write_recipe


class Page(HTMLParser):
    """Every element with its attributes and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        entry = [tag, dict(attributes), ""]
        self.elements.append(entry)
        if tag not in {"meta", "img"}:
            self.open.append(entry)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, "elements close in order"

    def handle_data(self, data):
        for entry in self.open:
            entry[2] += data

    def of(self, *tags):
        return [entry for entry in self.elements if entry[0] in tags]


@pytest.fixture(scope="module")
def text(findings):
    return render(findings)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_it_is_whole_small_and_closed(text, page):
    assert page.open == []
    assert len(text.encode("utf-8")) < 5_000_000
    assert text.startswith("<!doctype html>")


def test_nothing_is_loaded_and_nothing_runs(text, page):
    assert page.of("script", "link", "iframe", "object", "embed", "form", "base") == []
    for tag, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/webp;base64,"))
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [a["content"] for _, a, _ in page.of("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_names_of_files_classes_and_options_are_text(text, page, hostile):
    assert hostile not in text
    assert "<img src=x" not in text
    assert "<i>run" not in text
    shown = " ".join(entry[2] for entry in page.of("body"))
    for name in (hostile, "<img src=x onerror=alert(1)>", "first <i>run", "cells & <b>more"):
        assert name in shown


def test_headings_tables_and_pictures_are_for_everyone(page):
    levels = [int(tag[1]) for tag, _, _ in page.of("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.of("table")) == len(page.of("caption")) > 5
    assert all(attributes.get("scope") in {"row", "col"} for _, attributes, _ in page.of("th"))
    for _, attributes, _ in page.of("img"):
        assert len(attributes["alt"]) > 10
    assert all(attributes.get("aria-label") for _, attributes, _ in page.of("svg"))
    assert page.of("html")[0][1]["lang"] == "en"
    assert len(page.of("main")) == len(page.of("header")) == len(page.of("footer")) == 1


def test_links_lead_somewhere_and_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in page.of("a"):
        assert attributes["href"].removeprefix("#") in ids


def test_every_section_is_there(page):
    titles = [entry[2] for entry in page.of("h2")]
    assert titles == [
        "Scores", "Comparison", "Worst images", "Best images", "Classes", "Confusion", "Objects",
        "Calibration", "Training", "Data", "Network",
    ]  # fmt: skip


def test_it_says_what_was_measured(findings, page):
    shown = page.of("body")[0][2]
    evaluation = findings.first.evaluation
    assert f"{evaluation.scores.mean_iu:.3f}" in shown
    assert f"{evaluation.constant.mean_iu:.3f}" in shown
    assert "does not beat" in shown or "it beats" in shown
    field, stride = findings.receptive_field, findings.stride
    assert f"{field[0]}×{field[1]} pixels" in shown
    assert f"{stride[0]}×{stride[1]} pixels" in shown
    assert f"{findings.first.parameters:,}" in shown


def test_scores_are_those_of_evaluate_on_the_run_s_own_split(findings):
    again = evaluate(findings.first.run.model, findings.dataset, split="val")
    assert findings.first.evaluation.names == again.names
    assert findings.first.evaluation.scores == again.scores


def test_worst_and_best_are_ranked_and_never_the_same(findings):
    of_images = dict(
        zip(
            findings.first.evaluation.names,
            score_regions(findings.first.evaluation.sums)["mean_iu"],
            strict=True,
        )
    )
    worst = [shot.mean_iu for shot in findings.worst]
    assert worst == sorted(of_images.values())[:2]
    assert {shot.name for shot in findings.worst}.isdisjoint(shot.name for shot in findings.best)
    assert len(findings.best) == 1


def test_a_comparison_is_paired_and_says_who_saw_the_images(findings, page):
    (other,) = findings.others
    gain, low, high = findings.gain(other)
    drawn = [
        score_regions(resample(each.evaluation.sums, seed=3))["mean_iu"] for each in (other, findings.first)
    ]
    assert (low, high) == pytest.approx([float(bound) for bound in interval(drawn[0] - drawn[1])])
    assert gain == other.evaluation.scores.mean_iu - findings.first.evaluation.scores.mean_iu
    assert other.seen == 1
    assert "other was trained on 1 of these images" in page.of("body")[0][2]


def test_the_verb_writes_a_file_and_says_where(report_run, report_data, tmp_path):
    result = commands.report(
        report_run, data=report_data, out=tmp_path / "r.html", pictures=1, progress=Quiet()
    )
    answer = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert answer["report"] == str(tmp_path / "r.html")
    assert 0 <= answer["mean_iu"] <= 1
    assert (tmp_path / "r.html").read_text("utf-8").endswith("</html>\n")
    assert str(tmp_path / "r.html") in str(result)


def test_a_file_is_never_replaced_unless_told(report_run, report_data, tmp_path, monkeypatch):
    (tmp_path / "r.html").write_text("mine")
    monkeypatch.setattr(_write, "gather", None)  # refused before any work
    with pytest.raises(InputError, match="exists"):
        write_report(report_run, report_data, out=tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "mine"


def test_data_is_what_the_run_has_recorded_or_is_asked_for(report_run, report_data, tmp_path):
    with pytest.raises(ConfigError, match=r"not recorded.*--data"):
        write_report(report_run, out=tmp_path / "r.html")
    run = tmp_path / "run"
    shutil.copytree(report_run, run)
    for data, classes in ((report_data, report_data / "classes.toml"), (tmp_path / "gone", None)):
        write_recipe(Recipe(TrainConfig(), data, classes), run / "recipe.toml")
        if data.exists():
            assert write_report(run, pictures=1).path == run / "report.html"
        else:
            with pytest.raises(ConfigError, match=r"no longer at .*gone.*--data"):
                write_report(run, out=tmp_path / "r.html")


STYLE = (_write.render.__globals__["_STYLE"]).read_text("utf-8")


def colors(dark):
    """Return the variables of a theme; the dark one overrides the light one."""
    light, _, rest = STYLE.partition("@media (prefers-color-scheme: dark)")
    block = rest.partition("}\n}")[0] if dark else light
    found = dict(re.findall(r"--([\w-]+): (#\w{6}|\d+ \d+ \d+);", block))
    return {
        name: np.array(
            [int(value[k : k + 2], 16) for k in (1, 3, 5)] if value[0] == "#" else value.split(), float
        )
        for name, value in found.items()
    }


def contrast(one, two):
    """WCAG 2.2, 1.4.3."""
    lightness = []
    for color in (one, two):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color / 255]
        lightness.append(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return (max(lightness) + 0.05) / (min(lightness) + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everything_can_be_read_in_both_themes(dark):
    theme = colors(dark)
    for text in ("ink", "soft", "accent"):
        for ground in ("page", "card"):
            assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
    assert contrast(theme["ink"], theme["bad-page"]) >= 4.5
    for series in ("c0", "c1", "c2", "c3"):
        assert contrast(theme[series], theme["card"]) >= 3
    hottest = 0.42 * theme["heat"] + 0.58 * theme["card"]
    assert contrast(theme["ink"], hottest) >= 4.5
