"""Intervals and tests over seeds and clusters against known answers, and false positives where nothing differs."""

from math import inf

import numpy as np
import pytest
import scipy.stats

from benchmarks.null_false_positives import CASES, tables
from fit_jax.evaluation.statistics import Mean, holm, mean_over_seeds, share_over_seeds, unpaired, wilson


def draws(rng, seed_sd=0.0, cluster_sd=0.0, seeds=3, clusters=20, each=5):
    """(examples, seeds) differences without a mean, and the clusters of the examples."""
    number = np.repeat(np.arange(clusters), each)
    noise = rng.normal(0, 0.3, (clusters * each, seeds))
    common = rng.normal(0, cluster_sd, clusters)[number][:, None]
    return rng.normal(0, seed_sd, seeds) + common + noise, number


def test_of_one_seed_it_is_the_t_test_over_clusters():
    values, number = draws(np.random.default_rng(0), cluster_sd=0.2, seeds=1)
    mean = mean_over_seeds(values, number)
    means = values.reshape(20, 5).mean(axis=1)
    assert mean.value == pytest.approx(means.mean())
    assert mean.interval() == pytest.approx(scipy.stats.t.interval(0.95, 19, means.mean(), scipy.stats.sem(means)))
    assert mean.p is None


def test_where_seeds_ask_examples_of_their_own_it_is_the_t_test_over_seeds():
    rng = np.random.default_rng(1)
    values = np.full((30, 3), np.nan)
    for seed in range(3):
        values[10 * seed : 10 * seed + 10, seed] = rng.normal(seed, 1, 10)
    mean, means = mean_over_seeds(values, range(30)), np.nanmean(values, axis=0)
    assert mean.p == pytest.approx(scipy.stats.ttest_1samp(means, 0).pvalue, rel=0.02)


@pytest.mark.parametrize(("seed_sd", "cluster_sd"), [(0.0, 0.2), (0.1, 0.0), (0.1, 0.2)])
def test_the_variance_is_that_of_the_mean_over_seeds_and_clusters_drawn_anew(seed_sd, cluster_sd):
    means = [mean_over_seeds(*draws(np.random.default_rng(n), seed_sd, cluster_sd)) for n in range(500)]
    expected = seed_sd**2 / 3 + cluster_sd**2 / 20 + 0.3**2 / 300
    assert np.mean([m.variance for m in means]) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("seeds", "seed_sd", "cluster_sd", "paired"),
    [(3, 0.05, 0.2, True), (3, 0.05, 0.0, True), (3, 0.02, 0.2, False), (5, 0.05, 0.2, False)],
)
def test_a_twentieth_of_the_tests_finds_a_difference_where_there_is_none(seeds, seed_sd, cluster_sd, paired):
    found = 0
    for number in range(500):
        rng = np.random.default_rng((number, seeds, paired))
        (first, clusters), (second, _) = (draws(rng, seed_sd, cluster_sd, seeds) for _ in range(2))
        if paired:
            mean = mean_over_seeds(first - second, clusters)
        else:
            mean = unpaired(mean_over_seeds(first, clusters), mean_over_seeds(second, clusters))
        found += mean.p < 0.05
    assert 0.02 < found / 500 < 0.08


def test_a_difference_that_is_there_is_found():
    values, number = draws(np.random.default_rng(0), seed_sd=0.01)
    assert mean_over_seeds(values + 0.3, number).p < 0.01
    assert mean_over_seeds(np.zeros((10, 3)), range(10)).p == 1


def test_no_variation_is_no_proof():
    """One of three clusters may still come out otherwise; of three hundred, hardly."""
    assert mean_over_seeds(np.ones((3, 3)), range(3)).p > 0.05
    assert mean_over_seeds(np.ones((300, 3)), range(300)).p < 1e-6
    assert mean_over_seeds(np.ones((5, 1)), ["all one"] * 5).interval() == (-inf, inf)


def test_the_mean_is_over_seeds_where_they_ask_different_numbers_of_examples():
    values = np.array([[1.0, np.nan], [1.0, 0.0], [1.0, np.nan]])
    assert mean_over_seeds(values, range(3)).value == 0.5


def test_a_shares_interval_counts_examples_by_how_much_they_tell():
    right = (np.arange(400) < 300).astype(float)[:, None]
    alone = share_over_seeds(right, range(400)).share_interval()
    assert alone == pytest.approx(wilson(0.75, 400, 1.96), abs=0.002)
    # Ten examples that are always right together tell what one does.
    low, high = share_over_seeds(np.repeat(right[::10], 10, axis=0), np.arange(400) // 10).share_interval()
    assert (low, high) == pytest.approx(wilson(0.75, 40, 2.02), abs=0.01)
    assert share_over_seeds(np.ones((10, 1)), range(10)).share_interval()[0] < 0.75
    assert Mean(0.5, inf, 1, 1, 5).share_interval() == pytest.approx(wilson(0.5, 1, 12.7), abs=0.01)


@pytest.mark.parametrize("wrong", [0, 1, 5, 20])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_share_near_1_is_known_as_well_as_one_near_0(wrong, seeds):
    """One wrong answer in a thousand does not make an accuracy less known than none, however few clusters there are."""
    values, clusters = np.ones((1000, seeds)), np.arange(1000) % 20
    values[:wrong] = 0
    low, high = share_over_seeds(values, clusters).share_interval()
    assert share_over_seeds(1 - values, clusters).share_interval() == pytest.approx((1 - high, 1 - low))
    assert low > 1 - wrong / 1000 - 0.02


def test_one_cluster_tells_nothing_of_others():
    for answers in (np.ones((50, 1)), np.ones((50, 3)), np.zeros((50, 1))):
        low, high = share_over_seeds(answers, ["all one"] * 50).share_interval()
        assert high - low > 0.9
        assert mean_over_seeds(answers, ["all one"] * 50).interval() == (-inf, inf)


def test_the_benchmark_of_false_positives_runs():
    for table in tables(1):
        assert len(table.rows) == len(CASES)


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (10, 10), (95, 100), (1, 2), (1, 1)])
def test_wilson_equals_scipys(correct, count):
    expected = scipy.stats.binomtest(correct, count).proportion_ci(0.95, method="wilson")
    assert wilson(correct / count, count, scipy.stats.norm.ppf(0.975)) == pytest.approx(tuple(expected), abs=1e-12)


def test_holm_is_monotone_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
