"""Product of experts and group DRO: the loss by hand, and what training with it does."""

import jax.numpy as jnp
import numpy as np
import pytest
from fit_jax.methods.robust import (
    Budget,
    Robust,
    bias_log_probs,
    candidate_losses,
    group_objective,
    read_candidates,
    train_robust,
)
from flax import nnx

from fit_jax.config import MeshConfig, OptimizerConfig
from fit_jax.focus.example import Example, Spurious
from fit_jax.methods.candidates import candidate_batches
from fit_jax.models.config import LoraConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.training.optimizer import make_optimizer
from fit_jax.training.state import init_state


def example(label, spurious_label, number=0) -> Example:
    return Example(
        f"e{number}", {"text": f"word {number}"}, ("a", "b", "c"), label, {"s": Spurious("v", spurious_label)}
    )


@pytest.fixture(scope="module")
def batch(task, encoder):
    candidates, _ = read_candidates(task.splits["train"].examples, Robust(1.0, 0.1))
    return next(candidate_batches(candidates, encoder, rows=4, tokens=256, seed=0))


def test_the_bias_only_model_is_the_share_of_agreement():
    examples = [example(0, 0, 0), example(1, 0, 1), example(0, 0, 2), example(2, 0, 3)]
    candidates, groups = read_candidates(examples, Robust(1.0, 0.0))
    np.testing.assert_allclose(np.exp(candidates[0].prior), [1 / 2, 1 / 4, 1 / 4])
    assert groups == 3
    assert [c.group for c in candidates] == [0, 1, 0, 2]
    both = Example("x", {}, ("a", "b"), 0, {"s": Spurious("v", 0), "t": Spurious("w", 1)})
    odds = np.exp(bias_log_probs(both, {("s", "v"): 0.9, ("t", "w"): 0.9}))
    np.testing.assert_allclose(odds, [0.5, 0.5])


def test_the_loss_is_the_softmax_over_each_examples_candidates(batch):
    rng = np.random.default_rng(0)
    log_prob = rng.normal(size=batch.target_ids.shape).astype(np.float32)
    losses = np.asarray(candidate_losses(jnp.asarray(log_prob), batch))
    for row in range(len(log_prob)):
        for slot in np.flatnonzero(batch.target_chosen[row]):
            own = np.flatnonzero(
                (batch.target_owner[row] == batch.target_owner[row, slot]) & (batch.target_prior[row] > -1e29)
            )
            used = batch.target_weight[row] > 0
            scores = [
                log_prob[row][used & (batch.target_slot[row] == s)].sum() + batch.target_prior[row, s] for s in own
            ]
            expected = np.log(np.exp(scores).sum()) - scores[list(own).index(slot)]
            assert losses[row, slot] == pytest.approx(expected, abs=1e-5)
    assert (losses[batch.target_chosen == 0] == 0).all()


def test_every_example_is_there_with_its_true_answer(batch, task, encoder):
    found = (batch.target_chosen > 0).sum()
    assert found == len(
        {(r, o) for r, row in enumerate(batch.target_owner) for o in row[batch.target_prior[r] > -1e29]}
    )
    assert found > 8


def test_group_weights_grow_with_the_groups_loss(batch):
    losses = jnp.where((batch.target_group == 1) & (batch.target_chosen > 0), 2.0, 0.0)
    loss, weights = group_objective(losses, batch, jnp.full(4, 0.25), 1.0)
    assert float(weights[1]) == pytest.approx(np.exp(2) / (np.exp(2) + 3), rel=1e-5)
    assert float(loss) == pytest.approx(2 * float(weights[1]), rel=1e-5)


@pytest.mark.parametrize("robust", [Robust(1.0, 0.0), Robust(0.0, 0.05)])
def test_training_lowers_the_loss(decoder, task, encoder, robust):
    mesh = make_mesh(MeshConfig(data=1), [jnp.zeros(()).device])
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2), 30)
    graphdef, state, _ = init_state(decoder.config, LoraConfig(), optimizer, mesh, 0)
    examples = task.splits["train"].examples[:4]
    state, losses = train_robust(
        graphdef, state, optimizer, examples, encoder, mesh, robust, Budget(steps=30, rows=2, tokens=128, seed=0)
    )
    assert int(state.step) == 30
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    assert isinstance(nnx.merge(graphdef, *state.params), type(decoder))
