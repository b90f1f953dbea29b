"""Text of the data that would be markup, a script or a terminal's command: it is shown, and nothing obeys it."""

import io

import pytest
from rich.table import Table

from fit_jax.evaluation.html import page, script_json
from fit_jax.evaluation.markdown import as_block, as_code, as_text
from fit_jax.terminal import Terminal

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "a | b",
    "`code` **bold** _it_ [link](javascript:alert(1)) ![i](x)",
    "# heading",
    "- item",
    "a\n\n# heading\n\n<b>",
    "\x1b[31mred\x1b]0;title\x07",
    "[red]text[/nope]",
    ":smile:",
    "\u202eabc",
)


@pytest.mark.parametrize("text", HOSTILE)
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


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_shows_text_as_it_is(text):
    out = io.StringIO()
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    Terminal(file=out, force_terminal=True, width=400).print(table)
    shown = out.getvalue()
    assert "\x1b]" not in shown
    assert "\x1b[31m" not in shown
    if text.isprintable():
        assert shown.count(text) == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_a_page_holds_text_alone(text):
    shown = page(text, text, "", "", text, [{"text": text}])
    assert "<img" not in shown
    assert "<script>alert" not in shown
    assert "<" not in script_json(text)
