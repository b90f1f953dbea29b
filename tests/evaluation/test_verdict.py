"""The two sentences that the numbers give."""

import re
from dataclasses import replace

import pytest

from fit_jax.evaluation.metrics import kind_of
from fit_jax.evaluation.statistics import Mean
from fit_jax.evaluation.verdict import Following, following, methods_verdict, run_verdict, telling

from .chosen_answers import evaluated, y, y_s


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


def test_answers_that_ignore_the_instruction_are_none_that_follow_it_however_many_there_are(task):
    """Of three answers, y to every other text and y_s to the rest is right more often than by chance on both sides."""
    examples = [replace(e, candidates=(*e.candidates, "neither")) for e in task.splits["iid"].examples]
    of_three = replace(task, splits={"iid": replace(task.splits["iid"], examples=examples)})

    def blind(query) -> int:
        return y(query) if int(query.example.uid[-1]) % 2 else y_s(query)

    found = following(evaluated(of_three, blind).predictions)
    assert found is not None
    assert (
        min(found.core.share_interval()[0], found.spurious.share_interval()[0]) > found.chance == pytest.approx(1 / 3)
    )
    assert found.both.value == pytest.approx(0.5)
    text = run_verdict(evaluated(of_three, blind).predictions)
    assert "sometimes y and sometimes y_s, no more often what the instruction asks for than the other: 0.5" in text
    mostly = following(evaluated(of_three, lambda q: q.label if int(q.example.uid[-1]) > 2 else blind(q)).predictions)
    assert mostly is not None
    assert mostly.judgement == "follows the focus instruction in part"


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


def test_what_both_sides_come_to_is_of_texts_asked_for_both_each_side_counting_half(task):
    """However many types ask for y, and in whatever clusters the texts lie."""
    found = evaluated(task, lambda q: q.label if kind_of(q.focus) == "core" else 1 - q.label).predictions
    sides = following(found)
    assert sides is not None
    assert (sides.core.value, sides.spurious.value, sides.both.value) == (1, 0, 0.5)
    ends = [p for p in telling(found) if p.uid.endswith("/0")]
    less = following([p for p in found if p not in ends or kind_of(p.focus) == "core"])
    assert less is not None
    assert less.examples == sides.examples - len({p.uid for p in ends}) == less.spurious.examples
    apart = [p for p in found if (kind_of(p.focus) == "core") == p.uid.endswith("/0")]
    assert following(apart) is None
    half = evaluated(task, lambda q: q.label if int(q.example.uid[-1]) % 2 else 1 - q.label).predictions
    alone, together = following(half), following([replace(p, cluster=p.uid[-1]) for p in half])
    assert alone is not None
    assert together is not None
    assert together.both.variance > 2 * alone.both.variance


def test_too_little_to_tell_is_no_answer_without_regard_to_the_instruction(task):
    """Two seeds have one degree of freedom: nearly all right may still not be known."""
    of_three = Mean(0.96, 0.002, 1, 2, 100)
    sure = Mean(0.96, 0.0001, 99, 1, 100)
    assert Following(sure, sure, sure, 1 / 3).judgement == "follows the focus instruction"
    assert "too uncertainly to tell" in Following(sure, sure, of_three, 1 / 3).judgement
    blind = Mean(0.5, 0.0001, 99, 1, 100)
    assert "sometimes y and sometimes y_s" in Following(sure, sure, blind, 1 / 3).judgement
    for count, told in ((29, "too little"), (30, "follows")):
        assert told in Following(sure, sure, sure._replace(examples=count), 1 / 3).judgement
