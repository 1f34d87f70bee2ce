"""HTML by construction: whatever is not markup already is escaped, so no name of a file or class is code."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Control characters, halves of characters, and what turns the direction of text around.
_UNFIT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_VOID = {"img", "meta"}


class Markup(str):
    """Text that is HTML already; made by `element`."""

    __slots__ = ()


Child = Markup | str | int | None | Iterable["Child"]


def escape(text: str) -> Markup:
    """Return text as HTML that shows it, with a replacement character for what cannot be shown."""
    return Markup(html.escape(_UNFIT.sub("\ufffd", text)))


def element(tag: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    Parameters
    ----------
    tag
        Its name.
    children
        Markup as it is, text and numbers escaped, iterables one by one; ``None`` is nothing.
    attributes
        By name, ``_`` for ``-`` (``class_`` is "class"); ``True`` has no value, ``None`` and ``False`` are
        left out.

    Examples
    --------
    >>> element("p", "1 < 2", element("b", "x"), class_="note")
    '<p class="note">1 &lt; 2<b>x</b></p>'
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(child: Child) -> Markup:
    """Return children as one piece of markup."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int):
        return escape(str(child))
    return Markup("".join(map(joined, child)))


def table(
    caption: str, header: Iterable[Child], rows: Iterable[Iterable[Child]], *, class_: str = ""
) -> Markup:
    """Return a table whose first column heads its rows; on small screens it scrolls by itself."""
    head = element("tr", (element("th", cell, scope="col") for cell in header))
    body = []
    for first, *rest in rows:
        body.append(element("tr", element("th", first, scope="row"), (element("td", cell) for cell in rest)))
    drawn = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", body),
        class_=class_ or None,
    )
    return element("div", drawn, class_="wide", role="region", aria_label=caption, tabindex=0)
