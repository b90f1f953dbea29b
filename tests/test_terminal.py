"""A terminal that shows text as it is."""

import io

import pytest
from rich.table import Table as RichTable

from fit_jax.terminal import Terminal

from .hostile_texts import TEXTS


@pytest.mark.parametrize("text", TEXTS)
def test_a_terminal_shows_text_as_it_is(text):
    out = io.StringIO()
    table = RichTable(title=text)
    table.add_column(text)
    table.add_row(text)
    Terminal(file=out, force_terminal=True, width=400).print(table)
    shown = out.getvalue()
    assert "\x1b]" not in shown
    assert "\x1b[31m" not in shown
    if text.isprintable():
        assert shown.count(text) == 3
