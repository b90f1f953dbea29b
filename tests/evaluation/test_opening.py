"""What a report opens with: one text under its instructions, and two sentences that the numbers give."""

import re
from dataclasses import replace

import pytest

from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.metrics import kind_of, worst_groups
from fit_jax.evaluation.opening import answers_to, choose_opening, opening_html
from fit_jax.evaluation.queries import answered, ask
from fit_jax.evaluation.verdict import following, methods_verdict, run_verdict
from fit_jax.focus.spec import FOCUS_TYPES

COPIES = 10


def evaluated(task, choose, copies: int = COPIES) -> Evaluation:
    """Answers to texts of `iid`; `choose` gives the index of the answer to a query."""
    found = Evaluation([], [])
    for example in task.splits["iid"].examples:
        for n in range(copies):
            copy = replace(example, uid=f"{example.uid}/{n}", cluster=f"{example.source}/{n}")
            for query in ask(task.text, "iid", copy, ("train", "heldout"), 0).queries:
                found.queries.append(query)
                found.predictions.append(answered(query, [-0.1 if i == choose(query) else -2.5 for i in range(2)]))
    return found


def y(query) -> int:
    return query.example.label


def y_s(query) -> int:
    return query.example.spurious[query.feature].label


@pytest.fixture(scope="module")
def obedient(task) -> Evaluation:
    return evaluated(task, lambda q: q.label)


def test_the_text_is_the_first_that_tells_whatever_was_answered(task, obedient):
    opening = choose_opening(obedient.queries, task.text)
    telling = next(e for e in task.splits["iid"].examples if e.label != e.spurious["keyword"].label)
    assert telling.slots["text"] in opening.text
    assert [q.focus for q in opening.queries] == list(FOCUS_TYPES)
    assert {q.paraphrases for q in opening.queries} == {"heldout"}
    assert choose_opening(evaluated(task, y).queries, task.text) == opening
    shifted = [replace(q, split=f"shifted_{q.split}") for q in obedient.queries]
    assert choose_opening(shifted + obedient.queries, task.text) == opening


def test_a_text_on_which_the_labels_agree_is_taken_where_there_is_no_other(task, obedient):
    agreeing = [q for q in obedient.queries if y(q) == y_s(q)]
    opening = choose_opening(agreeing, task.text)
    assert not opening.differ
    assert "differ" not in opening_html(opening, {"answer": answers_to(opening, obedient)})


def test_answers_before_and_after_stand_side_by_side(task, obedient):
    opening = choose_opening(obedient.queries, task.text)
    before, after = answers_to(opening, evaluated(task, y)), answers_to(opening, obedient)
    text = opening_html(opening, {"before tuning": before, "after tuning": after})
    rows = re.findall(r"<tr role=\"row\">(<th scope=\"row\".*?)</tr>", text)
    marks = [re.findall('data-label="(before|after) tuning">(.)', row) for row in rows]
    spurious = [("before", "✗"), ("after", "✓")]
    core = [("before", "✓"), ("after", "✓")]
    assert marks == [spurious if kind_of(focus) == "spurious" else core for focus in FOCUS_TYPES]
    assert f"{opening.text[:20]}" in text


@pytest.mark.parametrize(
    ("choose", "says"),
    [
        (lambda q: q.label, "the model follows the focus instruction: 1.000 of the answers are y where y is asked for"),
        (y, "answers with the true label y even where the instruction asks for y_s"),
        (y_s, "answers with y_s even where the instruction asks for the true label y"),
        (lambda q: 1 - q.label, "the model does not follow the focus instruction: 0.000"),
        (lambda q: q.label if int(q.example.uid[-1]) > 1 else 1 - q.label, "follows the focus instruction in part"),
    ],
)
def test_the_verdict_says_what_happened_good_or_bad(task, choose, says):
    text = run_verdict(evaluated(task, choose).predictions)
    assert says in text
    assert len(re.findall(r"\.(?: |$)", text)) == 2  # sentences


def test_the_verdict_names_the_worst_cell_beside_what_reading_nothing_reaches(task):
    def fails(query) -> int:
        return 1 - query.label if query.focus == "ignore(spurious)" else query.label

    text = run_verdict(evaluated(task, fails).predictions)
    assert re.search(
        r"worst under ignore\(spurious\) on the split iid: 0.000 \[0.000, 0.0\d+\] of 100 examples, below", text
    )


def test_few_examples_get_no_verdict(task):
    text = run_verdict(evaluated(task, lambda q: q.label, copies=1).predictions)
    assert "too little to tell" in text
    assert "No cell of the tables has 30 examples" in text
    plain = [p for p in evaluated(task, y).predictions if kind_of(p.focus) == "core"]
    assert run_verdict(plain).startswith("Nothing was asked in which y and y_s differ")


def test_an_experiment_is_judged_by_its_reference_and_the_best_of_the_others(task, obedient):
    found = {"FIT": following(obedient.predictions), "SFT(y)": following(evaluated(task, y).predictions)}
    text = methods_verdict(found, "FIT")
    assert "FIT follows the focus instruction (one seed)" in text
    assert "SFT(y) comes closest: 1.000 of the answers are y where y is asked for, 0.000 are y_s" in text
    assert "FIT does better: 1.000" in methods_verdict(found, "SFT(y)")
    assert "No method is judged" in methods_verdict({}, "FIT")


def test_a_worst_group_of_few_examples_does_not_outdo_one_that_means_something(obedient):
    one = next(p for p in obedient.predictions if p.focus == "none")
    wrong = replace(one, uid="alone", value="rare", log_probs=one.log_probs[::-1])
    rows = [r for r in worst_groups([*obedient.predictions, wrong]) if (r["focus"], r["split"]) == ("none", "iid")]
    groups = {(p.value, p.group) for p in obedient.predictions}
    enough = any(len({p.uid for p in obedient.predictions if (p.value, p.group) == group}) >= 30 for group in groups)
    assert enough
    assert all(r["value"] != "rare" and r["count"] >= 30 for r in rows)
