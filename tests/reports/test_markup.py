from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullyconv.reports._markup import Markup, element, escape, joined, table


class Reader(HTMLParser):
    """What a browser would make of it: tags with attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_stays_text(content, value):
    read = Reader(element("p", content, title=value))
    assert [tag for tag, _ in read.tags] == ["p"]
    shown = "".join(character for character in read.text if character != "\ufffd")
    assert shown.replace("\r", "") == "".join(c for c in content if c in shown).replace("\r", "")
    assert list(read.tags[0][1]) == ["title"]


@pytest.mark.parametrize("bad", ["\x00", "\x1b", "\x7f", "\u202e", "\u2067", "\udc80", "\uffff"])
def test_what_cannot_be_shown_is_replaced(bad):
    assert escape(f"a{bad}b") == "a\ufffdb"
    element("p", bad, title=bad).encode("utf-8")


def test_only_markup_is_markup():
    inner = element("b", "x")
    assert element("p", inner, "<b>", 3, None, [inner, "&"]) == "<p><b>x</b>&lt;b&gt;3<b>x</b>&amp;</p>"
    assert joined(f"{inner}") == "&lt;b&gt;x&lt;/b&gt;"
    assert isinstance(inner, Markup)


def test_attributes():
    drawn = element("a", class_="n", aria_label='"', hidden=True, title=None, open=False)
    assert drawn == '<a class="n" aria-label="&quot;" hidden></a>'
    assert element("img", alt="") == '<img alt="">'


def test_a_table_heads_its_rows_and_columns():
    drawn = table("what", ["a", "b"], [["x", "1"]])
    assert '<caption>what</caption><thead><tr><th scope="col">a</th><th scope="col">b</th>' in drawn
    assert '<tr><th scope="row">x</th><td>1</td></tr>' in drawn
    assert 'tabindex="0"' in drawn
