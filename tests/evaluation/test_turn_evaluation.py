"""Questions after earlier turns: what is asked, that the plain answers stay, and the rate of persistence."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Subject, evaluate, evaluated_splits
from fit_jax.evaluation.queries import answered, ask
from fit_jax.evaluation.report import write_report
from fit_jax.evaluation.turn_evaluation import KINDS, Earlier, Turned, persistence, turn_queries, turn_table
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, focus_label, spec_for

from ..closeness import assert_close


def test_each_type_with_an_instruction_is_asked_once_after_turns_that_are_answered_as_they_ask(task, asked):
    found = turn_queries(task.text, asked, 0)
    instructed = FOCUS_TYPES[1:]
    assert Counter((q.split, q.focus) for _, q, _ in found) == {(s, f): 30 for s in ("iid", "low") for f in instructed}
    assert sorted(e for *_, e in found) == sorted(e for *_, e in turn_queries(task.text, asked[::-1], 0))
    assert {e.kind for *_, e in found} == set(KINDS)
    specs = {
        instruction(task.text, spec_for(f, "keyword"), p): spec_for(f, "keyword")
        for f in instructed
        for p in paraphrases_of("demo", f, "heldout")
    }
    for plain, query, earlier in found:
        assert query == replace(plain, example=replace(plain.example, earlier=earlier.turns))
        labels = [focus_label(plain.example, specs[turn.instruction]) for turn in earlier.turns]
        assert [turn.answer for turn in earlier.turns] == [plain.example.candidates[label] for label in labels]
        assert labels[-1] == earlier.label
        y, y_s = plain.example.label, plain.example.spurious["keyword"].label
        contrary = {y, y_s} - {plain.label} or {y}
        assert labels == [min(contrary) if other else plain.label for other in KINDS[earlier.kind]]


def test_splits_without_any_are_refused(task, config):
    wanted = replace(config.evaluation, turns=True, splits=("high",))
    with pytest.raises(InputError, match=r"evaluation\.turns: they are asked on iid, low and flipped"):
        evaluated_splits(task, replace(config, evaluation=wanted))


def answer(query, label):
    return answered(query, [-0.1 if i == label else -2.5 for i in range(2)])


def test_persistence_is_the_share_of_the_earlier_answers_where_they_differ(task):
    groups = [ask(task.text, "low", e, ("heldout",), 0) for e in task.splits["low"].examples]
    found = [
        Turned(e, answer(q, e.label if e.kind == "contradicting" else q.label), answer(plain, plain.label))
        for plain, q, e in turn_queries(task.text, groups, 0)
    ]
    rows = {(r["by"], r["value"]): r for r in persistence(found, "fit", 0, "demo")}
    for kind, persisted in (("contradicting", 1.0), ("three turns", 0.0)):
        row = rows["kind", kind]
        assert (row["persistence"], row["persistence_plain"], row["accuracy_plain"]) == (persisted, 0.0, 1.0)
    assert rows["kind", "same"]["telling"] == 0
    assert rows["kind", "same"]["persistence"] is None
    assert 0 < rows["all", "all"]["persistence"] < 1
    assert [r for r in rows if r[0] == "focus"] == [("focus", f) for f in FOCUS_TYPES[1:]]
    assert len(turn_table(list(rows.values())).rows) == len(rows)


def test_a_report_holds_them_beside_the_plain_answers(task, encoder, make_scorer, params, config, tmp_path):
    wanted = replace(config.evaluation, splits=("iid",), paraphrases=("heldout",), examples=4, turns=True, decoys=True)
    subject = Subject(encoder, make_scorer(), params)
    result = evaluate(task, subject, replace(config, evaluation=wanted))
    without = evaluate(task, subject, replace(config, evaluation=replace(wanted, decoys=False, turns=False)))
    assert result.queries == without.queries
    for one, other in zip(result.predictions, without.predictions, strict=True):
        assert replace(one, log_probs=other.log_probs) == other
        assert_close(one.log_probs, other.log_probs, 2e-5)
    assert len(result.turned) == 4 * 5
    assert len(result.decoyed) == 4 * 6
    for earlier, given, plain in result.turned:
        assert isinstance(earlier, Earlier)
        assert given.log_probs != plain.log_probs
        assert replace(given, log_probs=plain.log_probs) == plain
    write_report(tmp_path, result, task, encoder, "fit", 0)
    figures = [json.loads(line) for line in (tmp_path / "turns.jsonl").read_text().splitlines()]
    assert figures == persistence(result.turned, "fit", 0, "demo")
    kept = [json.loads(line) for line in (tmp_path / "turn_predictions.jsonl").read_text().splitlines()]
    assert [k["earlier"]["label"] for k in kept] == [t.earlier.label for t in result.turned]
    assert "Several instructions in one conversation" in (tmp_path / "index.html").read_text()
    write_report(tmp_path, without, task, encoder, "fit", 0)
    assert not (tmp_path / "turns.jsonl").exists()
    assert not (tmp_path / "turn_predictions.jsonl").exists()
