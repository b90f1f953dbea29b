"""Decoding with the cache against plain forward passes, whatever the padding; sampling; stop tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.config import MeshConfig
from fit_jax.errors import InputError
from fit_jax.evaluation import decoding
from fit_jax.evaluation.decoding import SamplingParams, decode, generate, generate_all, nucleus
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.linear_config import LinearConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import lay_out_tree

CONFIG = DecoderConfig(
    vocab_size=61, layers=3, width=32, feed_forward=48, window=6, sliding_layers=(0, 2), sliding_theta=100.0
)
PROMPTS = [np.array(ids, np.int32) for ids in ([5, 9, 2, 40, 7, 7, 1], [3], [60, 11, 12, 13])]


def random_model(config):
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
    generator = np.random.default_rng(0)
    draw = lambda a: jnp.asarray(generator.normal(0, 1 if a.ndim == 1 else a.shape[-2] ** -0.5, a.shape), a.dtype)  # noqa: E731
    return graphdef, (jax.tree.map(draw, shapes),)


@pytest.fixture(scope="module")
def model():
    return random_model(CONFIG)


@pytest.fixture(scope="module")
def plain(model):
    return passes(*model)


def passes(graphdef, params):
    """What gives the likeliest tokens after a prompt, each from a pass over everything before it."""

    @jax.jit
    def following(tokens, length):
        decoder = nnx.merge(graphdef, *params)
        T = tokens.shape[1]
        hidden = decoder(tokens, jnp.arange(T, dtype=jnp.int32)[None], jnp.full((1, T), T, jnp.int32))
        return decoder.logits(hidden)[0, length - 1].argmax()

    def continued(prompt, count):
        row, n = np.zeros((1, 48), np.int32), len(prompt)
        row[0, :n] = prompt
        for i in range(n, n + count):
            row[0, i] = following(row, i)
        return row[0, n : n + count]

    return continued


def test_greedy_decoding_equals_plain_passes(model, plain):
    for prompt, made in zip(PROMPTS, generate(*model, PROMPTS, SamplingParams(tokens=12))):
        np.testing.assert_array_equal(made, plain(prompt, 12))


def left_padded():
    tokens, valid = np.zeros((3, 32), np.int32), np.zeros((3, 32), bool)
    for row, prompt in enumerate(PROMPTS):
        tokens[row, -len(prompt) :], valid[row, -len(prompt) :] = prompt, True
    return tokens, valid


def test_layers_that_keep_a_state_decode_as_plain_passes_whatever_the_padding():
    """The last two of three keep one; prompts are shorter than what its convolution sees, and longer."""
    state = LinearConfig(layers=(1, 2), value_heads=2, key_width=8, value_width=10)
    model = random_model(dataclasses.replace(CONFIG, window=None, sliding_layers=None, linear=state, output_gate=True))
    continued = passes(*model)
    expected, sampling = [continued(prompt, 12) for prompt in PROMPTS], SamplingParams(tokens=12)
    np.testing.assert_array_equal(generate(*model, PROMPTS, sampling), expected)
    made, _ = decode(model[0], sampling, model[1], *left_padded(), jax.random.key(0))
    np.testing.assert_array_equal(made, expected)


def test_padding_on_either_side_changes_nothing(model, plain):
    tokens, valid = left_padded()
    made, count = decode(model[0], SamplingParams(tokens=12), model[1], tokens, valid, jax.random.key(0))
    assert count.tolist() == [12] * 3
    for row, prompt in zip(made, PROMPTS):
        np.testing.assert_array_equal(row, plain(prompt, 12))


def test_rows_are_split_over_the_mesh_which_changes_nothing(model, plain, monkeypatch):
    """Three prompts on four shards of rows: the last one appears twice."""
    asked = []
    monkeypatch.setattr(decoding, "decode", lambda *args: asked.append(args[3]) or decode(*args))
    graphdef, (state,) = model
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = (jax.device_put(state, lay_out_tree(state, mesh).shardings),)
    for prompt, made in zip(PROMPTS, generate(graphdef, spread, PROMPTS, SamplingParams(tokens=6)), strict=True):
        np.testing.assert_array_equal(made, plain(prompt, 6))
    assert {shard.data.shape for shard in asked[0].addressable_shards} == {(1, decoding.BUCKET)}


def test_any_number_of_prompts_in_batches(model):
    prompts = [*PROMPTS, PROMPTS[0]]
    whole, sampling = generate(*model, prompts, SamplingParams(tokens=5)), SamplingParams(tokens=5)
    for a, b in zip(generate_all(*model, prompts, sampling, 3), whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_row_ends_with_its_stop_token_and_the_others_go_on(model, plain):
    expected = [plain(prompt, 12).tolist() for prompt in PROMPTS]
    stop = expected[0][3]
    made = generate(*model, PROMPTS, SamplingParams(tokens=12, stop=(stop, 1000)))
    for got, full in zip(made, expected):
        end = full.index(stop) + 1 if stop in full else 12
        assert got.tolist() == full[:end]
    assert len(made[0]) <= 4


def test_draws_follow_the_seed_and_the_nucleus(model):
    def drawn(seed, **how):
        return np.stack(generate(*model, PROMPTS, SamplingParams(tokens=8, **how), jax.random.key(seed)))

    hot = {"temperature": 1.5, "top_p": 0.9}
    np.testing.assert_array_equal(drawn(0, **hot), drawn(0, **hot))
    assert (drawn(0, **hot) != drawn(1, **hot)).any()
    np.testing.assert_array_equal(drawn(0, temperature=1.0, top_p=1e-6), drawn(0))


def test_the_nucleus_keeps_the_likeliest_tokens_that_reach_top_p():
    logits = jnp.log(jnp.array([[0.1, 0.5, 0.05, 0.3, 0.05]]))
    kept = [np.isfinite(nucleus(logits, p))[0].nonzero()[0].tolist() for p in (0.4, 0.5, 0.6, 0.85, 1.0)]
    assert kept == [[1], [1], [1, 3], [0, 1, 3], [0, 1, 2, 3, 4]]


def test_wrong_requests_are_named(model):
    for how in ({"tokens": 0}, {"tokens": 1, "temperature": -1.0}, {"tokens": 1, "top_p": 0.0}):
        with pytest.raises(InputError, match="top_p"):
            SamplingParams(**how)
    with pytest.raises(InputError, match="prompt is empty"):
        generate(*model, [np.array([], np.int32)], SamplingParams(tokens=1))
    with pytest.raises(InputError, match="needs a seed"):
        generate(*model, PROMPTS, SamplingParams(tokens=1, temperature=1.0))
