"""The loss that balances a mixture's experts."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.config import MeshConfig, OptimizerConfig, load_config
from fit_jax.errors import InputError
from fit_jax.models.experts import Routing
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.processes import to_global
from fit_jax.runs.resolve import resolve
from fit_jax.training.expert_balance import ExpertBalance, row_shares
from fit_jax.training.optimizer import make_optimizer
from fit_jax.training.state import init_state
from fit_jax.training.step import compile_train_step

from ..closeness import assert_close

E, K, T = 6, 2, 20


def routing(logits: jax.Array) -> Routing:
    scores = jax.nn.softmax(logits, axis=-1)
    return Routing(scores, *jax.lax.top_k(scores, K))


def rows(lengths: list[int]) -> SimpleNamespace:
    """Rows that hold so many tokens before their padding, the last of which is the only target."""
    tokens = (np.arange(T)[None] < np.array(lengths)[:, None]).astype(np.int32)
    return SimpleNamespace(visible_until=tokens * T, target_weight=np.array([[1.0, 0.0]] * len(lengths)))


def test_one_row_and_layer_is_the_loss_of_transformers():
    import torch
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = jax.random.normal(jax.random.key(0), (2, T, E)) * 2
    found = ExpertBalance.of(rows([T, 13])).routed(0, routing(logits), None).uneven
    for row, length in enumerate((T, 13)):
        mask = torch.tensor((np.arange(T) < length).astype(np.int64)[None])
        theirs = load_balancing_loss_func((torch.tensor(np.array(logits[row])),), E, K, mask)
        assert_close(found[row], float(theirs) / K, 1e-5)  # they add the choices up, where the mean is meant here


def test_spread_evenly_a_layer_adds_one_and_to_a_few_experts_what_they_take():
    even = jnp.tile(jnp.eye(E)[jnp.arange(T * 3) % E].reshape(3, T, E), (1, 1, 1))[:, :18]
    balance = ExpertBalance(jnp.ones((3, 18)), jnp.ones((3, 1)), jnp.zeros(3))
    alike = Routing(
        jnp.full((3, 18, E), 1 / E),
        even,
        jnp.stack([jnp.arange(18) % E, (jnp.arange(18) + 1) % E], -1)[None].repeat(3, 0),
    )
    assert_close(balance.routed(0, alike, None).uneven, np.ones(3), 1e-6)
    few = jnp.zeros((3, 18, E)).at[..., :K].set(0.5)
    crowded = Routing(few, few[..., :K], jnp.broadcast_to(jnp.arange(K), (3, 18, K)))
    assert_close(balance.routed(0, crowded, None).routed(1, alike, None).uneven, np.full(3, E / K + 1), 1e-6)


def test_the_last_layer_counts_the_targets_alone():
    logits = jax.random.normal(jax.random.key(0), (1, 2, E))
    of_both = ExpertBalance.of(rows([T])).routed(0, routing(logits), jnp.array([[4, 0]])).uneven
    of_first = ExpertBalance(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.zeros(1)).routed(0, routing(logits[:, :1]), None)
    assert_close(of_both, of_first.uneven, 1e-6)


def test_rows_weigh_by_their_tokens():
    assert_close(row_shares(rows([10, 0, 30 - T])), np.array([0.5, 0.0, 0.5]), 1e-6)


@pytest.fixture(scope="module")
def mixed(smallest):
    return dataclasses.replace(smallest, layers=2, experts=E, experts_per_token=K, feed_forward=24)


@pytest.fixture(scope="module")
def trained(mixed, random_batch):
    """Trains the mixture on one batch: (losses, unevenness) of each step, and the last state."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2), 30)

    def run(steps: int, balance: float, accumulate: int = 1):
        grid = make_mesh(MeshConfig(), jax.devices()[:1])
        placed = init_state(mixed, LoraConfig(), optimizer, grid, 0)
        batch = to_global(random_batch(8), grid)
        step = compile_train_step(
            placed.graphdef, optimizer, placed.state, batch, balance=balance, accumulate=accumulate
        )
        state, seen = placed.state, []
        for _ in range(steps):
            state, metrics = step(state, batch)
            seen.append((float(metrics.sums.loss), None if metrics.uneven is None else float(metrics.uneven)))
        return seen, state

    return run


def test_training_spreads_tokens_where_it_is_asked_to(trained):
    seen, _ = trained(12, 1.0)
    assert seen[0][1] > 1.02
    assert seen[-1][1] < 1 + 0.5 * (seen[0][1] - 1)
    assert seen[-1][0] < seen[0][0]
    without, _ = trained(1, 0.0)
    assert without == [(pytest.approx(seen[0][0]), None)]


def test_microbatches_change_nothing(trained):
    (whole,), state = trained(1, 1.0)
    (parts,), other = trained(1, 1.0, accumulate=4)
    assert parts == pytest.approx(whole, rel=1e-5)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), other.trainable, state.trainable)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.expert_balance", "0.01", "--lora.rank", "2"], "with adapters .lora. the router stays as it is"),
        (["--train.expert_balance", "-1"], "train.expert_balance: -1.0 is not a number from 0 up"),
        (["--train.expert_balance", "0.01"], "the model has no experts"),
    ],
)
def test_what_cannot_be_balanced_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        resolve(load_config(arguments))
