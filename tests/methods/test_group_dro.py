"""Group DRO (Sagawa et al., 2020, algorithm 1): its loss, gradient and exponentiated-gradient weights, by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.methods import training_method
from fit_jax.methods.group_dro import build
from fit_jax.methods.groups import groups_of
from fit_jax.training.objective import TargetScores

from ..closeness import assert_close
from .biased_task import biased_task
from .candidate_rows import candidate_rows, softmax

STEP = 0.7


@pytest.fixture(scope="module")
def examples(task):
    return task.splits["train"].examples


@pytest.fixture(scope="module")
def groups(examples) -> list[int]:
    """The number of each training example's pair of keyword and label, as the pairs first come."""
    pairs = [(e.spurious["keyword"].value, e.label) for e in examples]
    return [list(dict.fromkeys(pairs)).index(pair) for pair in pairs]


@pytest.fixture(scope="module")
def method(task, config):
    return build(task, replace(config, train=replace(config.train, group_step=STEP)))


@pytest.fixture(scope="module")
def rows(method, encoder, groups):
    """Three examples of the first group, one of the second and none of the others."""
    of = lambda group: [number for number, other in enumerate(groups) if other == group]  # noqa: E731
    return candidate_rows(method.sampler, encoder, [*of(0)[:3], of(1)[0]])


def by_hand(rows, examples, groups, log_prob) -> tuple[np.ndarray, np.ndarray, dict]:
    """Mean loss of each group, 0 where there is none; examples of each; and each example's softmax."""
    total, count, shares = np.zeros(max(groups) + 1), np.zeros(max(groups) + 1), {}
    for candidates in rows.candidates:
        number = candidates.number
        shares[number] = softmax(candidates.scores(log_prob))
        total[groups[number]] -= np.log(shares[number][examples[number].label])
        count[groups[number]] += 1
    return total / np.maximum(count, 1), count, shares


@pytest.mark.parametrize("others", [0.01, 1.5])
def test_the_decay_is_strong_and_never_weaker_than_that_of_other_methods(task, config, others):
    optimizer = replace(config.optimizer, weight_decay=others)
    assert build(task, replace(config, optimizer=optimizer)).weight_decay == max(config.train.group_decay, others)
    assert config.train.group_decay > 0.05


@pytest.mark.parametrize("name", ["group_dro", "group_balanced"])
def test_every_group_is_drawn_equally_often(config, name):
    biased = biased_task()
    numbers = groups_of(biased.splits["train"].examples)
    found = training_method(biased, replace(config, train=replace(config.train, method=name)))
    drawn = np.bincount(numbers[found.sampler.order(0)])
    assert drawn.max() - drawn.min() <= 1
    assert np.bincount(numbers).max() > 5 * np.bincount(numbers).min()


def losses_of(method, rows, log_prob):
    return method.objective.losses(TargetScores(log_prob, jnp.zeros(log_prob.shape, bool)), rows.batch).loss


def test_the_loss_is_the_weighted_sum_of_the_groups_means(method, rows, examples, groups):
    log_prob = rows.random_log_probs(0)
    q = softmax(np.arange(max(groups) + 1) / 3)
    own = jnp.asarray(np.log(q), jnp.float32)

    def total(log_prob):
        return (method.objective.weights(rows.batch, own) * losses_of(method, rows, log_prob)).sum()

    means, count, shares = by_hand(rows, examples, groups, log_prob)
    slope = np.zeros_like(log_prob)
    for candidates in rows.candidates:
        number, group = candidates.number, groups[candidates.number]
        for c, targets in enumerate(candidates.targets):
            distance = shares[number][c] - (c == examples[number].label)
            slope[candidates.row, targets] = q[group] / count[group] * distance
    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.asarray(log_prob, jnp.float32))
    assert float(value) == pytest.approx(q @ means, rel=1e-5)
    assert_close(gradient, slope, 1e-5)


def test_the_weights_start_equal_and_follow_the_exponentiated_gradient(method, rows, examples, groups):
    @jax.jit
    def follow(own, log_prob):
        return method.objective.update(own, rows.batch, losses_of(method, rows, log_prob))

    own = jnp.asarray(method.objective.start())
    q = np.full(max(groups) + 1, 1 / (max(groups) + 1))
    assert_close(np.exp(own), q, 1e-6)
    for seed in range(3):
        log_prob = rows.random_log_probs(seed)
        means, _, _ = by_hand(rows, examples, groups, log_prob)
        own = follow(own, jnp.asarray(log_prob, jnp.float32))
        q = q * np.exp(STEP * means)
        q /= q.sum()
        assert_close(np.exp(own), q, 1e-5)
    assert q.max() > 1.5 * q.min()  # or the weights would not have moved
