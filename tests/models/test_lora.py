"""Adapters: the identity at the start, PEFT's scaling, what trains, and the merged kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.models.decoder import Decoder
from fit_jax.models.hash_random import Seed
from fit_jax.models.lora import Linear, LoraParam, trainable_filter
from fit_jax.models.lora_config import LoraConfig

from ..closeness import assert_close


@pytest.mark.parametrize("dora", [False, True])
def test_a_fresh_adapter_is_the_identity(tiny, build, row, dora):
    inputs = row(2, 8, tiny.vocab_size)
    lora = LoraConfig(rank=3, dora=dora)

    @jax.jit
    def outputs():
        adapted = Decoder(tiny, lora, rngs=nnx.Rngs(0))
        base = nnx.state(adapted, lambda _, v: not isinstance(v, LoraParam))
        plain = nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: Decoder(tiny, rngs=nnx.Rngs(0)))), base)
        return adapted(*inputs), plain(*inputs)

    assert_close(*outputs(), tolerance=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("dora", [False, True])
def test_the_merged_kernel_computes_the_same(tiny, rslora, dora):
    lora = LoraConfig(rank=4, alpha=6.0, rslora=rslora, dora=dora)
    assert lora.scaling == (3.0 if rslora else 1.5)
    linear = Linear("q_proj", 12, 20, tiny, lora, seed=Seed.of(jax.random.key(0)))
    linear.lora_b[...] = 0.3 * jax.random.normal(jax.random.key(1), (4, 20))
    if dora:
        linear.lora_magnitude[...] = linear.lora_magnitude[...] * jnp.linspace(0.5, 2.0, 20)
    x = jax.random.normal(jax.random.key(2), (5, 12))
    assert_close(linear(x), x @ linear.merged_kernel(), tolerance=1e-5)


def test_the_norms_of_dora_carry_no_gradient(tiny):
    """The gradient is that of a kernel whose columns are divided by constants (Liu et al., 2024, section 4.3)."""
    lora = LoraConfig(rank=4, alpha=6.0, dora=True)
    linear = Linear("q_proj", 12, 20, tiny, lora, seed=Seed.of(jax.random.key(0)))
    linear.lora_b[...] = 0.3 * jax.random.normal(jax.random.key(1), (4, 20))
    x, wanted = (jax.random.normal(jax.random.key(n), shape) for n, shape in ((2, (5, 12)), (3, (5, 20))))
    graphdef, state = nnx.split(linear)
    gradient = jax.grad(lambda s: (nnx.merge(graphdef, s)(x) * wanted).sum())(state)
    norms = jnp.linalg.norm(linear.merged_direction(), axis=0)

    def by_constants(a, b):
        kernel = linear.kernel[...] + lora.scaling * a @ b
        return (x @ (kernel * (linear.lora_magnitude[...] / norms)[None]) * wanted).sum()

    expected = jax.grad(by_constants, argnums=(0, 1))(linear.lora_a[...], linear.lora_b[...])
    assert_close(gradient.lora_a[...], expected[0], tolerance=1e-5)
    assert_close(gradient.lora_b[...], expected[1], tolerance=1e-5)


def test_targets_choose_the_projections(tiny):
    lora = LoraConfig(rank=2, targets=("q_proj", "down_proj"))
    state = nnx.state(nnx.eval_shape(lambda: Decoder(tiny, lora, rngs=nnx.Rngs(0))), LoraParam)
    adapted = {str(path[-2]) for path, _ in nnx.to_flat_state(state)}
    assert adapted == {"q_proj", "down_proj"}


def test_only_adapters_train_and_the_base_stays(tiny, build, row):
    lora = LoraConfig(rank=2)
    graphdef, trainable, frozen = nnx.split(build(tiny, lora).decoder, trainable_filter(lora), ...)
    assert all("lora_" in str(path[-1]) for path, _ in nnx.to_flat_state(trainable))
    assert not any("lora_" in str(path[-1]) for path, _ in nnx.to_flat_state(frozen))
    inputs = row(1, 6, tiny.vocab_size)
    gradient = jax.jit(jax.grad(lambda t: (nnx.merge(graphdef, t, frozen)(*inputs) ** 3).sum()))(trainable)
    assert all((leaf[...] != 0).any() for _, leaf in nnx.to_flat_state(gradient))


def test_everything_trains_without_lora(tiny):
    model = nnx.eval_shape(lambda: Decoder(tiny, rngs=nnx.Rngs(0)))
    _, trainable, rest = nnx.split(model, trainable_filter(LoraConfig()), ...)
    assert jax.tree.leaves(trainable)
    assert not jax.tree.leaves(rest)


def test_adapter_dropout_acts_only_in_training(tiny, build, row):
    inputs = row(2, 8, tiny.vocab_size)
    model = build(tiny, LoraConfig(rank=3, dropout=0.5))
    plain = build(tiny, LoraConfig(rank=3, dropout=0.0))
    np.testing.assert_array_equal(model(*inputs), plain(*inputs))
    drawn = model(*inputs, deterministic=False, dropout_key=jax.random.key(0))
    assert not jnp.allclose(drawn, plain(*inputs))
    same = plain(*inputs, deterministic=False, dropout_key=jax.random.key(0))
    np.testing.assert_array_equal(same, plain(*inputs))
