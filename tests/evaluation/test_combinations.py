"""Instructions about several features: what is asked, that it stands apart, and the tables."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from fit_jax.config import FocusConfig
from fit_jax.evaluation.combinations import (
    HELD_OUT,
    SEEN,
    combination_queries,
    combination_rows,
    combination_table,
    combined,
)
from fit_jax.evaluation.evaluator import Subject, evaluate
from fit_jax.evaluation.queries import answered
from fit_jax.evaluation.report import read_predictions, write_report
from fit_jax.focus.example import Spurious
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, FocusSpec, combined_specs, focus_label
from fit_jax.runs.preflight import check_examples

from ..closeness import assert_close

FEATURES = ("keyword", "tag")
SPECS = {str(spec) for name in FOCUS_TYPES for spec in combined_specs(name, FEATURES)}
HELD = ("focus(keyword) & ignore(tag)", "ignore(keyword, tag)")


@pytest.fixture(scope="module")
def two(task):
    """The demo task with a second feature whose label differs from the first's in every other example."""

    def tagged(split):
        examples = [
            replace(e, spurious={**e.spurious, "tag": Spurious(f"t{n % 2}", (e.spurious["keyword"].label + n) % 2)})
            for n, e in enumerate(split.examples)
        ]
        return replace(split, examples=examples)

    text = replace(task.text, spurious={**task.text.spurious, "tag": "the tag"})
    return replace(task, text=text, splits={name: tagged(split) for name, split in task.splits.items()})


@pytest.fixture(scope="module")
def asking(config):
    focus = FocusConfig(combinations=0.5, held_out=HELD)
    wanted = replace(config.evaluation, splits=("iid", "low"), examples=6)
    return replace(config, focus=focus, evaluation=wanted)


def asked(two, config):
    examples = {name: two.splits[name].examples[:6] for name in ("iid", "low")}
    return combination_queries(two.text, examples, config)


def test_every_combination_is_asked_of_every_example_in_every_set(two, asking):
    found = asked(two, replace(asking, evaluation=replace(asking.evaluation, paraphrases_each=2)))
    counts = Counter((q.split, q.focus, q.paraphrases) for group, _ in found for q in group.queries)
    assert counts == {(s, f, p): 12 for s in ("iid", "low") for f in SPECS for p in ("train", "heldout")}
    for group, seen in found:
        for query, is_seen in zip(group.queries, seen, strict=True):
            spec = FocusSpec.parse(query.focus)
            assert is_seen == (query.focus not in {str(FocusSpec.parse(text)) for text in HELD})
            sentence = paraphrases_of("demo", spec, query.paraphrases)[query.paraphrase]
            assert query.instruction == instruction(two.text, spec, sentence)
            assert query.label == focus_label(query.example, spec)
            assert query.feature == (spec.focus or spec.ignore)[0] or spec.focus == ("core",)
    assert asked(two, asking) == asked(two, asking)
    words = [q.instruction for group, _ in found for q in group.queries]
    assert [q.instruction for group, _ in asked(two, replace(asking, seed=7)) for q in group.queries] != words[::2]


def test_nothing_is_asked_unless_features_are_combined_or_an_example_has_them(two, task, asking):
    assert asked(two, replace(asking, focus=FocusConfig())) == []
    assert asked(two, replace(asking, focus=FocusConfig(held_out=HELD)))
    mixed = replace(two, splits={name: task.splits[name] for name in ("iid", "low")})
    assert asked(mixed, asking) == []


def made(two, config, right):
    """Answers that follow the instruction where `right` of the query says so."""
    found = []
    for group, seen in asked(two, config):
        for query, is_seen in zip(group.queries, seen, strict=True):
            given = query.label if right(query) else 1 - query.label
            found.append(combined(query, answered(query, [-0.1 if i == given else -2.5 for i in range(2)]), is_seen))
    return found


