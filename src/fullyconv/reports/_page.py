"""Findings as a page: a reader sees first whether the model works, then where it fails."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fullyconv import __version__
from fullyconv.evaluation import Evaluation, verdict
from fullyconv.reports._account import show_comparison, show_data, show_network, show_training
from fullyconv.reports._findings import Findings
from fullyconv.reports._markup import Markup, element
from fullyconv.reports._scores import (
    show_calibration,
    show_classes,
    show_confusion,
    show_objects,
    show_scores,
)
from fullyconv.reports._shots import show_shots
from fullyconv.reports._wording import kind_of, signed, split_of

_STYLE = Path(__file__).with_name("style.css")


def render(findings: Findings) -> str:
    """Return a whole HTML page that loads nothing and runs nothing."""
    evaluation = findings.first.evaluation
    sections = [
        ("scores", "Scores", show_scores(evaluation)),
        ("comparison", "Comparison", show_comparison(findings)),
        ("failures", "Worst images", show_shots(findings.worst, evaluation.classes)),
        ("successes", "Best images", show_shots(findings.best, evaluation.classes)),
        ("classes", "Classes", show_classes(evaluation)),
        ("confusion", "Confusion", show_confusion(evaluation)),
        ("objects", "Objects", show_objects(evaluation)),
        ("calibration", "Calibration", show_calibration(evaluation)),
        ("training", "Training", show_training(findings)),
        ("data", "Data", show_data(findings)),
        ("network", "Network", show_network(findings)),
    ]
    shown = [(key, title, content) for key, title, content in sections if content]
    body = [
        element("a", "Skip to the scores", href="#scores", class_="skip"),
        _header(findings, shown),
        element(
            "main",
            (
                element(
                    "section",
                    element("h2", title, id=f"{key}-title"),
                    content,
                    id=key,
                    aria_labelledby=f"{key}-title",
                )
                for key, title, content in shown
            ),
        ),
        _footer(findings),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        ),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{findings.first.run.name}: report"),
        element("style", Markup(_STYLE.read_text("utf-8"))),
    ]
    return (
        "<!doctype html>\n" + element("html", element("head", head), element("body", body), lang="en") + "\n"
    )


def _header(findings: Findings, shown: list[tuple[str, str, Markup]]) -> Markup:
    first = findings.first
    trained = len(findings.dataset.split("train"))
    last = first.run.history[-1] if first.run.history else {}
    lede = (
        f"{kind_of(first)} of {first.parameters / 1e6:.2g} million weights, trained on {trained:,} images of "
        f"{findings.dataset.root.name}"
        + (f" for {last['seconds'] / 60:.3g} minutes" if "seconds" in last else "")
        + f". All scores are of {first.evaluation.images:,} {split_of(first.evaluation)} images, scored anew."
    )
    links = (element("li", element("a", title, href=f"#{key}")) for key, title, _ in shown)
    return element(
        "header",
        element("p", "Report of a run", class_="kind"),
        element("h1", first.run.name),
        element("p", lede, class_="lede"),
        _verdict(first.evaluation),
        element("nav", element("ul", links), aria_label="Sections"),
    )


def _verdict(evaluation: Evaluation) -> Markup:
    said = verdict(evaluation)
    if said:
        return element("p", element("strong", said), class_="verdict bad", role="note")
    beaten = " and ".join(
        f"{rival.description} by {signed(evaluation.gains[rival.name])}" for rival in evaluation.rivals
    )
    return element("p", f"In mean IU it beats {beaten}.", class_="verdict")


def _footer(findings: Findings) -> Markup:
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return element(
        "footer",
        element("p", f"Written {written} by fullyconv {__version__}; seed {findings.first.evaluation.seed}."),
    )
