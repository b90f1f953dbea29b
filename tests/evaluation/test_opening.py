"""What a report opens with: one text under its instructions, and two sentences that the numbers give."""

import re
from dataclasses import replace

from fit_jax.evaluation.metrics import kind_of, worst_groups
from fit_jax.evaluation.opening import answers_to, choose_opening, opening_html
from fit_jax.focus.spec import FOCUS_TYPES

from .chosen_answers import evaluated, y, y_s


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
    assert "the weights were random" not in text
    assert "Before tuning the weights were random" in opening_html(opening, {"before tuning": before}, True)


def test_a_worst_group_of_few_examples_does_not_outdo_one_that_means_something(obedient):
    one = next(p for p in obedient.predictions if p.focus == "none")
    wrong = replace(one, uid="alone", value="rare", log_probs=one.log_probs[::-1])
    rows = [r for r in worst_groups([*obedient.predictions, wrong]) if (r["focus"], r["split"]) == ("none", "iid")]
    groups = {(p.value, p.group) for p in obedient.predictions}
    enough = any(len({p.uid for p in obedient.predictions if (p.value, p.group) == group}) >= 30 for group in groups)
    assert enough
    assert all(r["value"] != "rare" and r["count"] >= 30 for r in rows)


def test_the_labels_and_what_each_instruction_asks_for_are_told(task, obedient):
    opening = choose_opening(obedient.queries, task.text)
    text = opening_html(opening, {"answer": answers_to(opening, obedient)})
    example = opening.queries[0].example
    value, tied = example.spurious["keyword"]
    true, other = example.candidates[example.label], example.candidates[tied]
    assert f"The true label (y) is {true}; keyword is {value}, which is tied to {other} (y_s)." in text
    asked = re.findall('data-label="asks for">([^<]*)<', text)
    assert asked == [other if kind_of(focus) == "spurious" else true for focus in FOCUS_TYPES]
