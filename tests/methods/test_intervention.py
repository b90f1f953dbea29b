"""The forward pass that can be intervened in: it is the decoder's own where nothing is changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.data.layout import lay_out
from fit_jax.data.packing import Batch, stack
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.methods.intervention import (
    AWAY,
    INSTRUCTION,
    TOWARDS,
    intervened,
    mark,
    no_intervention,
    unmarked,
)


@pytest.fixture(scope="module")
def item():
    rng = np.random.default_rng(0)
    shared = rng.integers(2, 320, 9).astype(np.int32)
    prompts = [
        EncodedPrompt(np.concatenate([shared, rng.integers(2, 320, n).astype(np.int32)]), (np.array([7, 1], np.int32),))
        for n in (4, 6)
    ]
    return lay_out(prompts, [[0], [0]])


@pytest.fixture(scope="module")
def batch(item) -> Batch:
    return stack([[item], []], 32, 8)[0]


@pytest.fixture(scope="module")
def run(decoder):
    graphdef, state = nnx.split(decoder)

    @jax.jit
    def call(batch, change):
        plain, marks = unmarked(batch)
        return intervened(nnx.merge(graphdef, state), plain, marks, change)

    return call


def marked(batch, kind, where):
    tokens = batch.tokens.copy()
    tokens[0, where] = mark(tokens[0, where], kind)
    return batch._replace(tokens=tokens)


def test_nothing_changed_is_the_decoder_itself(decoder, batch, run):
    hidden, residuals = run(marked(batch, INSTRUCTION, slice(3, 6)), no_intervention(2, 32))
    expected = decoder(batch.tokens, batch.positions, batch.visible_until, batch.target_index)
    np.testing.assert_allclose(hidden[0], expected[0], atol=2e-6)
    np.testing.assert_allclose(decoder.final_norm(residuals[-1])[0], hidden[0], atol=2e-6)


def test_marks_ride_on_tokens_and_come_off_again(batch):
    there = marked(batch, AWAY, slice(2, 5))
    plain, marks = unmarked(there)
    np.testing.assert_array_equal(plain.tokens, batch.tokens)
    assert marks[0].tolist() == [AWAY if 2 <= i < 5 else 0 for i in range(32)]


def test_a_vector_is_added_after_its_layer_where_marked(batch, run):
    nothing = no_intervention(2, 32)
    change = nothing._replace(vectors=nothing.vectors.at[0].set(0.5))
    index = batch.target_index[0]
    _, before = run(batch, nothing)
    for kind, sign in ((TOWARDS, 0.5), (AWAY, -0.5), (INSTRUCTION, 0.0)):
        _, after = run(marked(batch, kind, index[:1]), change)
        moved = np.asarray(after[0, 0] - before[0, 0])[:2]
        np.testing.assert_allclose(moved, [[sign] * 32, [0.0] * 32], atol=1e-6)


def test_a_bias_acts_as_so_many_copies_of_the_key(run):
    """With a bias of log 3 a key weighs as much as one that stands there three times, at the same position."""
    nothing = no_intervention(2, 32)
    n = 12
    tokens = np.arange(10, 10 + n, dtype=np.int32)

    def row(order):
        length = len(order)
        arrays = [np.array(a, np.int32)[None] for a in (tokens[order], order, [length] * length)]
        target = np.array([[length - 1]], np.int32)
        return Batch(
            *arrays, target, np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)
        )

    plain = row(list(range(n)))
    biased = plain._replace(tokens=plain.tokens | (np.arange(n) == 4).astype(np.int32) * mark(np.int32(0), INSTRUCTION))
    _, after = run(biased, nothing._replace(instruction_bias=jnp.float32(np.log(3))))
    _, copies = run(row([*range(5), 4, 4, *range(5, n)]), nothing)
    _, before = run(plain, nothing)
    # After one layer: in deeper ones the first copies, which do not see the later ones, are other keys.
    np.testing.assert_allclose(after[0], copies[0], atol=2e-6)
    assert float(jnp.abs(after[0] - before[0]).max()) > 1e-4
