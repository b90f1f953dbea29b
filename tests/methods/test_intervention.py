"""The forward pass that can be intervened in: it is the decoder's own where nothing is changed."""

from collections.abc import Sequence

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
    EXCHANGED,
    INSTRUCTION,
    TOWARDS,
    Exchange,
    Knob,
    intervened,
    mark,
    no_intervention,
    unmarked,
)
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder

from ..closeness import apart, assert_close


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
    hidden, residuals = run(marked(batch, INSTRUCTION, slice(3, 6)), no_intervention(decoder.config))
    expected = decoder(batch.tokens, batch.positions, batch.visible_until, batch.target_index)
    assert_close(hidden[0], expected[0], 2e-6)
    assert_close(decoder.final_norm(residuals[-1])[0], hidden[0], 2e-6)


def test_marks_ride_on_tokens_and_come_off_again(batch):
    there = marked(batch, AWAY, slice(2, 5))
    plain, marks = unmarked(there)
    np.testing.assert_array_equal(plain.tokens, batch.tokens)
    assert marks[0].tolist() == [AWAY if 2 <= i < 5 else 0 for i in range(32)]


def test_a_vector_is_added_after_its_layer_where_marked(decoder, batch, run):
    nothing = no_intervention(decoder.config)
    change = nothing._replace(vectors=nothing.vectors.at[0].set(0.5))
    index = batch.target_index[0]
    _, before = run(batch, nothing)
    for kind, sign in ((TOWARDS, 0.5), (AWAY, -0.5), (INSTRUCTION, 0.0)):
        _, after = run(marked(batch, kind, index[:1]), change)
        moved = np.asarray(after[0, 0] - before[0, 0])[:2]
        assert_close(moved, [[sign] * 32, [0.0] * 32], 1e-5)


def row(order: Sequence[int], marked_key: int | None = None) -> Batch:
    """One row of the tokens at these positions, in which the last predicts a target; one key may be marked."""
    length, order = len(order), np.array(order, np.int32)
    tokens = 10 + order
    if marked_key is not None:
        tokens[marked_key] = mark(tokens[marked_key], INSTRUCTION)
    zeros = np.zeros((1, 1), np.int32)
    ends = np.full((1, length), length, np.int32)
    return Batch(tokens[None], order[None], ends, zeros + length - 1, zeros, zeros, np.ones((1, 1), np.float32))


def test_a_bias_acts_as_so_many_copies_of_the_key_in_the_heads_it_is_given_to(decoder, run):
    """With a bias of log 3 a key weighs as much as one that stands there three times, at the same position."""
    nothing = no_intervention(decoder.config)
    steered = row(range(12), marked_key=4)
    everywhere = nothing._replace(head_bias=jnp.full((2, 4), np.log(3), jnp.float32))
    _, copies = run(row([*range(5), 4, 4, *range(5, 12)]), nothing)
    _, before = run(steered, nothing)
    _, after = run(steered, everywhere)
    # After one layer: in deeper ones the first copies, which do not see the later ones, are other keys.
    assert_close(after[0], copies[0], 2e-6)
    assert float(jnp.abs(after[0] - before[0]).max()) > 1e-4
    changed = []
    for layer, head in ((0, 1), (0, 2), (1, 1)):
        bias = jnp.zeros((2, 4), jnp.float32).at[layer, head].set(np.log(3))
        _, one = run(steered, nothing._replace(head_bias=bias))
        assert apart(one[0], before[0]) < 1e-5 if layer == 1 else apart(one[0], before[0]) > 1e-4
        changed.append(np.asarray(one[1]))
    assert apart(changed[0], changed[1]) > 1e-4