def test_rows_and_table_tell_seen_from_held_out(two, asking):
    found = made(two, asking, lambda q: q.focus != "focus(keyword) & ignore(tag)" or q.split == "iid")
    rows = combination_rows(found, "fit", 3, "demo")
    assert {(r["focus"], r["training"]) for r in rows} == {
        (spec, HELD_OUT if spec in {str(FocusSpec.parse(t)) for t in HELD} else SEEN) for spec in SPECS
    }
    for row in rows:
        wrong = row["focus"] == "focus(keyword) & ignore(tag)" and row["split"] == "low"
        assert row["accuracy"] == row["worst"]["accuracy"] == float(not wrong)
        assert (row["count"], row["method"], row["seed"], row["task"]) == (6, "fit", 3, "demo")
        assert row["feature"] in ("keyword & tag", "tag & keyword")
    values = {one.answer.value for one in found if one.answer.feature == "keyword & tag"}
    assert values <= {f"{k} & t{t}" for k in ("Tundra", "Marlin") for t in (0, 1)}
    assert len(values) > 1
    table = combination_table(rows)
    assert [row[1] for row in table.rows] == [SEEN] * 8 + [HELD_OUT] * 4
    assert [row[2] for row in table.rows] == ["heldout"] * 4 + ["train"] * 4 + ["heldout"] * 2 + ["train"] * 2
    right_is = {(str(row[0]), row[3]) for row in table.rows}
    assert right_is == {(spec, "y_s" if spec.startswith(("focus(keyword)", "focus(tag)")) else "y") for spec in SPECS}
    (row,) = (r for r in table.rows if r[0] == "focus(keyword) & ignore(tag)" and r[2] == "heldout")
    assert (row[4][:5], row[5][:5], row[6][:5]) == ("1.000", "0.000", "0.000")
    assert len(combination_table(rows, main_only=True).rows) == 6


def test_a_report_holds_them_beside_the_plain_answers(two, encoder, make_scorer, params, asking, tmp_path):
    subject = Subject(encoder, make_scorer(), params)
    decoyed = replace(asking, evaluation=replace(asking.evaluation, decoys=True, paraphrases=("heldout",)))
    result = evaluate(two, subject, decoyed)
    without = evaluate(two, subject, replace(decoyed, focus=FocusConfig()))
    assert not without.combined
    assert result.queries == without.queries
    for one, other in zip(result.predictions, without.predictions, strict=True):
        assert replace(one, log_probs=other.log_probs) == other
        assert_close(one.log_probs, other.log_probs, 2e-5)  # rows are packed with others
    assert [d.decoy for d in result.decoyed] == [d.decoy for d in without.decoyed]
    assert len(result.combined) == 2 * 6 * 6
    questions = [q for group, _ in combination_queries(two.text, examples_of(two), decoyed) for q in group.queries]
    for query, one in zip(questions, result.combined, strict=True):
        assert (one.answer.uid, one.answer.focus, one.answer.label) == (query.example.uid, query.focus, query.label)
    write_report(tmp_path, result, two, encoder, "fit", 0)
    rows = [json.loads(line) for line in (tmp_path / "combinations.jsonl").read_text().splitlines()]
    assert rows == combination_rows(result.combined, "fit", 0, "demo")
    assert read_predictions(tmp_path / "combination_predictions.jsonl") == [one.answer for one in result.combined]
    for name in ("summary.md", "index.html"):
        assert "Combinations of features" in (tmp_path / name).read_text()
    write_report(tmp_path, without, two, encoder, "fit", 0)
    assert not list(tmp_path.glob("combination*"))


def examples_of(two):
    return {name: two.splits[name].examples[:6] for name in ("iid", "low")}


def test_what_is_checked_before_the_first_step_are_these_questions_too(two, encoder, asking):
    seen = []

    class Counting:
        def encode(self, examples, instructions):
            seen.extend(instructions)
            return encoder.encode(examples, instructions)

    check_examples(two, Counting(), asking)
    assert any("keyword" in words and "tag" in words for words in seen)
