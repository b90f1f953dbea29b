"""Text of the data that would be markup, a script or a terminal's command: it is shown, and nothing obeys it."""

import io
import re
from dataclasses import replace

import pytest

from fit_jax.evaluation import result_tables
from fit_jax.evaluation.model_card import model_card
from fit_jax.evaluation.report import write_report
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.foreign import printable
from fit_jax.html import page, script_json
from fit_jax.tables import Table
from fit_jax.terminal import Terminal

from ..hostile_texts import TEXTS
from .hostile_run import FIELDS, HOSTILE, LONG, Markup, hostile_evaluation, hostile_task, without_code

TABLE_ELEMENTS = {
    *(["section", "h2", "p", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "button", "span"])
}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("text", [HOSTILE, LONG, 'x" onmouseover="alert(1)'])
def test_a_table_shows_text_as_it_is_in_every_form(text):
    table = Table(text, text, (text, text), ((text, "1"), (text, text)), name="t")
    markup = Markup(table.html())
    assert {name for name, _ in markup.elements} <= TABLE_ELEMENTS
    labels = {attributes["data-label"] for name, attributes in markup.elements if name == "td"}
    assert {label[:100] for label in labels} == {printable(text)[:100]}
    assert printable(text)[:100] in markup.text
    lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert max(map(len, lines)) < 3000
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, width=400).print(table.terminal())
    assert not re.search("\x1b(?!\\[[0-9;]*m)|\x1b\\[31m|\u202e", out.getvalue())
    latex = table.latex()
    assert not CONTROL.search(latex)
    assert not re.search(r"(?<!\\)[$%#_]", latex)
    assert len({len(re.findall(rf"(?<!\\){brace}", latex)) for brace in "{}"}) == 1


@pytest.mark.parametrize("text", [*TEXTS, HOSTILE])
def test_a_page_holds_text_alone(text):
    markup = Markup(page(text, text, "", [{"prompt": text}], text))
    assert len(markup.named("script")) == 2
    assert not markup.named("img")
    assert "<" not in script_json({"text": [text]})
    assert not CONTROL.search(script_json({"text": [text]}))


@pytest.fixture(scope="module")
def hostile(encoder, tmp_path_factory):
    """The task, its evaluation and the folder of its report."""
    task = hostile_task()
    evaluation, folder = hostile_evaluation(task), tmp_path_factory.mktemp("hostile")
    write_report(folder, evaluation, task, PromptEncoder(encoder.tokenizer, task.text), f"method {HOSTILE}", 0)
    return task, evaluation, folder


def test_the_report_of_a_hostile_run_shows_every_field_and_obeys_none(hostile):
    text = (hostile[2] / "index.html").read_text()
    markup = Markup(text)
    assert len(markup.named("script")) == 2
    for name, attributes in markup.elements:
        assert name not in ("img", "iframe", "link", "object", "base", "a", "form") or attributes.get("id") == "filters"
        for attribute, value in attributes.items():
            assert not attribute.startswith("on"), (name, attribute)
            assert "src" not in attribute
            assert "href" not in attribute or str(value).startswith("#")
    assert not CONTROL.search(text)
    for field in FIELDS:
        assert re.search(rf"{field} (?:\d+ |zero )?(?:&lt;|\\u003c)script", text), field
    assert len(markup.named("svg")) == 1


def test_summary_and_card_of_a_hostile_run_are_no_markup(hostile, config):
    task, evaluation, folder = hostile
    named = replace(config, task=replace(config.task, name=HOSTILE), train=replace(config.train, method=HOSTILE))
    card = model_card(named, task, evaluation.predictions)
    for document in ((folder / "summary.md").read_text(), card.partition("\n---\n")[2]):
        plain = without_code(document)
        assert not re.search(r"<(?!br)", plain)
        assert not re.search(r"(?<!\\)\]\(", plain)
        assert not CONTROL.search(document)
        for table in re.findall(r"(?:^\|.*\n)+", document, flags=re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert len(re.findall("^# ", card, flags=re.MULTILINE)) == 1


def test_the_terminal_table_of_a_hostile_run_obeys_nothing(hostile):
    out = io.StringIO()
    table = result_tables.terminal_table(f"method {HOSTILE}", hostile[1].predictions)
    Terminal(file=out, force_terminal=True, width=200).print(table.terminal())
    assert not re.search("\x1b(?!\\[[0-9;]*m)|\x1b\\[31m|\u202e|\x00", out.getvalue())
