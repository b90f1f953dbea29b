"""Product of experts: the bias-only model, and the loss of the renormalised product and its gradient, by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.focus.example import Example, Spurious
from fit_jax.methods.poe import agreement, bias_log_probs, build
from fit_jax.training.objective import TargetScores

from ..closeness import assert_close
from .candidate_rows import candidate_rows, softmax


def example(label: int, spurious_label: int, number: int = 0) -> Example:
    return Example(
        f"e{number}", {"text": f"word {number}"}, ("a", "b", "c"), label, {"s": Spurious("v", spurious_label)}
    )


def test_the_bias_only_model_is_the_share_of_agreement():
    examples = [example(0, 0, 0), example(1, 0, 1), example(0, 0, 2), example(2, 0, 3)]
    assert_close(np.exp(bias_log_probs(examples[0], agreement(examples))), [1 / 2, 1 / 4, 1 / 4], 1e-6)
    both = Example("x", {}, ("a", "b"), 0, {"s": Spurious("v", 0), "t": Spurious("w", 1)})
    assert_close(np.exp(bias_log_probs(both, {("s", "v"): 0.9, ("t", "w"): 0.9})), [0.5, 0.5], 1e-6)


def bias(example, examples) -> np.ndarray:
    """p_bias of each of two candidates: how often the keyword's label was the true one, one of each kind added."""
    value, label = example.spurious["keyword"]
    agree = [e.label == label for e in examples if e.spurious["keyword"].value == value]
    share = (sum(agree) + 1) / (len(agree) + 2)
    return np.array([share, 1 - share] if label == 0 else [1 - share, share])


@pytest.mark.parametrize("weight", [0.0, 1.0, 1.5])
def test_the_loss_is_that_of_the_renormalised_product(task, config, encoder, weight):
    """log p(c) = log p_model(c) + weight log p_bias(c) + constant; the mean over examples of -log p(y)."""
    method = build(task, replace(config, train=replace(config.train, poe_weight=weight)))
    rows = candidate_rows(method.sampler, encoder, [0, 1, 2, 5])
    examples = task.splits["train"].examples
    log_prob = rows.random_log_probs(0)

    def total(log_prob):
        losses = method.objective.losses(TargetScores(log_prob, jnp.zeros(log_prob.shape, bool)), rows.batch)
        return (method.objective.weights(rows.batch, method.objective.start()) * losses.loss).sum()

    expected, slope = 0.0, np.zeros_like(log_prob)
    for candidates in rows.candidates:
        one = examples[candidates.number]
        product = softmax(candidates.scores(log_prob) + weight * np.log(bias(one, examples)))
        expected -= np.log(product[one.label]) / len(rows.candidates)
        for c, targets in enumerate(candidates.targets):
            slope[candidates.row, targets] = (product[c] - (c == one.label)) / len(rows.candidates)
    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.asarray(log_prob, jnp.float32))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert_close(gradient, slope, 1e-5)
