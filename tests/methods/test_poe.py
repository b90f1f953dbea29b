"""Product of experts: the loss of the renormalised product and its gradient, by hand, and its bias-only model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.data.tasks import build_task
from fit_jax.methods.bias_model import cross_fitted
from fit_jax.methods.poe import build
from fit_jax.training.objective import TargetScores

from ..closeness import assert_close
from .candidate_rows import candidate_rows, softmax


@pytest.fixture(scope="module")
def biased(config):
    """Where the spurious label is mostly the true one: at a balanced rho the bias-only model would say nothing."""
    return build_task(replace(config.task, rho_train=0.9), config.seed)


@pytest.mark.parametrize("weight", [0.0, 1.0, 1.5])
def test_the_loss_is_that_of_the_renormalised_product(biased, config, encoder, weight):
    """log p(c) = log p_model(c) + weight log p_bias(c) + constant; the mean over examples of -log p(y)."""
    method = build(biased, replace(config, train=replace(config.train, poe_weight=weight)))
    rows = candidate_rows(method.sampler, encoder, [0, 1, 2, 5])
    examples = biased.splits["train"].examples
    bias = cross_fitted(examples, (), config.seed)
    assert method.figures == {"bias_accuracy": bias.accuracy, "bias_log_likelihood": bias.log_likelihood}
    log_prob = rows.random_log_probs(0)

    def total(log_prob):
        losses = method.objective.losses(TargetScores(log_prob, jnp.zeros(log_prob.shape, bool)), rows.batch)
        return (method.objective.weights(rows.batch, method.objective.start()) * losses.loss).sum()

    expected, slope = 0.0, np.zeros_like(log_prob)
    for candidates in rows.candidates:
        one = examples[candidates.number]
        product = softmax(candidates.scores(log_prob) + weight * bias.log_probs[candidates.number])
        expected -= np.log(product[one.label]) / len(rows.candidates)
        for c, targets in enumerate(candidates.targets):
            slope[candidates.row, targets] = (product[c] - (c == one.label)) / len(rows.candidates)
    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.asarray(log_prob, jnp.float32))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert_close(gradient, slope, 1e-5)
