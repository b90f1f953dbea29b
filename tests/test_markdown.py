"""Markdown that shows text as it is."""

import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from fit_jax.foreign import printable
from fit_jax.markdown import as_block, as_code, as_text

from .hostile_texts import TEXTS


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_shows_text_as_it_is(text):
    shown = as_text(text)
    assert not {*"<>\n\x1b\u202e"} & {*shown}
    plain = shown.replace("\\\\", "")
    for special in "`|[]*#":
        assert plain.count(special) == plain.count("\\" + special)
    assert "\n" not in as_code(text)
    assert as_code(text).count("|") == as_code(text).count("\\|")


def test_code_ends_where_it_should():
    assert as_code("a") == "`a`"
    assert as_code("a``b`") == "``` a``b` ```"
    assert as_block("x: |\n  ```\n", "yaml") == "````yaml\nx: |\n  ```\n````"


WRITTEN = [
    "R&D & more",
    "AT&T; &lt; &#65; &#x41; &copy;",
    "1 of [0.006, 1.000]",
    "focus(core) & ignore(tag) [0.1, 0.9] †",
]
HOSTILE = [
    "[0.1, 0.9](javascript:alert(1))",
    "[0.1, 0.9]: https://x.org",
    "[0.1, 0.9][0.1, 0.9]",
    "&amp;lt;b&gt;",
    "![a](b)",
]


@pytest.mark.parametrize("text", [*TEXTS, *WRITTEN, *HOSTILE])
def test_what_a_renderer_makes_of_it_is_the_text(text):
    html = MarkdownIt("commonmark").enable("table").render(f"[0.1, 0.9]\n\n{as_text(text)}\n\n[0.1, 0.9]\n")
    _, paragraph, _ = re.findall(r"<p>(.*?)</p>", html, flags=re.DOTALL)
    assert "<" not in paragraph
    assert unescape(paragraph) == " ".join(printable(text).split())


@pytest.mark.parametrize("text", [WRITTEN[0], *WRITTEN[2:], "-5", "1.5 more", "--option"])
def test_what_no_renderer_obeys_reads_as_it_is_in_the_file(text):
    assert as_text(text) == text
