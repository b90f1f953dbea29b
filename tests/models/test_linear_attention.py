"""Layers that keep a state, in a decoder: forests of branches as plain rows, frozen bases in few bits, shapes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.errors import InputError
from fit_jax.models.config import EXPERT_PROJECTIONS, PROJECTIONS, DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.layer_kinds import layer_groups
from fit_jax.models.linear_config import LINEAR_PROJECTIONS, LINEAR_PROJECTIONS_BY_HEAD, LinearConfig
from fit_jax.models.lora import Linear
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.quantize import QuantizedKernel
from fit_jax.parallel.sharding import named_leaves

from ..closeness import assert_close

# The last layer attends here; that it may keep a state is looked at in test_families.py.
HYBRID = {
    "layers": 2,
    "linear": LinearConfig(layers=(0,), key_heads=2, value_heads=4, key_width=8, value_width=10),
    "output_gate": True,
    "norm_epsilon": 1e-3,
    "tied": True,
}


# With experts beside one that all tokens share, and projections by head.
MIXTURE = {"experts": 4, "expert_width": 24, "shared_expert": True}
MIXTURE |= {"linear": dataclasses.replace(HYBRID["linear"], by_head=True)}
OF_MIXTURE = (*PROJECTIONS, *LINEAR_PROJECTIONS_BY_HEAD, *(f"experts.{name}" for name in EXPERT_PROJECTIONS))


@pytest.fixture(scope="module")
def config(tiny) -> DecoderConfig:
    return dataclasses.replace(tiny, **HYBRID)


@pytest.mark.parametrize(
    ("changes", "lora"),
    [
        ({}, LoraConfig(rank=2, targets=(*PROJECTIONS, *LINEAR_PROJECTIONS))),
        pytest.param(MIXTURE, LoraConfig(rank=2, targets=OF_MIXTURE, experts=True), marks=pytest.mark.slow),
    ],
    ids=["dense", "mixture"],
)
def test_packed_branches_and_padding_give_the_outputs_and_gradients_of_plain_rows(config, build, changes, lora):
    """A tree of two branches, the first with two of its own, another text behind it, and padding around and between."""
    config = dataclasses.replace(config, **changes)
    graphdef, state = build(config, lora)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, 26, np.int32)
    ends = [0, 0, *[15] * 4, *[12] * 2, *[10] * 2, *[12] * 2, *[15] * 3, 0, *[26] * 10][:26]
    texts = [(2, 3, 4, 5, 6, 7, 8, 9), (2, 3, 4, 5, 6, 7, 10, 11), (2, 3, 4, 5, 12, 13, 14), tuple(range(16, 26))]
    places = np.zeros((4, 10), np.int32)
    positions = np.zeros(26, np.int32)
    for row, text in enumerate(texts):
        places[row, : len(text)] = text
        positions[list(text)] = np.arange(len(text))
    length = np.array([[len(text)] for text in texts], np.int32)
    factors = jnp.asarray(np.random.default_rng(1).normal(size=(4, 10, config.width)), jnp.float32)
    real = jnp.arange(10)[None] < length

    def loss(state, packed):
        decoder = nnx.merge(graphdef, state)
        if packed:
            y = decoder(ids[None], positions[None], jnp.asarray([ends], jnp.int32))[0][places]
        else:
            y = decoder(ids[places], np.tile(np.arange(10, dtype=np.int32), (4, 1)), jnp.where(real, length, 0))
        y = jnp.where(real[:, :, None], y, 0)
        return (y * factors).sum(), y

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    ((_, packed), found), ((_, plain), expected) = run(state, True), run(state, False)
    assert_close(packed, plain, 2e-5)
    for path, gradient in named_leaves(expected).items():
        assert_close(named_leaves(found)[path], gradient, 1e-3, path)
        assert np.abs(gradient).max() > 0, path


@pytest.mark.parametrize("by_head", [False, True])
def test_a_last_layer_that_keeps_a_state_gives_the_tokens_that_are_asked_for(config, build, row, by_head):
    linear = dataclasses.replace(config.linear, layers=(1,), by_head=by_head)
    model, inputs = build(dataclasses.replace(config, linear=linear)), row(2, 12, config.vocab_size)
    index = jnp.array([[11, 3], [0, 7]])
    whole = jnp.take_along_axis(model(*inputs), index[..., None], axis=1)
    assert_close(model(*inputs, index), whole, 1e-5)


def test_projections_by_head_are_held_in_few_bits_but_those_of_two_numbers_a_head(config):
    held = dataclasses.replace(config, quantize="nf4", **MIXTURE)
    decoder = nnx.eval_shape(lambda: Decoder(held, rngs=nnx.Rngs(0)))
    modules = [(path, module) for path, module in nnx.iter_modules(decoder) if hasattr(module, "kernel")]
    quantised = {path[-1]: isinstance(module.kernel, QuantizedKernel) for path, module in modules}
    assert {name for name, few in quantised.items() if not few} == {"router", "gate", "in_proj_ba"}
    assert {name for name, few in quantised.items() if few} == {*PROJECTIONS, "in_proj_qkvz", "out_proj"}


@pytest.mark.parametrize(("kind", "most_error"), [("int8", 0.02), ("nf4", 0.3)])
@pytest.mark.slow
def test_the_large_projections_are_held_in_few_bits_and_stay_near(config, build, row, kind, most_error):
    exact, inputs = build(config), row(2, 12, config.vocab_size)
    asked = nnx.eval_shape(lambda: Decoder(dataclasses.replace(config, quantize=kind), rngs=nnx.Rngs(0)))
    decoder, held = exact.decoder, set()
    for path, module in nnx.iter_modules(asked):
        if isinstance(module, Linear) and isinstance(module.kernel, QuantizedKernel):
            place = decoder
            for name in path:
                place = getattr(place, name)
            place.kernel = QuantizedKernel(place.kernel[...], kind)
            held.add(path[-1])
    assert held == {*PROJECTIONS, "in_proj_qkv", "in_proj_z", "out_proj"}
    expected = np.asarray(exact(*inputs))
    error = np.abs(np.asarray(jax.jit(lambda: decoder(*inputs))()) - expected).mean() / expected.std()
    assert 0 < error < most_error


def test_three_layers_with_a_state_and_one_that_attends_are_one_step_of_a_loop(config):
    linear = LinearConfig(layers=tuple(n for n in range(32) if (n + 1) % 4))
    large = dataclasses.replace(config, layers=32, linear=linear)
    groups = layer_groups(large.scanned_kinds())
    assert [(group.repeats, [len(stack.layers) for stack in group.stacks]) for group in groups] == [
        (7, [21, 7]),
        (1, [3]),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linear": LinearConfig(layers=(2,))}, r"model\.linear\.layers: there is no layer 2; they are 0 to 1"),
        ({"linear": LinearConfig(key_heads=0)}, r"model\.linear\.key_heads: 0 is not from 1 to"),
        ({"linear": LinearConfig(key_heads=2, value_heads=3)}, "3 heads do not divide into 2 key heads"),
        ({"sharing_layers": 1}, r"model\.sharing_layers: not beside layers that keep a state"),
    ],
)
def test_shapes_that_no_such_layers_have_are_told(config, changes, message):
    with pytest.raises(InputError, match=message) as error:
        dataclasses.replace(config, **changes).check()
    assert "\n" not in str(error.value)
