"""The sublayer of layers that keep a state: a gated delta rule between projections, a convolution and a gated norm."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from fit_jax.models.attention import take
from fit_jax.models.config import DecoderConfig
from fit_jax.models.delta_rule import delta_rule
from fit_jax.models.hash_random import Seed
from fit_jax.models.layers import RMSNorm
from fit_jax.models.lora import Linear
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.partition import by_heads
from fit_jax.models.token_paths import Paths, convolved

# Rates from which decays start, per token where its step is 1.
_FASTEST, _SLOWEST = 16.0, 0.01


class LinearState(NamedTuple):
    """What is left of the tokens that were read, of each row: all that later ones need of them.

    Attributes:
        memory: The delta rule's state, fp32.
        tail: What the convolution reads of the last n of them.
    """

    memory: Float[Array, "B H d e"]
    tail: Float[Array, "B n M"]


def empty_state(config: DecoderConfig, rows: int) -> LinearState:
    """The state of rows of which nothing was read."""
    shape = config.linear
    memory = jnp.zeros((rows, shape.value_heads, shape.key_width, shape.value_width), jnp.float32)
    tail = jnp.zeros((rows, shape.conv_width - 1, shape.mixed), jnp.dtype(config.compute_dtype))
    return LinearState(memory, tail)


class LinearAttention(nnx.Module):
    """Projections, convolution and gates around `delta_rule` (Qwen 3.5)."""

    def __init__(self, config: DecoderConfig, lora: LoraConfig, *, seed: Seed) -> None:
        """Random weights; the output projection is scaled down by the depth."""
        D, shape, dtype = config.width, config.linear, jnp.dtype(config.param_dtype)
        self.config = config
        given = config, lora
        self.in_proj_qkv = Linear("in_proj_qkv", D, shape.mixed, *given, seed=seed.fold(0))
        self.in_proj_z = Linear("in_proj_z", D, shape.values, *given, seed=seed.fold(1))
        self.in_proj_b = Linear("in_proj_b", D, shape.value_heads, *given, seed=seed.fold(2))
        self.in_proj_a = Linear("in_proj_a", D, shape.value_heads, *given, seed=seed.fold(3))
        depth = (2 * config.layers) ** -0.5
        self.out_proj = Linear("out_proj", shape.values, D, *given, scale=depth, seed=seed.fold(4))
        width = shape.conv_width
        self.conv = nnx.Param(seed.fold(5).weights((shape.mixed, 1, width), width**-0.5, dtype))
        rates = seed.fold(6).uniform((shape.value_heads,), _FASTEST / 2) + _FASTEST / 2
        self.log_rate = nnx.Param(jnp.log(jnp.maximum(rates, _SLOWEST)).astype(dtype))
        self.step_bias = nnx.Param(jnp.ones((shape.value_heads,), dtype))
        self.norm = RMSNorm(shape.value_width, replace(config, norm_offset=False))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        adapter_x: Float[Array, "B T D"],
        paths: Paths,
        index_BC: Int[Array, "B C"] | None,
        state: LinearState | None,
    ) -> tuple[Float[Array, "B C He"], LinearState | None]:
        """What the tokens asked for gather, heads side by side; `out_proj` is yet to be applied.

        Args:
            x: Normalised inputs of all tokens.
            adapter_x: The same after the adapter's dropout.
            paths: How the tokens follow each other.
            index_BC: Places of the tokens asked for; None means all.
            state: What was read before, where something was; it is then handed on.
        """
        shape = self.config.linear
        mixed = self.in_proj_qkv(x, adapter_x)
        tail = jnp.zeros((x.shape[0], shape.conv_width - 1, shape.mixed), x.dtype) if state is None else state.tail
        # Held whole in tokens, whose ancestors may lie on other devices.
        extended = by_heads(jnp.concatenate([tail, mixed], axis=1)[:, :, :, None])[..., 0]
        made = jax.nn.silu(convolved(extended, self.conv[...][:, 0], paths))
        keys = shape.key_heads * shape.key_width
        q, k, v = (
            by_heads(part.reshape(*part.shape[:2], -1, width))
            for part, width in zip(
                jnp.split(made, (keys, 2 * keys), axis=-1), (shape.key_width, shape.key_width, shape.value_width)
            )
        )
        beta = jax.nn.sigmoid(self.in_proj_b(x, adapter_x).astype(jnp.float32))
        step = self.in_proj_a(x, adapter_x).astype(jnp.float32) + self.step_bias[...].astype(jnp.float32)[None, None]
        decay = -jnp.exp(self.log_rate[...].astype(jnp.float32))[None, None] * jax.nn.softplus(step)
        memory = None if state is None else state.memory
        y, memory = delta_rule(q, k, v, decay, beta, paths, index_BC, memory)
        after = None if memory is None else LinearState(memory, take(extended, paths.tail))

        if index_BC is not None:
            x, adapter_x = take(x, index_BC), take(adapter_x, index_BC)
        gate = jax.nn.silu(self.in_proj_z(x, adapter_x).astype(jnp.float32))
        y = self.norm(y).reshape(*gate.shape) * gate
        return y.astype(x.dtype), after
