"""Product of experts and group DRO: bias model, groups and losses by hand, and what becomes of group weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.data.layout import lay_out
from fit_jax.data.packing import stack
from fit_jax.focus.example import Example, Spurious, group_of
from fit_jax.methods.candidates import NEVER, CandidateLoss, CandidateSampler
from fit_jax.methods.group_dro import GroupDro, group_numbers
from fit_jax.methods.poe import agreement, bias_log_probs
from fit_jax.training.objective import TargetScores

from ..closeness import assert_close


def example(label: int, spurious_label: int, number: int = 0) -> Example:
    return Example(
        f"e{number}", {"text": f"word {number}"}, ("a", "b", "c"), label, {"s": Spurious("v", spurious_label)}
    )


@pytest.fixture(scope="module")
def batch(task, encoder):
    """Two rows of two examples each, with priors that differ and a group for each true label."""
    examples = task.splits["train"].examples[:4]
    shares = {("keyword", e.spurious["keyword"].value): 0.8 for e in examples}
    sampler = CandidateSampler(examples, 0, prior=lambda e: bias_log_probs(e, shares), group=lambda e: e.label)
    prompts = encoder.encode(examples, [""] * 4)
    items = [lay_out([p], [range(len(p.answers))]) for p in prompts]
    rows, places = stack([items[:2], items[2:]], 256, 24)
    return sampler.batch(rows, places, np.arange(4))


def test_the_bias_only_model_is_the_share_of_agreement():
    examples = [example(0, 0, 0), example(1, 0, 1), example(0, 0, 2), example(2, 0, 3)]
    assert_close(np.exp(bias_log_probs(examples[0], agreement(examples))), [1 / 2, 1 / 4, 1 / 4], 1e-6)
    numbers = group_numbers(examples)
    assert [numbers[group_of(e)] for e in examples] == [0, 1, 0, 2]
    both = Example("x", {}, ("a", "b"), 0, {"s": Spurious("v", 0), "t": Spurious("w", 1)})
    assert_close(np.exp(bias_log_probs(both, {("s", "v"): 0.9, ("t", "w"): 0.9})), [0.5, 0.5], 1e-6)


def test_the_loss_is_the_softmax_over_each_examples_candidates_and_their_priors(batch):
    log_prob = np.random.default_rng(0).normal(size=batch.owner.shape)
    scores = TargetScores(jnp.asarray(log_prob, jnp.float32), jnp.zeros(log_prob.shape, bool))
    losses = np.asarray(CandidateLoss().losses(scores, batch).loss)
    assert (batch.chosen > 0).sum() == 4
    for row, slot in np.argwhere(batch.chosen > 0):
        own = np.flatnonzero((batch.owner[row] == batch.owner[row, slot]) & (batch.prior[row] > NEVER / 2))
        used = batch.rows.target_weight[row] > 0
        total = [log_prob[row][used & (batch.rows.target_slot[row] == s)].sum() + batch.prior[row, s] for s in own]
        expected = np.log(np.exp(total).sum()) - total[list(own).index(slot)]
        assert losses[row, slot] == pytest.approx(expected, rel=1e-4)


def test_a_groups_weight_grows_with_its_loss_and_its_examples_share_it(batch):
    objective = GroupDro(2, 1.0)
    own = jnp.asarray(objective.start())
    loss = jnp.where((batch.group == 1) & (batch.chosen > 0), 2.0, 0.0)
    moved = np.exp(np.asarray(objective.update(own, batch, loss)))
    assert_close(moved, [1 / (1 + np.exp(2)), np.exp(2) / (1 + np.exp(2))], 1e-5)
    weights = np.asarray(objective.weights(batch, jnp.log(jnp.asarray(moved))))
    for group in (0, 1):
        assert weights[(batch.group == group) & (batch.chosen > 0)].sum() == pytest.approx(moved[group], rel=1e-5)
