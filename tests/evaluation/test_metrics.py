"""Focus metrics against values computed by hand."""

from dataclasses import replace

import pytest

from fit_jax.errors import InputError
from fit_jax.evaluation import metrics
from fit_jax.evaluation.matching import UNPARSEABLE
from fit_jax.evaluation.queries import Prediction
from fit_jax.focus.spec import FOCUS_TYPES

from .predictions import prediction

CONTRAST = ("focus(core) & ignore(spurious)", "focus(spurious) & ignore(core)")


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


def test_an_examples_paraphrases_count_once_and_clusters_widen_the_interval():
    alone = [prediction(uid=str(i), answer=i % 2) for i in range(20)]
    twice = [replace(p, paraphrase=n) for p in alone for n in (0, 1)]
    assert metrics.pooled(twice) == metrics.pooled(alone)
    together = [replace(p, cluster=str(int(p.uid) // 10 * 2 + p.prediction)) for p in alone]
    rows = [metrics.focus_accuracy(asked, "fit", 0, "demo")[0] for asked in (alone, together)]
    assert rows[0]["accuracy"] == rows[1]["accuracy"]
    assert rows[1]["ci_high"] - rows[1]["ci_low"] > 1.5 * (rows[0]["ci_high"] - rows[0]["ci_low"])


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


def test_written_answers_count_as_what_they_mean():
    chosen = prediction()
    written = [replace(chosen, text=text, meant=meant) for text, meant in (("x", chosen.label), ("?", UNPARSEABLE))]
    assert [p.correct for p in written] == [True, False]
    assert {p.likeliest for p in written} == {chosen.prediction}
    assert list(metrics.unparseable_rates([chosen, *written]).values()) == [0.5]
    assert metrics.unparseable_rates([chosen]) == {}
