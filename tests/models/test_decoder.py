"""Properties of the decoder: who sees whom, and that every shortcut computes the same."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.models.attention import Scope
from fit_jax.models.decoder import Decoder
from fit_jax.models.layer_kinds import all_stacks
from fit_jax.models.linear_config import LinearConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.rope_config import RopeConfig
from fit_jax.models.token_paths import paths_of
from fit_jax.parallel.sharding import named_leaves

from ..closeness import assert_close

TOLERANCE = 2e-5

LONGROPE = RopeConfig(
    kind="longrope",
    short_factors=(1.0, 1.2, 1.5, 2.0),
    long_factors=(1.0, 2.0, 3.0, 5.0),
    original_max_positions=7,
    attention_factor=1.2,
    partial=0.7,
    temperature_beta=0.4,
)

VARIANTS = {
    "plain": {},
    "switches": {
        "window": 4,
        "sliding_layers": (0, 2),
        "sliding_theta": 100.0,
        "activation": "gelu_tanh",
        "post_norms": True,
        "norm_offset": True,
        "embed_scale": True,
        "attention_softcap": 5.0,
        "logit_softcap": 3.0,
        "query_scale": 12.0,
        "head_dim": 12,
        "qk_norm": True,
        "qkv_bias": True,
        "tied": False,
        "rope": LONGROPE,
        "nope_layers": (1,),
        "embed_multiplier": 3.0,
        "residual_multiplier": 0.4,
        "attention_multiplier": 0.5,
    },
    "experts": {
        "experts": 3,
        "experts_per_token": 2,
        "experts_bias": True,
        "activation": "clamped_swiglu",
        "swiglu_limit": 1.0,
        "o_bias": True,
        "attention_sinks": True,
        "window": 4,
        "sliding_layers": (0, 2),
    },
    # Two slide and one does not, twice; one more that slides; and the last.
    "kinds": {
        "layers": 8,
        "window": 4,
        "sliding_layers": (0, 1, 3, 4, 6),
        "sliding_theta": 100.0,
        "full_head_dim": 12,
        "full_kv_heads": 1,
        "keys_as_values": True,
        "value_norm": True,
        "layer_scale": True,
        "qk_norm": True,
        "rope": RopeConfig(kind="proportional", partial=0.4, factor=2.0),
    },
    "experts beside": {
        "experts": 3,
        "expert_width": 16,
        "experts_per_token": 2,
        "window": 4,
        "sliding_layers": (0, 1),
        "full_head_dim": 16,
    },
    # The last five share keys and values of the two before them; of these, two kinds take turns.
    "shares": {
        "layers": 9,
        "window": 4,
        "sliding_layers": (0, 2, 4, 6),
        "sharing_layers": 5,
        "sharing_feed_forward": 64,
        "layer_input": 6,
        "layer_input_vocab": 98,
        "layer_scale": True,
    },
    # Layers that keep a state take turns with those that attend, with gates; the last keeps one too.
    "linear": {
        "layers": 5,
        "linear": LinearConfig(layers=(0, 2, 4), key_heads=2, value_heads=4, key_width=8, value_width=10),
        "output_gate": True,
        "qk_norm": True,
        "norm_offset": True,
        "rope": RopeConfig(partial=0.5),
    },
    "norms": {"pre_norms": False, "post_norms": True, "qk_norm": True, "qk_norm_whole": True, "logit_divisor": 3.0},
}


# Families with these compute as transformers does in the default run of the tests, too (test_families.py).
SLOW = ("experts beside", "shares", "linear", "norms")


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in VARIANTS])
def config(request, tiny):
    return dataclasses.replace(tiny, **VARIANTS[request.param])


def test_a_token_depends_on_itself_and_earlier_tokens_only(config, build, row):
    model = build(config)
    _, positions, visible = row(1, 10, config.vocab_size)

    @jax.jit
    def gradient(query):
        def hidden_sum(embedding):
            decoder = model.decoder
            decoder.embed.embedding = nnx.Param(embedding)
            return decoder(jnp.arange(10, dtype=jnp.int32)[None], positions, visible)[0, query].sum()

        return jax.grad(hidden_sum)(model.state["embed"]["embedding"][...])

    for query in (0, 4, 9):
        touched = np.abs(np.asarray(gradient(query))[:10]).sum(axis=1) > 0
        assert touched[: query + 1][-4:].all()
        assert not touched[query + 1 :].any()


def test_packed_rows_equal_rows_of_their_own(config, build, row):
    model = build(config)
    tokens, positions, visible = row(2, 7, config.vocab_size)
    packed = model(
        tokens.reshape(1, 14), positions.reshape(1, 14), jnp.repeat(jnp.array([[7, 14]], jnp.int32), 7, axis=1)
    )
    assert_close(packed.reshape(2, 7, -1), model(tokens, positions, visible), TOLERANCE)


def test_a_branch_of_a_tree_equals_the_plain_sequence(config, build, row):
    """Prefix of 4 tokens shared by branches of 4 tokens each, the second laid out after the first."""
    model = build(config)
    ids, positions, visible = row(1, 12, config.vocab_size)
    tree = model(
        ids,
        jnp.array([[0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]], jnp.int32),
        jnp.array([[12, 12, 12, 12, 8, 8, 8, 8, 12, 12, 12, 12]], jnp.int32),
    )[0]
    for branch in (slice(4, 8), slice(8, 12)):
        tokens = jnp.concatenate([ids[:, :4], ids[:, branch]], axis=1)
        plain = model(tokens, positions[:, :8], visible[:, :8])[0]
        assert_close(jnp.concatenate([tree[:4], tree[branch]]), plain, TOLERANCE)


def test_positions_asked_for_equal_all_positions_gathered(config, build, row):
    model = build(config)
    inputs = row(2, 9, config.vocab_size)
    index = jnp.array([[8, 0, 3], [5, 5, 1]], jnp.int32)
    expected = jnp.take_along_axis(model(*inputs), index[:, :, None], axis=1)
    assert_close(model(*inputs, index), expected, TOLERANCE)


def test_padding_changes_nothing_and_stays_finite(config, build, row):
    model = build(config)
    tokens, positions, visible = row(1, 6, config.vocab_size)
    for before, after in ((3, 0), (0, 3)):
        widths = ((0, 0), (before, after))
        padded = model(
            jnp.pad(tokens, widths, constant_values=5),
            jnp.pad(positions, widths),
            jnp.pad(visible + before, widths),
        )
        assert jnp.isfinite(padded).all()
        assert_close(padded[:, before : before + 6], model(tokens, positions, visible), TOLERANCE)


def test_the_scan_equals_its_layers_in_turn(config, build, row):
    model = build(config)
    tokens, positions, visible = row(2, 9, config.vocab_size)
    index = jnp.tile(jnp.arange(9, dtype=jnp.int32)[None], (2, 1))
    scope = Scope(index, positions, positions, visible)

    def as_it_is(scope, q, k, gather):
        return scope

    @jax.jit
    def unrolled():
        decoder = model.decoder
        ropes, x = decoder.ropes(positions), decoder.embed_tokens(tokens)
        angles = [ropes.of(config.slides(number), config.rotates(number)) for number in range(config.layers)]
        inputs = decoder.layer_inputs(tokens, x) if config.layer_input else [None] * config.layers
        layers, reused = {config.layers - 1: decoder.last_block}, {}
        for name, stack in all_stacks(config.scanned_kinds()).items():
            graphdef, stacked = nnx.split(decoder.stack(name))
            for n, number in enumerate(stack.layers):
                layers[number] = nnx.merge(graphdef, jax.tree.map(lambda a, n=n: a[n], stacked))
        for number, block in sorted(layers.items()):
            slides = config.slides(number)
            normed = block.read(x, None)
            if (rule := block.linear_attention) is not None:
                y, _ = rule(*normed, paths_of(scope, config.linear.conv_width - 1), None, None)
                x, _ = block.finish(x, y, rule.out_proj, None, None)
                continue
            if number < config.layers - config.sharing_layers:
                reused[slides] = block.attention.keys_values(*normed, angles[number])
            rule = scope, angles[number], decoder.window(slides)
            x, _ = block.write(x, normed, *reused[slides], *rule, None, as_it_is, inputs[number])
        return decoder.final_norm(x)

    assert_close(model(tokens, positions, visible), unrolled(), TOLERANCE)


@pytest.fixture(scope="module")
def gradients(tiny, build, row):
    """Value and gradients of a loss with dropout, by what is computed again in the backward pass."""
    inputs = row(2, 8, tiny.vocab_size)
    lora = LoraConfig(rank=2, dropout=0.3)

    @functools.cache
    def compute(policy):
        graphdef, state = build(tiny, lora, remat=policy, dropout=0.2)

        def loss(state):
            hidden = nnx.merge(graphdef, state)(*inputs, deterministic=False, dropout_key=jax.random.key(3))
            return (hidden * jnp.cos(jnp.arange(hidden.size, dtype=jnp.float32)).reshape(hidden.shape)).sum()

        return jax.jit(jax.value_and_grad(loss))(state)

    return compute


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_neither_values_nor_gradients(gradients, remat):
    # Rounding is up to 2 % of the smallest gradients, those of keys; another draw of dropout is as large as they are.
    jax.tree.map(lambda a, b: assert_close(a, b, 0.1), gradients("none"), gradients(remat))


def test_one_layer_needs_no_stack(tiny, build, row):
    model = build(tiny, layers=1)
    assert model.decoder.blocks is None
    assert jnp.isfinite(model(*row(1, 5, tiny.vocab_size))).all()


def test_bfloat16_follows_float32(tiny, build, row):
    inputs = row(2, 7, tiny.vocab_size)
    low = build(tiny, param_dtype="bfloat16", compute_dtype="bfloat16")(*inputs)
    assert low.dtype == jnp.bfloat16
    assert_close(low.astype(jnp.float32), build(tiny)(*inputs), 0.03)


def test_dropout_acts_only_when_not_deterministic(tiny, build, row):
    inputs = row(2, 8, tiny.vocab_size)
    model = build(tiny, dropout=0.3)
    plain = model(*inputs)
    np.testing.assert_array_equal(plain, model(*inputs, dropout_key=jax.random.key(0)))
    drawn = [model(*inputs, deterministic=False, dropout_key=jax.random.key(n)) for n in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not jnp.allclose(drawn[0], drawn[2])
    assert not jnp.allclose(drawn[0], plain)
    with pytest.raises(ValueError, match="dropout_key"):
        model(*inputs, deterministic=False)


def test_shapes_are_known_without_weights(tiny):
    abstract = nnx.eval_shape(lambda: Decoder(tiny, rngs=nnx.Rngs(0)))
    paths = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(abstract))}
    assert {"embed.embedding", "blocks.attention.q_proj.kernel", "last_block.mlp.down_proj.kernel"} <= paths
    assert abstract.blocks.attention.k_proj.kernel.shape == (2, 32, 16)


def test_initial_weights_have_the_scale_that_keeps_activations(tiny):
    state = jax.jit(lambda: nnx.state(Decoder(tiny, rngs=nnx.Rngs(0))))()
    std = {".".join(map(str, path)): float(leaf[...].std()) for path, leaf in nnx.to_flat_state(state)}
    assert std["blocks.attention.q_proj.kernel"] == pytest.approx(32**-0.5, rel=0.1)
    assert std["blocks.mlp.down_proj.kernel"] == pytest.approx((48 * 6) ** -0.5, rel=0.1)
    first, second = state["blocks"]["attention"]["q_proj"]["kernel"][...]
    assert not jnp.allclose(first, second)


def test_the_factor_on_a_layers_output_is_not_trained(tiny, build, row):
    graphdef, state = build(tiny, layer_scale=True)
    inputs = row(1, 5, tiny.vocab_size)
    gradient = jax.jit(jax.grad(lambda state: jnp.sum(nnx.merge(graphdef, state)(*inputs) ** 2)))(state)
    largest = {path: float(jnp.abs(leaf).max()) for path, leaf in named_leaves(gradient).items()}
    of_factors = [value for path, value in largest.items() if path.endswith("layer_scale")]
    assert of_factors == [0, 0]  # of the stacked layers and of the last
    assert all(value > 0 for path, value in largest.items() if "block" in path and path.endswith("kernel"))
