"""Rotary embeddings: which part of a head turns, how far, and what a sequence's length has to do with it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.models.config import DecoderConfig
from fit_jax.models.kv_cache import empty_cache, extend
from fit_jax.models.rope import frequencies, ropes_at, rotate, sequence_lengths
from fit_jax.models.rope_config import RopeConfig

from ..closeness import apart, assert_close

LONG = RopeConfig(
    kind="longrope",
    short_factors=(1.0, 1.2, 1.5, 2.0),
    long_factors=(1.0, 3.0, 5.0, 9.0),
    original_max_positions=5,
)


@pytest.fixture(scope="module")
def config():
    return DecoderConfig(vocab_size=31, layers=1, width=16, feed_forward=24, heads=2, kv_heads=1, rope=LONG)


def test_lengths_are_those_of_the_item_a_token_is_of():
    # A tree of 2 shared tokens with branches of 1 and 3, a sequence of 2, and padding.
    positions = jnp.array([[0, 1, 2, 2, 3, 4, 0, 1, 0, 0]], jnp.int32)
    assert sequence_lengths(positions).tolist() == [[5] * 6 + [2] * 2 + [1] * 2]


def test_an_item_turns_by_its_own_length_wherever_it_stands(config, build, row):
    model = build(config)
    short, long = row(1, 4, 31, seed=1), row(1, 7, 31, seed=2)
    tokens, positions = (jnp.concatenate([a, b], axis=1) for a, b in zip(short[:2], long[:2]))
    packed = model(tokens, positions, jnp.array([[4] * 4 + [11] * 7], jnp.int32))
    assert_close(packed[:, :4], model(*short), 2e-5)
    alone = model(*long)
    assert_close(packed[:, 4:], alone, 2e-5)
    # The long one turns by other factors than as many tokens of a model that was trained on longer sequences.
    other = build(config, rope=dataclasses.replace(LONG, original_max_positions=7))
    assert apart(other(*long), alone) > 1e-3


def test_decoding_turns_by_the_length_that_a_row_may_come_to(config, build, row):
    """A prompt of 4 tokens, read into a cache in which 3 more may follow, as if it were the beginning of all 7."""
    model = build(config)
    tokens, positions, visible = row(1, 7, 31)

    @jax.jit
    def cached(limit):
        decoder = model.decoder
        cache = empty_cache(config, 1, 7)._replace(limits=limit)
        out = []
        for part in (slice(0, 4), slice(4, 7)):
            index = jnp.arange(part.stop - part.start, dtype=jnp.int32)[None]
            valid = jnp.ones(index.shape, bool)
            hidden, cache = extend(decoder, cache, tokens[:, part], positions[:, part], valid, index)
            out.append(hidden)
        return jnp.concatenate(out, axis=1)

    assert_close(cached(jnp.array([7], jnp.int32)), model(tokens, positions, visible), 2e-5)
    assert_close(cached(jnp.array([5], jnp.int32))[:, :4], model(tokens[:, :4], positions[:, :4], visible[:, :4]), 2e-5)


def test_a_share_of_a_head_turns_and_the_rest_stays():
    config = DecoderConfig(vocab_size=9, width=16, heads=2, kv_heads=1, head_dim=12, rope=RopeConfig(partial=0.7))
    x = np.random.default_rng(0).normal(size=(1, 3, 2, 12)).astype(np.float32)
    turned = np.asarray(rotate(jnp.asarray(x), ropes_at(jnp.array([[0, 1, 5]], jnp.int32), config).full))
    np.testing.assert_array_equal(turned[..., 8:], x[..., 8:])
    np.testing.assert_allclose(turned[:, 0], x[:, 0], rtol=1e-6)
    angle = 5 * frequencies(config.rope, 12)[1]
    wanted = x[0, 2, :, 1] * np.cos(angle) - x[0, 2, :, 5] * np.sin(angle)
    np.testing.assert_allclose(turned[0, 2, :, 1], wanted, rtol=1e-4)


def test_yarn_keeps_fast_pairs_and_stretches_slow_ones():
    plain, yarn = RopeConfig(), RopeConfig(kind="yarn", factor=4.0, original_max_positions=512)
    before, after = frequencies(plain, 64), frequencies(yarn, 64)
    turns = 512 * before / (2 * np.pi)
    np.testing.assert_allclose(after[turns > 40], before[turns > 40], rtol=1e-6)
    np.testing.assert_allclose(after[turns < 0.8], before[turns < 0.8] / 4, rtol=1e-6)
    assert (np.diff(before / after) >= 0).all()


@pytest.mark.parametrize(
    ("rope", "said"),
    [
        (RopeConfig(partial=1.5), "more than 1"),
        (RopeConfig(partial=0.7, theta=-1.0), "theta: -1.0 is not a number above 0"),
        (RopeConfig(kind="yarn", theta=1.0), "theta: 1.0 is not above 1"),
        (RopeConfig(partial=0.1), "is 0, no pairs"),
        (RopeConfig(partial=0.4), "is 3, no pairs"),
        (RopeConfig(kind="longrope"), "short_factors: longrope needs them"),
        (dataclasses.replace(LONG, long_factors=(1.0, 2.0)), "long_factors: there are 2 for 4 pairs"),
        (dataclasses.replace(LONG, long_factors=(1.0, 2.0, 0.0, 1.0)), "long_factors: one of them"),
        (RopeConfig(temperature_beta=-0.1), "temperature_beta"),
    ],
)
def test_what_no_rotary_embedding_has_is_told(config, rope, said):
    with pytest.raises(InputError, match=rf"model\.rope\..*{said}"):
        dataclasses.replace(config, rope=rope).check()
