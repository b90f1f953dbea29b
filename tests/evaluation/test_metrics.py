"""Focus metrics against values computed by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.evaluation import metrics
from fit_jax.evaluation.bias import bias_scores
from fit_jax.evaluation.matching import UNPARSEABLE
from fit_jax.evaluation.paraphrase_spread import paraphrase_spreads
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.reference_lines import reference_lines, repeated_splits, speaks_of, without_repeats
from fit_jax.focus.spec import FOCUS_TYPES

CONTRAST = ("focus(core) & ignore(spurious)", "focus(spurious) & ignore(core)")


def prediction(answer=0, label=0, core_label=0, confidence=0.9, candidates=2, **fields) -> Prediction:
    log_probs = [math.log((1 - confidence) / (candidates - 1))] * candidates
    log_probs[answer] = math.log(confidence)
    values = {
        "split": "iid",
        "uid": "a#x",
        "focus": "none",
        "feature": "keyword",
        "paraphrases": "train",
        "paraphrase": 0,
        "value": "x",
        "spurious_label": 1,
        "group": "",
        "slices": {},
        "cluster": fields.get("uid", "a#x"),
        **fields,
    }
    return Prediction(core_label=core_label, label=label, log_probs=tuple(log_probs), **values)


def test_rows_follow_the_schema_and_count_each_cell():
    records = [
        prediction(uid=str(i), answer=int(i == 0), paraphrases=paraphrases)
        for i in range(4)
        for paraphrases in ("train", "heldout")
    ]
    rows = metrics.focus_accuracy(records, "fit", 3, "demo")
    counts = ["count", "correct", "accuracy", "ci_low", "ci_high"]
    keys = ["method", "seed", "task", "split", "focus", "feature", "paraphrases", *counts]
    assert [list(row) for row in rows] == [keys, keys]
    assert rows[0] == {**rows[1], "paraphrases": "train"}
    assert (rows[0]["count"], rows[0]["correct"], rows[0]["accuracy"]) == (4, 3, 0.75)
    assert rows[0]["method"] == "fit"
    assert rows[0]["seed"] == 3


def test_pooled_counts_an_example_once_whatever_its_features():
    one = [prediction(uid=str(i), answer=int(i == 0)) for i in range(4)]
    two = one + [prediction(uid=str(i), answer=int(i == 0), feature="other") for i in range(4)]
    assert metrics.pooled(one) == metrics.pooled(two)


def test_reference_lines_are_what_constant_answers_reach():
    core = [prediction(uid=str(i), label=int(i == 0), core_label=int(i == 0)) for i in range(4)]
    spurious = [prediction(uid=str(i), label=1, core_label=0, focus="focus(spurious)", split="low") for i in range(4)]
    assert reference_lines(core + spurious) == {
        "an answer at random": {"iid": 0.5, "low": 0.5},
        "always the commonest y (core types)": {"iid": 0.75},
        "always the commonest y_s (spurious types)": {"low": 1.0},
        "always y_s (core types)": {"iid": 0.25},
        "always y (spurious types)": {"low": 0.0},
    }
    assert "always y_s (core types)" not in reference_lines([prediction(feature="")])


def test_reference_lines_of_bbq_name_the_unknown_answer():
    def row(label, condition):
        slices = {"unknown": "2", "condition": condition}
        return prediction(label=label, core_label=label, slices=slices, candidates=3, split="natural")

    lines = reference_lines([row(2, "ambig"), row(0, "disambig"), row(0, "disambig"), row(1, "disambig")])
    assert lines["always unknown (core types)"] == {"natural": 0.25}
    assert lines["unknown if ambiguous, else a coin (core types)"] == {"natural": 0.625}
    assert lines["always y_s (core types)"] == {"natural": 0.25}


def test_a_reference_line_speaks_of_the_types_that_it_names():
    lines = ("an answer at random", "always y_s (core types)", "always y (spurious types)")
    assert [[speaks_of(line, kind) for line in lines] for kind in ("core", "spurious")] == [
        [True, True, False],
        [True, False, True],
    ]


def test_flipped_repeats_low_where_there_are_two_answers():
    def split(name, agreeing, candidates=2, **fields):
        return [
            prediction(uid=str(i), split=name, core_label=int(i < agreeing), candidates=candidates, **fields)
            for i in range(10)
        ]

    asked = split("high", 9) + split("low", 1) + split("flipped", 1)
    assert repeated_splits(asked) == {"flipped": "low"}
    assert {p.split for p in without_repeats(asked)} == {"high", "low"}
    assert repeated_splits(split("shifted_low", 1) + split("shifted_flipped", 1)) == {"shifted_flipped": "shifted_low"}
    assert repeated_splits(split("low", 1) + split("flipped", 2)) == {}
    assert repeated_splits(split("low", 1, 3) + split("flipped", 1, 3)) == {}
    assert repeated_splits(split("flipped", 1)) == {}


def test_an_examples_paraphrases_count_once_and_clusters_widen_the_interval():
    alone = [prediction(uid=str(i), answer=i % 2) for i in range(20)]
    twice = [replace(p, paraphrase=n) for p in alone for n in (0, 1)]
    assert metrics.pooled(twice) == metrics.pooled(alone)
    together = [replace(p, cluster=str(int(p.uid) // 10 * 2 + p.prediction)) for p in alone]
    rows = [metrics.focus_accuracy(asked, "fit", 0, "demo")[0] for asked in (alone, together)]
    assert rows[0]["accuracy"] == rows[1]["accuracy"]
    assert rows[1]["ci_high"] - rows[1]["ci_low"] > 1.5 * (rows[0]["ci_high"] - rows[0]["ci_low"])


def test_the_spread_over_paraphrases_tells_chance_from_wording():
    def asked(wrong_in, of=40):
        """Right but for the paraphrases 2 and 3, in which so many examples in ten are answered wrongly."""
        return [
            prediction(uid=str(i), focus="focus(core)", paraphrase=i % 4, answer=int(i % 4 > 1 and i // 4 < wrong_in))
            for i in range(of)
        ]

    (spread,) = paraphrase_spreads(asked(6)).values()
    assert {n: mean.value for n, mean in spread.accuracy.items()} == {0: 1.0, 1: 1.0, 2: 0.4, 3: 0.4}
    assert spread.worst == 2
    assert spread.deviation == pytest.approx(np.sqrt(0.12 - 0.5 * 0.24 / 9))
    # One of ten wrong in half of the paraphrases is what chance does too.
    assert paraphrase_spreads(asked(1))["train", "focus(core)"].deviation == pytest.approx(0, abs=0.05)
    assert paraphrase_spreads([prediction()]) == {}  # the type `none` has no wording
    assert paraphrase_spreads([prediction(focus="focus(core)")])["train", "focus(core)"].deviation is None


def test_worst_group_is_the_weakest_pair_of_value_and_answer():
    records = [
        prediction(
            uid=f"{value}{label}{i}",
            value=value,
            label=label,
            core_label=label,
            group=("no", "yes")[label],
            answer=label if i or value == "x" else 1 - label,
        )
        for value in ("x", "z")
        for label in (0, 1)
        for i in range(4 - label)
    ]
    (row,) = metrics.worst_groups(records)
    assert (row["answer"], row["value"], row["count"]) == ("yes", "z", 3)
    assert row["accuracy"] == pytest.approx(2 / 3)


def test_flip_rate_counts_x_answered_rightly_both_ways():
    def pair(uid, answers, labels):
        return [prediction(uid=uid, focus=f, answer=a, label=y) for f, a, y in zip(CONTRAST, answers, labels)]

    records = pair("flips", (0, 1), (0, 1)) + pair("stays", (0, 0), (0, 1)) + pair("same", (1, 0), (1, 1))
    (row,) = metrics.flip_rates(records)
    assert (row["count"], row["flip_rate"], row["false_flip_rate"]) == (2, 0.5, 1.0)
    assert metrics.flip_rates(pair("only", (0, 1), (0, 1)))[0]["false_flip_rate"] is None
    again = [replace(p, paraphrase=1) for p in pair("flips", (1, 1), (0, 1)) + pair("same", (1, 1), (1, 1))]
    (row,) = metrics.flip_rates(records + again)
    assert (row["count"], row["flip_rate"], row["false_flip_rate"]) == (2, 1 / 3, 0.5)


def test_spread_keeps_shifted_splits_apart():
    records = [
        prediction(uid=str(i), split=split, answer=int(i < wrong))
        for split, wrong in (("iid", 0), ("low", 2), ("shifted_iid", 4))
        for i in range(4)
    ]
    spreads = {("train", False, "none"): 0.5, ("train", True, "none"): 0.0}
    assert metrics.spreads(records) == spreads
    natural = [prediction(uid=str(i), split="natural", answer=1) for i in range(4)]
    assert metrics.spreads(records + natural) == spreads


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    records = [prediction(uid=str(i), answer=int(i == 0), confidence=0.95) for i in range(4)]
    assert metrics.calibration_error(records) == pytest.approx(0.2)


def test_probabilities_survive_tiny_log_probabilities():
    assert metrics.probabilities([-2000.0, -2000.0]) == pytest.approx([0.5, 0.5])


def test_types_come_in_the_papers_order():
    assert metrics.ordered(reversed(FOCUS_TYPES)) == list(FOCUS_TYPES)


def test_broken_scores_are_reported_plainly():
    broken = Prediction(**{**prediction_fields(), "log_probs": (float("nan"), 0.0)})
    with pytest.raises(InputError, match="not finite"):
        metrics.check_finite([broken])


def prediction_fields():
    record = prediction()
    return {name: getattr(record, name) for name in record.__slots__}


def test_ties_go_to_the_first_candidate():
    assert prediction(confidence=0.5).prediction == 0
    assert np.isclose(metrics.probabilities(prediction(confidence=0.5).log_probs).sum(), 1)


def bbq_row(uid, condition, answer, label, **fields):
    """A row of BBQ whose answers are 0, 1 and unknown; `spurious_label` is 1 unless given."""
    slices = {"condition": condition, "unknown": "2"}
    given = {"split": "natural", "slices": slices, **fields}
    return prediction(uid=uid, answer=answer, label=label, core_label=label, candidates=3, **given)


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


def test_written_answers_count_as_what_they_mean():
    chosen = prediction()
    written = [replace(chosen, text=text, meant=meant) for text, meant in (("x", chosen.label), ("?", UNPARSEABLE))]
    assert [p.correct for p in written] == [True, False]
    assert {p.likeliest for p in written} == {chosen.prediction}
    assert list(metrics.unparseable_rates([chosen, *written]).values()) == [0.5]
    assert metrics.unparseable_rates([chosen]) == {}
