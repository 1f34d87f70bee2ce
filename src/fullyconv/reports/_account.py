"""The sections of a report that say what was trained, on what, and against what."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import asdict

from fullyconv.datasets import class_counts
from fullyconv.reports._charts import Line, line_chart
from fullyconv.reports._findings import Contender, Findings
from fullyconv.reports._markup import Child, Markup, element, joined, table
from fullyconv.reports._wording import bounds, kind_of, named, number, signed, size_of
from fullyconv.training.recipes import NAME


def show_training(findings: Findings) -> Markup:
    """Show the curves and how the network was trained."""
    contenders = (findings.first, *findings.others)
    constant = findings.first.evaluation.constant.mean_iu
    charts = [
        line_chart("Loss", _curves(contenders, "loss"), x="epoch", y="loss"),
        line_chart(
            "Mean IU on the validation images",
            _curves(contenders, "mean_iu"),
            x="epoch",
            y="mean IU",
            y_range=(0, 1),
            levels=() if math.isnan(constant) else (("constant answer", constant),),
        ),
    ]
    run = findings.first.run
    config = asdict(run.recipe.config)
    facts: list[list[Child]] = [
        [said, element("code", str(config[key]))]
        for key, said in (
            ("network", "network"),
            ("backbone", "backbone"),
            ("loss", "loss"),
            ("batch", "crops a step"),
            ("learning_rate", "learning rate"),
            ("precision", "precision"),
            ("seed", "seed"),
        )
        if config[key] is not None
    ]
    again = f"fullyconv train --recipe {shlex.quote(f'{run.name}/{NAME}')} --out runs/again"
    facts.append(["again, by its recipe", element("code", again)])
    if run.history:
        last = run.history[-1]
        facts.append(
            ["length", f"epoch {last.get('epoch')}, step {last.get('step')}, {last.get('seconds')} s"]
        )
    return joined(
        [
            element("div", charts, class_="charts"),
            table("How it was trained", ["what", "value"], facts, class_="facts"),
            element(
                "details",
                element("summary", "Every option"),
                element("pre", json.dumps(config, indent=2, ensure_ascii=False), tabindex=0),
            ),
        ]
    )


def _curves(contenders: tuple[Contender, ...], key: str) -> list[Line]:
    return [
        Line(
            contender.run.name,
            [
                (row["epoch"], row[key])
                for row in contender.run.history
                if isinstance(row.get(key), int | float) and isinstance(row.get("epoch"), int)
            ],
        )
        for contender in contenders
    ]


def show_comparison(findings: Findings) -> Markup | None:
    """Show the runs beside each other, where there are several."""
    if not findings.others:
        return None
    rows: list[list[Child]] = []
    for contender in (findings.first, *findings.others):
        evaluation = contender.evaluation
        rows.append(
            [
                contender.run.name,
                f"{number(evaluation.scores.mean_iu)} ({bounds(evaluation, 'mean_iu')})",
                "–" if contender is findings.first else signed(findings.gain(contender)),
                number(evaluation.values["boundary_f1"]),
                f"{contender.parameters / 1e6:.3g} M",
                f"{contender.speed.megapixels:.3g}",
            ]
        )
    names = [contender.run.name for contender in (findings.first, *findings.others)]
    per_class: list[list[Child]] = [
        [
            named(findings.first.evaluation.classes, index),
            *(number(c.evaluation.scores.class_iu[index]) for c in (findings.first, *findings.others)),
        ]
        for index in range(len(findings.first.evaluation.classes))
    ]
    leaks = [
        element(
            "p",
            element("strong", f"{other.run.name} was trained on {other.seen} of these images: "),
            "its scores here tell more than is true.",
            class_="verdict bad",
        )
        for other in findings.others
        if other.seen
    ]
    header = [
        "run",
        "mean IU",
        f"gain on {names[0]} (95 %, paired)",
        "boundary F1",
        "weights",
        "megapixels/s",
    ]
    return joined(
        [
            element("p", f"All runs on the same {findings.first.evaluation.images} images."),
            leaks,
            table("Runs, and their gains on the same drawn images", header, rows),
            table("IU of each class", ["class", *names], per_class),
        ]
    )


def show_data(findings: Findings) -> Markup:
    """Show what the images and masks are."""
    dataset = findings.dataset
    sizes = sorted(dataset.sizes.values(), key=math.prod)
    facts: list[list[Child]] = [
        ["folder", dataset.root.name],
        ["layout", dataset.layout],
        [
            "images",
            f"{dataset.channels} channel(s) of {dataset.dtype}, "
            f"{size_of(sizes[0])} to {size_of(sizes[-1])} pixels",
        ],
        *(_fact("note", note) for note in dataset.notes),
    ]
    splits = [name for name in ("train", "val", "test") if dataset.split(name)]
    shares = []
    for split in splits:
        counts = class_counts(dataset, dataset.split(split))
        shares.append(counts / max(int(counts.sum()), 1))
    rows = [
        [named(dataset.classes, index), *(f"{share[index]:.2%}" for share in shares)]
        for index in range(len(dataset.classes))
    ]
    header = ["class", *(f"{split} ({len(dataset.split(split)):,} images)" for split in splits)]
    return joined(
        [
            table("What the data is", ["what", "value"], facts, class_="facts"),
            table("Shares of the pixels", header, rows) if splits else None,
        ]
    )


def show_network(findings: Findings) -> Markup:
    """Show where the network looks and how fast it is."""
    first = findings.first
    field, stride = findings.receptive_field, findings.stride
    facts: list[list[Child]] = [
        ["kind", kind_of(first)],
        ["weights", f"{first.parameters:,}, {first.run.model.stat().st_size / 1e6:.1f} MB"],
        ["input", f"{first.model.channels} channel(s) of {first.model.normalization.dtype}"],
        ["receptive field", f"{size_of(field)} pixels" if field else "not traced"],
        ["stride", f"{size_of(stride)} pixels" if stride else "not traced"],
        *(_fact("looks at the whole image", layer) for layer in findings.context),
        [
            "speed, measured now",
            f"{first.speed.megapixels:.3g} megapixels/s: {size_of(first.speed.size)} in "
            f"{first.speed.seconds * 1000:.0f} ms, float32, {first.speed.processor}",
        ],
    ]
    return table("The network", ["what", "value"], facts, class_="facts")


def _fact(what: str, value: str) -> list[Child]:
    return [what, value]
