"""Decoys in an evaluation: what is asked, that it stands beside the plain answers, and the obedience rate."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from fit_jax.errors import InputError
from fit_jax.evaluation.asked_again import splits_asked_again
from fit_jax.evaluation.decoy_evaluation import (
    KINDS,
    Decoy,
    Decoyed,
    decoy_queries,
    decoy_table,
    obedience,
)
from fit_jax.evaluation.evaluator import Subject, evaluate, evaluated_splits
from fit_jax.evaluation.queries import answered, ask
from fit_jax.evaluation.report import write_report
from fit_jax.focus.decoy_text import PLACES, insert_decoy
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, focus_label, spec_for

from ..closeness import assert_close


def test_each_type_is_asked_once_with_a_held_out_decoy_in_its_text(task, asked):
    found = decoy_queries(task.text, asked, 0)
    assert Counter((q.split, q.focus) for _, q, _ in found) == {(s, f): 30 for s in ("iid", "low") for f in FOCUS_TYPES}
    turned = decoy_queries(task.text, asked[::-1], 0)  # whatever else is asked
    assert sorted(d for *_, d in found) == sorted(d for *_, d in turned)
    assert {d.kind for *_, d in found} == set(KINDS)
    assert {d.place for *_, d in found} == set(PLACES)
    sentences = {
        instruction(task.text, spec_for(f, "keyword"), p)
        for f in FOCUS_TYPES
        for p in paraphrases_of("demo", f, "heldout")
    }
    for plain, query, decoy in found:
        assert query.example.slots["text"] == insert_decoy(plain.example.slots["text"], decoy.words, decoy.place)
        assert replace(query, example=plain.example) == plain
        assert plain.paraphrases == "heldout"
        assert decoy.words.strip('"') in sentences
        assert decoy.words.startswith('"') == (decoy.kind == "quoted")
        y, y_s = plain.example.label, plain.example.spurious["keyword"].label
        assert {decoy.label, plain.label} == ({plain.label} if decoy.kind == "same" else {y, y_s})
        if plain.instruction:
            assert (decoy.words == plain.instruction) == (decoy.kind == "same")
        if plain.focus == "focus(core)" and decoy.kind != "same":  # in the same words about the other feature, or not
            swapped = decoy.words.replace(task.text.spurious["keyword"], task.text.core)
            assert (swapped == plain.instruction) == (decoy.kind == "contradicting")


def test_the_words_ask_for_the_label(task, asked):
    spec_of = {
        instruction(task.text, spec_for(f, "keyword"), p): spec_for(f, "keyword")
        for f in FOCUS_TYPES
        for p in paraphrases_of("demo", f, "heldout")
    }
    for plain, _, decoy in decoy_queries(task.text, asked, 0):
        assert decoy.label == focus_label(plain.example, spec_of[decoy.words.strip('"')])


def test_splits():
    assert splits_asked_again(["low", "iid", "flipped", "high"]) == ("iid", "low")
    assert splits_asked_again(["flipped", "natural"]) == ("flipped",)


def test_splits_without_any_are_refused(task, config):
    wanted = replace(config.evaluation, decoys=True, splits=("high",))
    with pytest.raises(InputError, match=r"evaluation\.decoys: they are asked on iid, low and flipped"):
        evaluated_splits(task, replace(config, evaluation=wanted))


def made(task, obeys):
    """Answers of a model that is right without decoys; with them it gives the decoy's answer where it `obeys`."""
    groups = [ask(task.text, "low", e, ("heldout",), 0) for e in task.splits["low"].examples]
    return [
        Decoyed(d, answer(q, d.label if obeys(d) else q.label), answer(plain, plain.label))
        for plain, q, d in decoy_queries(task.text, groups, 0)
    ]


def answer(query, label):
    return answered(query, [-0.1 if i == label else -2.5 for i in range(2)])


def test_obedience_is_the_share_of_the_decoys_answers_where_they_differ(task):
    found = made(task, lambda decoy: decoy.place == "end")
    rows = {(r["by"], r["value"]): r for r in obedience(found, "fit", 0, "demo")}
    for place in PLACES:
        row, obeyed = rows["place", place], float(place == "end")
        assert (row["obedience"], row["obedience_plain"], row["accuracy_plain"]) == (obeyed, 0.0, 1.0)
    assert rows["kind", "same"]["telling"] == 0
    assert rows["kind", "same"]["obedience"] is None
    assert rows["kind", "same"]["accuracy"] == 1.0
    telling = [d for d in found if d.decoy.label != d.answer.label]
    assert rows["all", "all"]["telling"] == len({d.answer.uid for d in telling})
    assert 0 < rows["all", "all"]["obedience"] < 1
    assert [r for r in rows if r[0] == "focus"] == [("focus", f) for f in FOCUS_TYPES]
    table = decoy_table(list(rows.values()))
    assert all(row[3].endswith("†") for row in table.rows)  # ten examples


def test_a_report_holds_them_beside_the_plain_answers(task, encoder, make_scorer, params, config, tmp_path):
    wanted = replace(config.evaluation, splits=("iid", "high"), paraphrases=("heldout",), examples=4, decoys=True)
    subject = Subject(encoder, make_scorer(), params)
    result = evaluate(task, subject, replace(config, evaluation=wanted))
    without = evaluate(task, subject, replace(config, evaluation=replace(wanted, decoys=False)))
    assert result.queries == without.queries
    for one, other in zip(result.predictions, without.predictions, strict=True):
        assert replace(one, log_probs=other.log_probs) == other
        assert_close(one.log_probs, other.log_probs, 2e-5)  # rows are packed with others
    assert len(result.decoyed) == 4 * 6
    assert any(d.answer.log_probs != d.plain.log_probs for d in result.decoyed)
    for decoy, given, plain in result.decoyed:
        assert isinstance(decoy, Decoy)
        assert replace(given, log_probs=plain.log_probs) == plain
        assert plain in result.predictions
    write_report(tmp_path, result, task, encoder, "fit", 0)
    figures = [json.loads(line) for line in (tmp_path / "decoys.jsonl").read_text().splitlines()]
    assert figures == obedience(result.decoyed, "fit", 0, "demo")
    kept = [json.loads(line) for line in (tmp_path / "decoy_predictions.jsonl").read_text().splitlines()]
    assert [Decoy(**k["decoy"]) for k in kept] == [d.decoy for d in result.decoyed]
    for name in ("summary.md", "index.html"):
        assert (tmp_path / name).read_text().count("Decoys in the text") >= 1
    write_report(tmp_path, without, task, encoder, "fit", 0)
    assert not (tmp_path / "decoys.jsonl").exists()
    assert not (tmp_path / "decoy_predictions.jsonl").exists()
