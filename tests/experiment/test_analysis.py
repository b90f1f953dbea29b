"""An experiment's analysis: means over seeds, comparisons with the reference, measures."""

from dataclasses import replace

import numpy as np
import pytest

from fit_jax.evaluation.metrics import kind_of
from fit_jax.experiment.analysis import by_kind, by_paraphrase, by_type, compare, followings, measures

from .conftest import SEEDS


def test_means_and_deviations_are_over_seeds(answers):
    per_seed = [
        np.mean(
            [
                a.prediction.correct
                for a in answers
                if a[:2] == ("sft_y", s) and a.prediction.split == "iid" and kind_of(a.prediction.focus) == "spurious"
            ]
        )
        for s in SEEDS
    ]
    estimate = by_kind(answers)["sft_y", "heldout", "iid", "spurious"]
    assert estimate.mean == pytest.approx(np.mean(per_seed))
    assert estimate.std == pytest.approx(np.std(per_seed, ddof=1))
    assert (estimate.seeds, estimate.examples) == (3, 10)
    assert estimate.ci_low <= estimate.mean <= estimate.ci_high
    one = by_type([a for a in answers if a.seed == 0])
    assert {e.std for e in one.values()} == {None}


def test_the_reference_beats_a_method_that_does_not_follow_the_focus(answers):
    found = {(c.kind, c.split): c for c in compare(answers, "fit")}
    assert set(found) == {(k, s) for k in ("core", "spurious") for s in ("iid", "flipped")}
    c = found["spurious", "iid"]
    assert c.ci_low > 0.3
    assert c.p < c.p_holm < 0.05
    assert found["core", "iid"].difference == 0
    assert found["core", "iid"].p_holm == 1


def test_the_worst_seed_counts_as_much_as_thousands_of_examples(answers):
    """Two seeds beat the reference by far and one by nothing: over examples that is certain, over seeds it is not."""
    fit = [a for a in answers if a.method == "fit"]
    other = [a._replace(method="sft_y", prediction=wrong_if(a, a.seed != 2)) for a in fit]
    found = {(c.kind, c.split): c for c in compare(fit + other, "fit")}
    c = found["spurious", "iid"]
    assert c.difference == pytest.approx(2 / 3)
    assert c.p > 0.1
    assert c.ci_low < 0 < c.ci_high
    always = [a._replace(method="sft_y", prediction=wrong_if(a, True)) for a in fit]
    assert {(c.kind, c.split): c for c in compare(fit + always, "fit")}["spurious", "iid"].p < 0.001


def test_one_seed_has_an_interval_over_clusters_and_no_p(answers):
    found = compare([a for a in answers if a.seed == 0], "fit")
    assert {(c.p, c.p_holm) for c in found} == {(None, None)}
    assert all(c.ci_low <= c.difference <= c.ci_high for c in found)


def test_methods_that_share_no_seed_are_compared_unpaired(answers):
    apart = [a for a in answers if (a.method == "fit") == (a.seed < 2)]
    (c,) = [c for c in compare(apart, "fit") if (c.kind, c.split) == ("spurious", "iid")]
    assert 0.5 < c.difference < 1
    assert c.p is None  # one of the methods has one seed


def test_a_split_that_repeats_another_is_no_further_evidence(answers):
    low = [
        a._replace(prediction=replace(a.prediction, split="low")) for a in answers if a.prediction.split == "flipped"
    ]
    assert {c.split for c in compare(answers + low, "fit")} == {"iid", "low"}
    assert measures(answers + low) == measures([a for a in answers + low if a.prediction.split != "flipped"])


def test_the_spread_over_paraphrases_is_over_all_seeds(answers):
    found = by_paraphrase(answers)
    assert {key[0] for key in found} == {"fit", "sft_y"}
    spread = found["sft_y", "heldout", "focus(spurious)"]
    asked = {(a.seed, a.prediction.uid) for a in answers}  # the same text may stand in both splits
    assert sum(mean.examples for mean in spread.accuracy.values()) == len(asked)
    assert min(mean.value for mean in spread.accuracy.values()) == spread.accuracy[spread.worst].value
    assert found["fit", "heldout", "focus(spurious)"].deviation == 0


def test_a_paraphrases_interval_is_over_seeds_too(answers):
    """Two seeds that are right and one that is wrong are known no better with thousands of examples."""
    fit = [a for a in answers if a.method == "fit"]
    many = [
        a._replace(prediction=replace(wrong_if(a, a.seed == 2), uid=f"{a.prediction.uid}/{n}", cluster=str(n)))
        for a in fit
        for n in range(40)
    ]
    spread = by_paraphrase(many)["fit", "heldout", "focus(spurious)"]
    worst = next(m for m in spread.accuracy.values() if m.seeds == len(SEEDS))
    low, high = worst.share_interval()
    assert worst.value == pytest.approx(2 / 3)
    assert low < 0.2
    assert high > 0.9


def wrong_if(answer, wrong: bool):
    p = answer.prediction
    return replace(p, log_probs=p.log_probs[::-1]) if wrong and kind_of(p.focus) == "spurious" else p


def test_only_shared_seeds_are_compared(answers):
    other = [a._replace(prediction=wrong_if(a, a.seed != 1)) for a in answers if a.method == "fit"]
    same = [a for a in answers if a.seed == 1]
    fewer = other + [a for a in same if a.method != "fit"]
    differences = [[c.difference for c in compare(part, "fit")] for part in (fewer, same)]
    assert differences[0] == pytest.approx(differences[1])


def test_measures_tell_the_methods_apart(answers):
    # As many as make a group that means something.
    few = [a for a in answers if a.seed == 0 and a.prediction.split == "iid"]
    many = [a._replace(prediction=replace(a.prediction, uid=f"{a.prediction.uid}/{n}")) for a in few for n in range(30)]
    found = measures(many)
    assert found["fit", "heldout", "flip rate"][0] == 1.0
    assert found["sft_y", "heldout", "flip rate"][0] < 0.6
    assert found["fit", "heldout", "worst group, spurious types"][0] == 1.0
    # The worst over all types is that of the type which is always wrong.
    wrong = [wrong_if(a, a.prediction.focus == "focus(spurious)") for a in many]
    found = measures([a._replace(prediction=p) for a, p in zip(many, wrong) if a.method == "fit"])
    assert found["fit", "heldout", "worst group, spurious types"][0] == 0.0
    assert not any("worst group" in name for *_, name in measures(answers))


def test_how_far_a_method_follows_is_over_the_seeds_and_texts_that_were_asked_for_both(answers):
    found = followings(answers)
    assert found["fit"].both.value == 1
    sides = found["sft_y"]
    assert sides.both.value == pytest.approx((sides.core.value + sides.spurious.value) / 2)
    assert sides.both.seeds == len(SEEDS)
    fewer = [a for a in answers if a.seed or kind_of(a.prediction.focus) == "core"]
    without = followings(fewer)["sft_y"]
    assert (without.core.seeds, without.spurious.seeds, without.both.seeds) == (3, 2, 2)
    assert not np.isnan([mean.value for mean in without[:3]]).any()
    assert followings([a for a in answers if kind_of(a.prediction.focus) == "core"]) == {}
