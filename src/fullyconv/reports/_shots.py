"""The sections of a report that show images."""

from __future__ import annotations

import numpy as np

from fullyconv.labels import ClassTable
from fullyconv.reports._findings import Pictured
from fullyconv.reports._markup import Markup, element, joined
from fullyconv.reports._pictures import MISSED, WRONG
from fullyconv.reports._wording import number, swatch


def show_shots(shots: tuple[Pictured, ...], classes: ClassTable) -> Markup | None:
    """Show images with their masks and errors."""
    if not shots:
        return None
    drawn = []
    for shot in shots:
        scores = ", ".join(
            f"{name} {number(value)}"
            for name, value in zip(classes.names, shot.class_iu, strict=True)
            if not np.isnan(value)
        )
        panels = (
            element(
                "li",
                element("img", src=panel.source, alt=f"{shot.name}, {panel.description}", loading="lazy"),
                element("span", panel.name),
            )
            for panel in shot.panels
        )
        drawn.append(
            element(
                "div",
                element("h3", shot.name),
                element(
                    "p",
                    f"mean IU {number(shot.mean_iu)} ({scores}); {shot.panels[-1].description}",
                    class_="note",
                ),
                element("ul", panels, class_="panels"),
                class_="shot",
            )
        )
    return joined([_key_to_errors(classes), drawn])


def _key_to_errors(classes: ClassTable) -> Markup:
    if len(classes) == 2:
        keys = [(WRONG, f"invented {classes.names[1]}"), (MISSED, f"missed {classes.names[1]}")]
    else:
        keys = [(WRONG, "another class than the true one")]
    items = [element("li", swatch(color), said) for color, said in keys]
    if len(classes) > 2:
        items += [
            element("li", swatch(color), name)
            for name, color in zip(classes.names, classes.colors, strict=True)
        ]
    return element("ul", items, class_="legend", aria_label="Colours of the pictures")
