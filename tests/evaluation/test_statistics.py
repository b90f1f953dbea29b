"""Bootstrap, sign-flip test and Holm's correction against known answers."""

import numpy as np
import pytest
import scipy.stats

from fit_jax.evaluation.statistics import bootstrap_interval, holm, mean_over_seeds, shares, sign_flip_p


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_bootstrap_interval_of_a_share_is_near_the_normal_one():
    values = (np.arange(400) < 300).astype(float)
    low, high = bootstrap_interval(values[:, None], rng())
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)
    assert bootstrap_interval(np.ones((5, 2)), rng()) == (1.0, 1.0)


def test_an_interval_is_about_the_mean_over_seeds_where_seeds_ask_different_examples():
    """Each seed asks 50 examples: 40 easy ones that all of them ask, and 10 hard ones of its own."""
    values = np.full((70, 3), np.nan)
    values[:40] = 1
    for seed in range(3):
        values[40 + 10 * seed : 50 + 10 * seed, seed] = 0
    low, high = bootstrap_interval(values, rng())
    assert mean_over_seeds(values) == pytest.approx(0.8)
    assert 0.7 < low < 0.8 < high < 0.9
    assert shares(values).mean() == pytest.approx(0.8)


def test_sign_flip_test_agrees_with_mcnemars_exact_test():
    differences = np.array([1.0] * 14 + [-1.0] * 4 + [0.0] * 100)
    exact = scipy.stats.binomtest(14, 18).pvalue
    assert sign_flip_p(differences, rng()) == pytest.approx(exact, abs=0.01)


def test_no_difference_gives_p_one_and_a_clear_one_the_least():
    assert sign_flip_p(np.zeros(10), rng()) == 1.0
    assert sign_flip_p(np.ones(200), rng()) == pytest.approx(1 / 4001)


def test_holm_is_monotone_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
