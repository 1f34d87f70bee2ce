"""The sections of a report that say how well the network works."""

from __future__ import annotations

import numpy as np

from fullyconv.evaluation import Evaluation
from fullyconv.metrics import OBJECT_THRESHOLDS
from fullyconv.reports._charts import Line, line_chart, reliability_diagram
from fullyconv.reports._markup import Child, Markup, element, joined, table
from fullyconv.reports._wording import bounds, named, number

_LARGEST_TABLE = 32  # classes up to which the whole confusion matrix is shown
_CONFUSIONS = 12
_NAMES = {
    "mean_iu": "mean IU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iu": "frequency weighted IU",
    "boundary_f1": "boundary F1",
    "boundary_iu": "boundary IU",
    "average_precision": "object AP",
    "object_f1": "object F1",
    "expected_calibration_error": "calibration error",
}


def show_scores(evaluation: Evaluation) -> Markup:
    """Show the scores of all images, large first, then all beside the rivals."""
    tiles = []
    for name in ("mean_iu", "pixel_accuracy", "boundary_f1", "object_f1", "expected_calibration_error"):
        if name in evaluation.values:
            tiles.append(
                element(
                    "div",
                    element("dt", _NAMES[name]),
                    element("dd", number(evaluation.values[name]), class_="value"),
                    element("dd", bounds(evaluation, name), class_="note"),
                )
            )
    rows = []
    for name, shown in _NAMES.items():
        if name in evaluation.values:
            rivals = [
                number(getattr(rival.scores, name)) if hasattr(rival.scores, name) else "–"
                for rival in evaluation.rivals
            ]
            rows.append([shown, number(evaluation.values[name]), *rivals, bounds(evaluation, name)])
    header = ["score", "this model", *(rival.name for rival in evaluation.rivals), "95 % interval"]
    rivals_said = "; ".join(f"{rival.name}: {rival.description}" for rival in evaluation.rivals)
    return joined(
        [
            element("dl", tiles, class_="tiles"),
            table("Scores of all images together, beside what needs no network", header, rows),
            element("p", f"{rivals_said[:1].upper()}{rivals_said[1:]}. {_RULES}", class_="note"),
        ]
    )


_RULES = (
    "Ignored pixels count nowhere. A class without true pixels is n/a and in no mean. Intervals come from "
    "drawing the images again, 2000 times. Borders count within 0.75 % (boundary F1) and 2 % (boundary IU) "
    "of the diagonal; objects above an IU of 0.5 (F1) and of 0.5 to 0.95 (AP)."
)


def show_classes(evaluation: Evaluation) -> Markup:
    """Show the scores of each class."""
    columns = {
        "class_precision": "precision",
        "class_accuracy": "recall",
        "class_dice": "Dice",
        "class_boundary_f1": "boundary F1",
        "class_boundary_iu": "boundary IU",
    }
    true = evaluation.sums[..., 1].sum(0)
    rows: list[list[Child]] = []
    for index in range(len(evaluation.classes)):
        scores = [number(evaluation.values[column][index]) for column in columns]
        iu = evaluation.values["class_iu"][index]
        low, high = (
            (bound[index] for bound in evaluation.intervals["class_iu"]) if evaluation.intervals else (iu, iu)
        )
        bar = None
        if not np.isnan(iu):
            bar = element(
                "span",
                element("i", style=f"width:{iu:.2%}"),
                element("b", style=f"left:{low:.2%};width:{high - low:.2%}"),
                class_="bar",
                aria_hidden="true",
            )
        cell = [number(iu), " ", element("span", bounds(evaluation, "class_iu", index), class_="note"), bar]
        rows.append(
            [named(evaluation.classes, index), cell, *scores, f"{true[index] / max(true.sum(), 1):.2%}"]
        )
    return joined(
        [
            element("p", "The bar is the IU, the bracket on it its 95 % interval."),
            table(
                "Scores of each class",
                ["class", "IU", *columns.values(), "share of pixels"],
                rows,
                class_="classes",
            ),
        ]
    )


