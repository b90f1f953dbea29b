"""Examples shown in a report."""

from fit_jax.evaluation.examples import EXAMPLES_PER_CELL, choose_examples


def test_the_page_holds_both_right_and_wrong_answers_of_a_cell(evaluation):
    records, _ = choose_examples(evaluation.queries, evaluation.predictions, lambda q: "")
    cell = [r for r in records if (r["split"], r["focus"], r["paraphrases"]) == ("iid", "none", "train")]
    assert {r["label"] == r["prediction"] for r in cell} == {True, False}
    assert len(cell) <= EXAMPLES_PER_CELL
