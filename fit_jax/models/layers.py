"""Norms and the gated feed-forward layer."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fit_jax.models.config import DecoderConfig, ModelConfig
from fit_jax.models.hash_random import Seed, dropout
from fit_jax.models.lora import Linear
from fit_jax.models.lora_config import LoraConfig


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis, in fp32 whatever the input's dtype."""

    def __init__(self, width: int, config: DecoderConfig) -> None:
        """Starts as a norm with unit scale (a weight of zero where the family scales by 1 + weight)."""
        start = jnp.zeros if config.norm_offset else jnp.ones
        self.scale = nnx.Param(start((width,), jnp.dtype(config.param_dtype)))
        self.offset = 1.0 if config.norm_offset else 0.0
        self.epsilon = config.norm_epsilon

    def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        """The normalised and scaled input, in the input's dtype."""
        x32 = normalized(x.astype(jnp.float32), self.epsilon)
        scale = self.scale[...].astype(jnp.float32) + self.offset
        return (x32 * jnp.expand_dims(scale, tuple(range(x.ndim - 1)))).astype(x.dtype)


def normalized(x: Float[Array, "*n D"], epsilon: float) -> Float[Array, "*n D"]:
    """The input divided by its root mean square over the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon)


def scaled(x: Float[Array, "*n"], factor: float) -> Float[Array, "*n"]:
    """Activations times a factor that the dtype need not hold exactly."""
    return x if factor == 1 else (x.astype(jnp.float32) * factor).astype(x.dtype)


def gated(config: ModelConfig, gate: Float[Array, "*n F"], up: Float[Array, "*n F"]) -> Float[Array, "*n F"]:
    """act(gate) * up; of `clamped_swiglu` act(gate) * (up + 1), both first brought within the limit."""
    if config.activation == "clamped_swiglu":
        gate = jnp.minimum(gate, config.swiglu_limit)
        up = jnp.clip(up, -config.swiglu_limit, config.swiglu_limit)
        return gate * jax.nn.sigmoid(gate * config.swiglu_alpha) * (up + 1)
    return (jax.nn.silu(gate) if config.activation == "silu" else jax.nn.gelu(gate, approximate=True)) * up


class FeedForward(nnx.Module):
    """Gated feed-forward layer: down(act(gate(x)) * up(x))."""

    def __init__(self, width: int, config: DecoderConfig, lora: LoraConfig, *, seed: Seed) -> None:
        """Random weights, of feed-forward width `width`; the output projection is scaled down by the depth."""
        D, F = config.width, width
        self.config = config
        self.adapter_dropout = lora.dropout if lora.rank else 0.0
        self.gate_proj = Linear("gate_proj", D, F, config, lora, seed=seed.fold(0))
        self.up_proj = Linear("up_proj", D, F, config, lora, seed=seed.fold(1))
        depth = (2 * config.layers) ** -0.5
        self.down_proj = Linear("down_proj", F, D, config, lora, scale=depth, seed=seed.fold(2))

    def __call__(
        self, x: Float[Array, "B T D"], input_seed: Seed | None, hidden_seed: Seed | None
    ) -> Float[Array, "B T D"]:
        """Transforms normalised inputs; the seeds draw the adapters' dropout (None: none)."""
        adapter_x = dropout(x, self.adapter_dropout, input_seed)
        hidden = gated(self.config, self.gate_proj(x, adapter_x), self.up_proj(x, adapter_x))
        return self.down_proj(hidden, dropout(hidden, self.adapter_dropout, hidden_seed))
