"""Charts as inline SVG, each with its numbers in a table below for those who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fullyconv.reports._markup import Markup, element, table

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 16, 14, 50
SERIES = 4  # distinct colours and dashes of the style sheet


@dataclass(frozen=True)
class Line:
    """One curve: its name, and points from left to right."""

    name: str
    points: Sequence[tuple[float, float]]
    marked: bool = True


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    y_range: tuple[float, float] | None = None,
    levels: Sequence[tuple[str, float]] = (),
) -> Markup:
    """Draw curves over one horizontal axis.

    Parameters
    ----------
    title
        Says what is shown.
    lines
        The curves.
    x, y
        What the axes measure.
    y_range
        The vertical axis; from the points where ``None``.
    levels
        Named horizontal lines.
    """
    points = [point for line in lines for point in line.points]
    heights = [height for _, height in points] + [level for _, level in levels]
    plane = _Plane(_span([across for across, _ in points], (0, 1)), y_range or _span([0.0, *heights], (0, 1)))
    drawn = [*plane.axes(x, y, whole=all(float(across).is_integer() for across, _ in points))]
    for name, level in levels:
        left, height = plane.place(plane.across[0], level)
        drawn.append(element("line", x1=left, x2=_WIDTH - _RIGHT, y1=height, y2=height, class_="level"))
        drawn.append(
            element("text", name, x=_WIDTH - _RIGHT - 4, y=height - 5, text_anchor="end", class_="label")
        )
    for number, line in enumerate(lines):
        places = [plane.place(*point) for point in line.points]
        style = f"s{number % SERIES}"
        drawn.append(
            element("polyline", points=" ".join(f"{a},{b}" for a, b in places), class_=f"line {style}")
        )
        if line.marked:
            drawn += [element("circle", cx=a, cy=b, r=3.2, class_=f"dot {style}") for a, b in places]
    legend = None
    if len(lines) > 1:
        legend = element(
            "ul",
            (
                element("li", element("span", class_=f"key s{k % SERIES}", aria_hidden="true"), line.name)
                for k, line in enumerate(lines)
            ),
            class_="legend",
        )
    rows = [(line.name, f"{across:g}", f"{height:.4g}") for line in lines for across, height in line.points]
    return _figure(title, drawn, legend, table(f"{title}, numbers", ("curve", x, y), rows))


def reliability_diagram(bins: Sequence[tuple[float, float, float]], *, title: str) -> Markup:
    """Draw how often answers are right against how sure the network was.

    Parameters
    ----------
    bins
        (confidence, accuracy, share of pixels) of each bin that has pixels.
    title
        Says what is shown.
    """
    plane = _Plane((0, 1), (0, 1))
    start, end = plane.place(0, 0), plane.place(1, 1)
    drawn = [*plane.axes("confidence", "share of right answers")]
    for confidence, _, share in bins:
        left, top = plane.place(confidence, share)
        drawn.append(
            element("rect", x=left - 7, y=top, width=14, height=round(start[1] - top, 1), class_="share")
        )
    drawn.append(element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_="level"))
    places = [plane.place(confidence, accuracy) for confidence, accuracy, _ in bins]
    drawn.append(element("polyline", points=" ".join(f"{a},{b}" for a, b in places), class_="line s0"))
    drawn += [element("circle", cx=a, cy=b, r=4, class_="dot s0") for a, b in places]
    legend = element(
        "ul",
        element("li", element("span", class_="key s0", aria_hidden="true"), "this model"),
        element("li", element("span", class_="key level", aria_hidden="true"), "as sure as it is right"),
        element("li", element("span", class_="key share", aria_hidden="true"), "share of the pixels"),
        class_="legend",
    )
    rows = [(f"{a:.3f}", f"{b:.3f}", f"{c:.2%}") for a, b, c in bins]
    numbers = table(f"{title}, numbers", ("confidence", "right", "pixels"), rows)
    return _figure(title, drawn, legend, numbers)


class _Plane:
    """The place of values on the page."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self.across, self.up = across, up

    def place(self, across: float, height: float) -> tuple[float, float]:
        """Return x and y on the page, in its units."""
        right = (across - self.across[0]) / (self.across[1] - self.across[0])
        above = (height - self.up[0]) / (self.up[1] - self.up[0])
        return (
            round(_LEFT + right * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - above * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    def axes(self, x: str, y: str, *, whole: bool = False) -> list[Markup]:
        """Return the grid, its numbers and what they measure; no half epochs where ``x`` is whole."""
        drawn = []
        for height in ticks(*self.up):
            left, level = self.place(self.across[0], height)
            drawn.append(element("line", x1=left, x2=_WIDTH - _RIGHT, y1=level, y2=level, class_="grid"))
            drawn.append(element("text", f"{height:g}", x=left - 7, y=level + 4, text_anchor="end"))
        for across in ticks(*self.across):
            if whole and not float(across).is_integer():
                continue
            place, bottom = self.place(across, self.up[0])
            drawn.append(element("text", f"{across:g}", x=place, y=bottom + 20, text_anchor="middle"))
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        drawn.append(element("text", x, x=middle, y=_HEIGHT - 6, text_anchor="middle", class_="label"))
        turned = f"rotate(-90 13 {(_HEIGHT - _BOTTOM + _TOP) / 2:g})"
        drawn.append(
            element(
                "text",
                y,
                x=13,
                y=(_HEIGHT - _BOTTOM + _TOP) / 2,
                text_anchor="middle",
                transform=turned,
                class_="label",
            )
        )
        return drawn


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers within a range, about five."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [
        round(number * step, 12)
        for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _span(values: Sequence[float], otherwise: tuple[float, float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return otherwise
    low, high = min(finite), max(finite)
    return (low, high + 0.05 * (high - low)) if high > low else (low - 0.5, low + 0.5)


def _figure(title: str, drawn: Sequence[Markup], legend: Markup | None, numbers: Markup) -> Markup:
    svg = element(
        "svg",
        element("title", title),
        drawn,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=title,
    )
    return element(
        "figure",
        element("figcaption", title),
        svg,
        legend,
        element("details", element("summary", "The numbers"), numbers),
        class_="chart",
    )
