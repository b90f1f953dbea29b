"""What rehearsal adds to a step's loss: cross-entropy of texts, divergence from the model without its adapter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.config import OptimizerConfig, RehearsalConfig
from fit_jax.data.packing import stack
from fit_jax.data.rehearsal import WithRehearsal, pieces
from fit_jax.focus.conversations import EncodedText
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.processes import to_global
from fit_jax.training.optimizer import make_optimizer
from fit_jax.training.rehearsal import Rehearsal, rehearsal_sums, shares
from fit_jax.training.state import init_state
from fit_jax.training.step import compile_train_step

from .conftest import VOCAB, T

FILES = ("texts.txt",)


def text_rows(rows: int = 4):
    """Rows of one text each, of different lengths, of which some tokens are learnt."""
    rng = np.random.default_rng(5)
    texts = [
        EncodedText(rng.integers(1, VOCAB, 10 + 8 * n).astype(np.int32), rng.random(10 + 8 * n) < 0.7)
        for n in range(rows)
    ]
    return stack([list(pieces(text, T)) for text in texts], T, T)[0]


def trained_apart(state):
    """The state with adapters that are not what they started as."""

    def moved(leaf):
        return leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)

    return state._replace(trainable=jax.tree.map(moved, state.trainable))


@pytest.mark.parametrize("kind", ["lora", "dora", "quantised"])
def test_the_divergence_is_from_the_model_without_its_adapter(smallest, kind):
    model = dataclasses.replace(smallest, quantize="int8" if kind == "quantised" else "none", compute_dtype="float32")
    lora = LoraConfig(rank=4, dropout=0.0, dora=kind == "dora")
    placed = init_state(model, lora, None, make_mesh(MeshConfig(), jax.devices()[:1]), 0)
    state, rows = trained_apart(placed.state), text_rows()
    rehearsal = Rehearsal.of(RehearsalConfig(files=FILES, kl=1.0), model)
    assert rehearsal is not None

    @jax.jit
    def computed(state):
        decoder = nnx.merge(placed.graphdef, *state.params)
        found = rehearsal.losses(decoder, state.frozen, rows, jax.random.key(0))
        logits = decoder.logits(decoder(rows.tokens, rows.positions, rows.visible_until))
        return found, jax.nn.log_softmax(logits)

    (loss, divergence), tuned = jax.device_get(computed(state))
    _, base = jax.device_get(computed(placed.state))  # a fresh adapter is the identity
    used = rows.target_weight > 0
    at = (np.nonzero(used)[0], rows.target_index[used])
    expected = (np.exp(base) * (base - tuned)).sum(-1)[at]
    np.testing.assert_allclose(divergence[used], expected, rtol=1e-3, atol=1e-4 * expected.max())
    np.testing.assert_allclose(loss[used], -tuned[(*at, rows.target_ids[used])], rtol=1e-3)
    assert expected.mean() > 1e-3


def test_both_weights_and_the_mean_over_all_tokens_to_learn():
    rows, rng = text_rows(), np.random.default_rng(0)
    loss, divergence = rng.random((2, *rows.target_ids.shape))
    rehearsal = Rehearsal(weight=2.0, kl=3.0, base=None)
    used = rows.target_weight > 0
    expected = 2 * loss[used].mean() + 3 * divergence[used].mean()
    assert float(rehearsal.total(loss, divergence, shares(rows))) == pytest.approx(expected, rel=1e-5)
    sums = rehearsal_sums(rows, jnp.asarray(loss), jnp.asarray(divergence))
    assert float(sums.loss) == pytest.approx(loss[used].sum(), rel=1e-5)
    assert float(sums.divergence) == pytest.approx(divergence[used].sum(), rel=1e-5)
    assert float(sums.targets) == used.sum()


def test_a_step_learns_the_task_and_the_texts(smallest, random_batch):
    """The task's losses are those of a step without rehearsal; the texts grow likelier, which they do not without."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-3), 20)
    task, texts = to_global(random_batch(4), mesh), to_global(text_rows(), mesh)
    found = {}
    for weight in (1.0, 0.0):
        placed = init_state(smallest, LoraConfig(), optimizer, mesh, 0)
        rehearsal, batch = Rehearsal(weight, 0.0, None), WithRehearsal(task, texts)
        step = compile_train_step(placed.graphdef, optimizer, placed.state, batch, rehearsal=rehearsal)
        state, metrics = placed.state, []
        for _ in range(8):
            state, now = step(state, batch)
            metrics.append(jax.device_get(now))
        found[weight] = metrics
    with_it, without = found[1.0], found[0.0]
    assert with_it[0].sums.loss == pytest.approx(without[0].sums.loss, rel=1e-5)
    assert with_it[0].rehearsal.loss == pytest.approx(without[0].rehearsal.loss, rel=1e-5)
    assert with_it[-1].rehearsal.loss < 0.9 * with_it[0].rehearsal.loss
    assert with_it[-1].rehearsal.loss < without[-1].rehearsal.loss
    assert with_it[-1].sums.loss < with_it[0].sums.loss
    assert with_it[0].tokens == without[0].tokens == int((random_batch(4).visible_until > 0).sum())
    assert with_it[0].rehearsal.divergence == 0


def test_nothing_is_rehearsed_without_files(smallest):
    assert Rehearsal.of(RehearsalConfig(), smallest) is None
