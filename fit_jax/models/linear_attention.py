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


class _Projected(NamedTuple):
    """What is made of the inputs of all tokens: queries, keys and values side by side, two numbers of each head, and
    the gates, where these come with the others."""

    mixed: Float[Array, "B T M"]
    steps: Float[Array, "B T H"]
    decays: Float[Array, "B T H"]
    gates: Float[Array, "B T He"] | None = None


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
        given, sizes = (config, lora), shape.projection_shapes(D)

        def linear(name: str, number: int) -> Linear | None:
            return Linear(name, *sizes[name], *given, seed=seed.fold(number)) if name in sizes else None

        self.in_proj_qkv, self.in_proj_z = linear("in_proj_qkv", 0), linear("in_proj_z", 1)
        self.in_proj_b, self.in_proj_a = linear("in_proj_b", 2), linear("in_proj_a", 3)
        self.in_proj_qkvz, self.in_proj_ba = linear("in_proj_qkvz", 0), linear("in_proj_ba", 2)
        depth = (2 * config.layers) ** -0.5
        self.out_proj = Linear("out_proj", *sizes["out_proj"], *given, scale=depth, seed=seed.fold(4))
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
        mixed, steps, decays, gates = self._projected(x, adapter_x)
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
        beta = jax.nn.sigmoid(steps.astype(jnp.float32))
        step = decays.astype(jnp.float32) + self.step_bias[...].astype(jnp.float32)[None, None]
        decay = -jnp.exp(self.log_rate[...].astype(jnp.float32))[None, None] * jax.nn.softplus(step)
        memory = None if state is None else state.memory
        y, memory = delta_rule(q, k, v, decay, beta, paths, index_BC, memory)
        after = None if memory is None else LinearState(memory, take(extended, paths.tail))

        if index_BC is not None:
            x, adapter_x, gates = jax.tree.map(lambda a: take(a, index_BC), (x, adapter_x, gates))
        gates = self.in_proj_z(x, adapter_x) if gates is None and self.in_proj_z is not None else gates
        assert gates is not None, "by one of the projections"
        gate = jax.nn.silu(gates.astype(jnp.float32))
        y = self.norm(y).reshape(*gate.shape) * gate
        return y.astype(x.dtype), after

    def _projected(self, x: Float[Array, "B T D"], adapter_x: Float[Array, "B T D"]) -> _Projected:
        shape = self.config.linear
        if self.in_proj_qkvz is None or self.in_proj_ba is None:
            assert self.in_proj_qkv is not None, "of two ways one"
            assert self.in_proj_b is not None, "of two ways one"
            assert self.in_proj_a is not None, "of two ways one"
            return _Projected(*(part(x, adapter_x) for part in (self.in_proj_qkv, self.in_proj_b, self.in_proj_a)))
        by_head = (*x.shape[:2], shape.key_heads, -1)
        values = shape.values // shape.key_heads
        ends = shape.key_width, 2 * shape.key_width, 2 * shape.key_width + values
        q, k, v, gates = (
            part.reshape(*x.shape[:2], -1)
            for part in jnp.split(self.in_proj_qkvz(x, adapter_x).reshape(by_head), ends, axis=-1)
        )
        steps, decays = (
            part.reshape(*x.shape[:2], -1)
            for part in jnp.split(self.in_proj_ba(x, adapter_x).reshape(by_head), 2, axis=-1)
        )
        return _Projected(jnp.concatenate([q, k, v], axis=-1), steps, decays, gates)