def show_confusion(evaluation: Evaluation) -> Markup:
    """Show which classes are answered as which."""
    counts, names = evaluation.counts, evaluation.classes.names
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    content: list[Child] = []
    if len(names) <= _LARGEST_TABLE:
        rows: list[list[Child]] = [
            [
                name,
                *(_cell(shares[row, column], row == column) for column in range(len(names))),
            ]
            for row, name in enumerate(names)
        ]
        content.append(
            _heat("Of the pixels of each class (row), the share answered as each (column)", names, rows)
        )
    wrong = np.where(np.eye(len(names), dtype=bool), 0, counts)
    order = np.argsort(-wrong.ravel(), kind="stable")[:_CONFUSIONS]
    largest = [np.unravel_index(place, wrong.shape) for place in order if wrong.flat[place]]
    total = max(int(wrong.sum()), 1)
    if len(names) > 2:
        content.append(
            table(
                "The largest confusions",
                ["is", "answered as", "of all wrong pixels", "of the class"],
                [
                    [names[i], names[j], f"{wrong[i, j] / total:.1%}", f"{shares[i, j]:.1%}"]
                    for i, j in largest
                ],
            )
        )
    return joined(content)


def _heat(caption: str, names: tuple[str, ...], rows: list[list[Child]]) -> Markup:
    head = element(
        "tr", element("th", "is \\ answered", scope="col"), (element("th", n, scope="col") for n in names)
    )
    body = [element("tr", element("th", name, scope="row"), cells) for name, *cells in rows]
    drawn = element(
        "table", element("caption", caption), element("thead", head), element("tbody", body), class_="heat"
    )
    return element("div", drawn, class_="wide", role="region", aria_label=caption, tabindex=0)


def _cell(share: float, right: bool) -> Markup:
    return element("td", f"{share:.1%}", style=f"--v:{share:.3f}", class_="right" if right else None)


def show_objects(evaluation: Evaluation) -> Markup | None:
    """Show objects found and missed, where they were counted."""
    if evaluation.objects is None:
        return None
    rows = [
        [
            _NAMES.get(name, name.replace("_", " ")),
            number(evaluation.values[name]),
            bounds(evaluation, name),
        ]
        for name in ("average_precision", "object_f1", "object_precision", "object_recall")
    ]
    curve = [
        (threshold, float(value))
        for threshold, value in zip(
            OBJECT_THRESHOLDS, evaluation.values["precision_by_threshold"], strict=True
        )
        if not np.isnan(value)
    ]
    source = "connected regions" if evaluation.object_source == "regions" else "regions parted at their necks"
    return joined(
        [
            element(
                "p",
                f"Predicted objects are {source}; true ones are those that the data numbers, where it does.",
            ),
            table("Objects found", ["score", "this model", "95 % interval"], rows),
            line_chart(
                "Objects found, of those found, invented and missed",
                [Line("this model", curve)],
                x="least intersection over union",
                y="share",
                y_range=(0, 1),
            ),
        ]
    )


def show_calibration(evaluation: Evaluation) -> Markup | None:
    """Show how often the network is right by how sure it is, where that was measured."""
    if evaluation.calibration is None:
        return None
    pixels = evaluation.values["bin_pixels"]
    bins = [
        (float(confidence), float(accuracy), float(count / pixels.sum()))
        for confidence, accuracy, count in zip(
            evaluation.values["bin_confidence"], evaluation.values["bin_accuracy"], pixels, strict=True
        )
        if count
    ]
    gap = "surer than right" if sum(c * (a - b) for a, b, c in bins) > 0 else "righter than sure"
    return joined(
        [
            element(
                "p",
                f"Below the dotted line the network is surer than it is right. On average it is {gap}, and "
                f"confidence misses accuracy by {number(evaluation.values['expected_calibration_error'])}.",
            ),
            reliability_diagram(bins, title="How often it is right, by how sure it is"),
        ]
    )
