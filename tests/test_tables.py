"""Tables: marks of few examples, and a structure that a screen reader can tell."""

import re

from fit_jax.html import FEW_NOTE
from fit_jax.tables import Code, Table, marked, share, share_in

TABLE = Table(
    "Accuracy",
    "How it went with rho.",
    ("focus instruction", "iid", "shifted_low"),
    ((Code("focus(core)"), "0.900 [0.800, 0.950]", share_in(0.5, 0.1, 0.9, 4)), ("always y", "0.5", "0.5")),
    aside=1,
)


def test_shares_of_few_examples_are_marked_and_the_mark_is_explained():
    assert [share(0.5, n) for n in (29, 30, None)] == ["0.500 †", "0.500", "0.500"]
    assert share(None) == ""
    assert marked("x", 1) == "x †"
    assert TABLE.note == FEW_NOTE
    for text in (TABLE.markdown(), TABLE.html(), TABLE.latex()):
        assert "too few to mean something" in text
    many = Table("t", "c", ("a", "b"), (("x", share(0.5, 30)),))
    assert many.note == ""
    assert "too few" not in many.markdown()


def test_markdown_has_code_numbers_and_alignment():
    lines = TABLE.markdown().splitlines()
    assert lines[0] == "## Accuracy"
    assert lines[4:7] == [
        "| focus instruction | iid | shifted_low |",
        "| --- | ---: | ---: |",
        "| `focus(core)` | 0.900 [0.800, 0.950] | 0.500 [0.100, 0.900] † |",
    ]


def test_html_has_a_heading_a_caption_and_scopes():
    text = TABLE.html()
    (identity,) = re.findall('<h2 id="([^"]+)">Accuracy</h2>', text)
    assert f'aria-labelledby="{identity}"' in text
    assert text.count("<caption>Accuracy</caption>") == 1
    assert len(re.findall('<th scope="col"', text)) == 3
    assert len(re.findall('<th scope="row"', text)) == 2
    assert len(re.findall(r'<td [^>]*data-label="(?:iid|shifted_low)"', text)) == 4  # what a narrow page shows beside
    assert '<tr role="row" class="aside">' in text


def test_words_are_explained_once_in_a_table_and_by_the_keyboard():
    buttons = re.findall(
        r'<button type="button" class="word" aria-describedby="(word-\w+)">([^<]+)</button>', TABLE.html()
    )
    assert buttons == [
        ("word-rho", "rho"),
        ("word-few", "†"),
        ("word-iid", "iid"),
        ("word-shifted", "shifted"),
        ("word-low", "low"),
        ("word-core", "core"),
    ]


def test_latex_escapes_its_special_characters():
    text = Table("title", "5 % of y_s & ~^\\", ("x", "y"), (("{1}", "0.5 ± 0.1"),), name="a_b").latex()
    assert r"5 \% of y\_s \& \textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert r"\{1\} & 0.5 $\pm$ 0.1 \\" in text
    assert r"\label{tab:a-b}" in text