@pytest.mark.parametrize("target", [0.02, 0.3, 0.9])
def test_every_head_gives_the_marked_key_its_target_share_and_no_less(target):
    """Of a model of one layer, against weights of attention that are normalised by hand."""
    shape = DecoderConfig(vocab_size=320, layers=1, width=32, feed_forward=48, heads=4, kv_heads=2, tied=True)
    decoder = Decoder(shape, rngs=nnx.Rngs(3))
    plain, marks = unmarked(row(range(12), marked_key=4))
    change = no_intervention(shape)._replace(target_share=jnp.float32(target))
    hidden, _ = jax.jit(lambda: intervened(decoder, plain, marks, change))()

    block, x = decoder.last_block, decoder.embed_tokens(plain.tokens)
    rope = decoder.ropes(plain.positions).of(False)
    normed = block.read(x, None)
    k, v = block.attention.keys_values(*normed, rope)
    q = np.asarray(block.attention.queries(*normed, rope)[0])[0, -1]
    keys, values = (np.repeat(np.asarray(a)[0], 2, axis=1).transpose(1, 0, 2) for a in (k, v))  # (H, T, G)
    weights = np.exp(np.einsum("hg,htg->ht", q, keys) * shape.head_width**-0.5)
    weights /= weights.sum(axis=1, keepdims=True)
    share = weights[:, 4]
    reached = np.maximum(share, target)
    weights = weights * ((1 - reached) / (1 - share))[:, None]
    weights[:, 4] = reached
    y = jnp.asarray(np.einsum("ht,htg->hg", weights, values).reshape(1, 1, -1), jnp.float32)
    x = x[:, -1:] + block.attention.o_proj(y, y)
    x = x + block.mlp(block.mlp_norm(x), None, None)
    assert_close(hidden, decoder.final_norm(x), 1e-5)
    assert (share < target).all() == (target > 0.2)


@pytest.fixture(scope="module")
def two_items(item) -> tuple[Batch, list[list[int]]]:
    """Two prefix trees in one row, and the indices of the ends of each one's two prompts."""
    batch, _ = stack([[item, item._replace(tokens=item.tokens[::-1].copy())], []], 48, 8)
    first = [int(item.target_index[np.flatnonzero(item.target_slot == slot)[0]]) for slot in (0, 1)]
    return batch, [first, [i + len(item.tokens) for i in first]]


def ends_marked(batch: Batch, ends: list[list[int]], kinds: Sequence[int]) -> Batch:
    for indices in ends:
        for index, kind in zip(indices, kinds):
            batch = marked(batch, kind, slice(index, index + 1))
    return batch


def at(batch: Batch, residuals, indices: list[int]) -> np.ndarray:
    """The residual stream after each layer at tokens that predict a target."""
    where = batch.target_index[0].tolist()
    return np.asarray(residuals)[:, 0, [where.index(i) for i in indices]]


def test_the_two_tokens_of_each_pair_exchange_the_residual_stream_after_the_layer(decoder, two_items, run):
    batch, ends = two_items
    batch = ends_marked(batch, ends, (EXCHANGED, EXCHANGED))
    nothing = no_intervention(decoder.config)
    u = np.random.default_rng(0).normal(size=32).astype(np.float32)
    u /= np.linalg.norm(u)
    directions = nothing.vectors.at[0].set(u)
    idle = Exchange(jnp.zeros(2), nothing.vectors)
    _, before = run(batch, nothing._replace(exchange=idle))
    _, whole = run(batch, nothing._replace(exchange=idle._replace(whole=jnp.array([1.0, 0.0]))))
    _, along = run(batch, nothing._replace(exchange=idle._replace(directions=directions)))
    for pair in ends:
        was = at(batch, before, pair)[0]
        assert apart(was[0], was[1]) > 0.1
        assert_close(at(batch, whole, pair)[0], was[::-1], 1e-5)
        moved = at(batch, along, pair)[0]
        assert_close(moved @ u, was[::-1] @ u, 1e-5)
        assert_close(moved - np.outer(moved @ u, u), was - np.outer(was @ u, u), 1e-5)
    _, plain = run(ends_marked(batch, ends, (0, 0)), nothing)
    assert_close(before, plain, 1e-6)


def test_a_knob_sets_the_component_along_its_direction_by_the_mark(decoder, two_items, run):
    batch, ends = two_items
    nothing = no_intervention(decoder.config)
    u = np.random.default_rng(1).normal(size=32).astype(np.float32)
    u /= np.linalg.norm(u)
    knob = Knob(nothing.vectors.at[0].set(u), jnp.float32(3), jnp.float32(-2))
    _, before = run(batch, nothing)
    _, after = run(ends_marked(batch, ends[:1], (TOWARDS, AWAY)), nothing._replace(knob=knob))
    was, now = at(batch, before, ends[0])[0], at(batch, after, ends[0])[0]
    assert_close(now @ u, [3.0, -2.0], 1e-5)
    assert_close(now - np.outer(now @ u, u), was - np.outer(was @ u, u), 1e-5)
    assert_close(at(batch, after, ends[1])[0], at(batch, before, ends[1])[0], 1e-6)
