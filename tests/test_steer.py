"""The command that asks one text: what is given reaches the questions, and what looks wrong is noted first."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fit_jax import steer
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Subject
from fit_jax.focus.spec import FOCUS_TYPES, spec_for
from fit_jax.parallel import processes
from fit_jax.runs import run, run_folder


def score(params, groups):
    """The second of two answers, whatever is asked."""
    return ([SimpleNamespace(log_prob=np.log([0.25, 0.75])) for _ in group] for group in groups)


SURE = SimpleNamespace(score=score)


@pytest.fixture
def steered(task, config, encoder, monkeypatch, capsys, tmp_path):
    """What the command prints of a run whose texts come by phone or by mail, and which checkpoint it reads."""
    split = task.splits["validation"]
    examples = [replace(e, slots={**e.slots, "way": ("phone", "mail")[n % 2]}) for n, e in enumerate(split.examples)]
    text = replace(task.text, input_template="{way}: {text}")
    shown = replace(task, text=text, splits={"validation": replace(split, examples=examples * 10)})
    asked = []

    def subject(run, checkpoint):
        asked.append(checkpoint)
        return Subject(encoder, SURE, None)

    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(run_folder, "opened_config", lambda folder, options: config)
    monkeypatch.setattr(processes, "start", lambda mesh: None)
    monkeypatch.setattr(run, "set_up", lambda config, **given: SimpleNamespace(task=shown))
    monkeypatch.setattr(run, "subject", subject)

    def ask(*options):
        assert not steer.main([str(tmp_path), "--slot", "text=a bad lamp", *options])
        return capsys.readouterr().out, asked.pop()

    return ask


def test_what_is_asked_is_what_was_given(steered):
    printed, checkpoint = steered("--slot", "way=mail", "--focus", "keyword", "--ignore", "core")
    assert "focus(keyword) & ignore(core)" in printed
    assert "0.250" in printed
    assert ("focus(core)" in printed, "note:" in printed, checkpoint) == (False, False, "best")
    printed, checkpoint = steered(
        "--slot", "way=mail", "--candidate", "dull", "--candidate", "fine", "--checkpoint", "20"
    )
    assert "p(dull)" in printed
    assert all(str(spec_for(focus, "keyword")) in printed for focus in FOCUS_TYPES)
    assert checkpoint == 20


def test_a_value_that_no_row_has_is_noted_before_the_answers(steered):
    printed, _ = steered("--slot", "way=mial", "--focus", "core")
    note = printed.index("note: way: 'mial' is in no row of the data that the run keeps; did you mean 'mail'?")
    assert note < printed.index("focus(core)")


def test_no_model_is_read_for_a_wrong_question(steered, capsys):
    for options, message in (
        ((), "no text for way"),
        (("--text", "a"), "--text and --slot: give the text once"),
        (("--slot", "way"), "--slot 'way': holds no text"),
        (("--slot", "way= = ", "--slot", "weg=mail"), "'weg' is no text of the input"),
    ):
        with pytest.raises(InputError, match=message):
            steered(*options, "--focus", "core")


def test_a_text_may_hold_what_parts_it_from_its_name(steered):
    printed, _ = steered("--slot", "way=a = b", "--focus", "core")
    assert "note: way: 'a = b' is in no row" in printed
