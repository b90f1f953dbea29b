"""Markdown that shows text as it is."""

import pytest

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
