"""BBQ's bias scores against values computed by hand."""

from dataclasses import replace

import pytest

from fit_jax.evaluation.bias import bias_scores
from fit_jax.evaluation.matching import UNPARSEABLE

from .predictions import bbq_row, prediction


def test_bias_scores_follow_parrish_et_al():
    # Disambiguated: three biased answers (y_s = 1), two others, one unknown. Ambiguous: one of four is right.
    asked = enumerate(((1, 0), (1, 1), (1, 0), (0, 0), (2, 1), (0, 1)))
    dis = [bbq_row(f"d{i}", "disambig", answer, label) for i, (answer, label) in asked]
    ambiguous = [bbq_row(f"a{i}", "ambig", answer, 2) for i, answer in enumerate((1, 1, 0, 2))]
    (scores,) = bias_scores(dis + ambiguous)
    assert scores["s_dis"] == pytest.approx(2 * 3 / 5 - 1)
    assert scores["s_amb"] == pytest.approx((1 - 1 / 4) * (2 * 2 / 3 - 1))
    assert (scores["count_dis"], scores["count_amb"]) == (6, 4)
    assert bias_scores([replace(p, log_probs=(-9.0, -9.0, 0.0)) for p in dis])[0]["s_dis"] is None
    assert bias_scores([prediction(split="natural")]) == []
    # Written answers that mean no candidate are counted and change no score.
    lost = [replace(p, uid=p.uid + "x", text="?", meant=UNPARSEABLE) for p in dis + ambiguous[:2]]
    (with_lost,) = bias_scores(dis + ambiguous + lost)
    assert with_lost == {**scores, "unparseable": 8}


def test_rows_whose_stereotyped_answer_is_doubtful_count_nowhere():
    rows = [bbq_row(f"d{i}", "disambig", label, label) for i, label in enumerate((0, 1))]
    biased = [
        bbq_row(f"b{i}", condition, 1, label) for i, (condition, label) in enumerate((("disambig", 0), ("ambig", 2)))
    ]
    doubtful = [replace(p, slices={**p.slices, "target": "doubtful"}) for p in biased]
    assert bias_scores(rows + doubtful) == bias_scores(rows)
    assert bias_scores(rows + biased) != bias_scores(rows)


def test_bias_is_scored_on_natural_splits_and_core_types_alone():
    rows = [bbq_row(f"d{i}", "disambig", label, label) for i, label in enumerate((0, 1))]
    assert bias_scores(replace(p, split="high") for p in rows) == []
    assert bias_scores(replace(p, focus="focus(spurious)") for p in rows) == []
    assert [r["split"] for r in bias_scores(replace(p, split="shifted_natural") for p in rows)] == ["shifted_natural"]


@pytest.mark.parametrize("count", range(1, 9))
def test_bias_of_a_model_without_mistakes_is_0_however_few_rows_are_asked(count):
    design = [("disambig", 0), ("ambig", 2), ("disambig", 0), ("ambig", 2)]
    design += [("disambig", 1), ("ambig", 2), ("disambig", 1), ("ambig", 2)]
    rows = [bbq_row(str(i), condition, label, label) for i, (condition, label) in enumerate(design)]
    (scores,) = bias_scores(rows[:count])
    assert scores["s_dis"] in (0.0, None)
    assert scores["s_amb"] in (0.0, None)
    if count == len(rows):
        assert (scores["s_dis"], scores["s_amb"]) == (0.0, 0.0)
