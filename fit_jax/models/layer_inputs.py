"""What layers read of the tokens besides the residual stream: embeddings of each layer's own (Gemma 4 E2B and E4B)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from fit_jax.models.config import DecoderConfig
from fit_jax.models.hash_random import Seed
from fit_jax.models.layers import RMSNorm, gated
from fit_jax.models.lora import Linear
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.partition import by_rows


class LayerInputs(nnx.Module):
    """For each token and layer a vector of width P, from the token itself and from its embedding in the model."""

    def __init__(self, config: DecoderConfig, *, seed: Seed) -> None:
        """Random weights; those of all layers lie side by side."""
        P, outputs = config.layer_input, config.layers * config.layer_input
        shape = (config.layer_input_vocab or config.vocab_size, outputs)
        self.config = config
        self.embedding = nnx.Param(seed.fold(0).weights(shape, P**-0.5, jnp.dtype(config.param_dtype)))
        self.projection = Linear("projection", config.width, outputs, config, LoraConfig(), seed=seed.fold(1))
        self.norm = RMSNorm(P, config)

    def __call__(self, tokens_BT: Int[Array, "B T"], x_BTD: Float[Array, "B T D"]) -> Float[Array, "L B T P"]:
        """The inputs of all layers, given the tokens and what the first layer reads of them."""
        shape = (*tokens_BT.shape, self.config.layers, self.config.layer_input)
        of_token = by_rows(self.embedding[...][tokens_BT].astype(x_BTD.dtype)).reshape(shape)
        of_token = of_token * jnp.asarray(self.config.layer_input**0.5, x_BTD.dtype)
        projected = by_rows(self.projection(x_BTD)) * jnp.asarray(self.config.width**-0.5, x_BTD.dtype)
        both = (self.norm(projected.reshape(shape)) + of_token) * jnp.asarray(2**-0.5, x_BTD.dtype)
        return jnp.moveaxis(both, 2, 0)


class LayerInput(nnx.Module):
    """What one layer adds to the residual stream of its input: norm(projection(act(gate(x)) * input))."""

    def __init__(self, config: DecoderConfig, *, seed: Seed) -> None:
        """Random weights; the output is scaled down by the depth."""
        D, P, depth = config.width, config.layer_input, (2 * config.layers) ** -0.5
        self.config = config
        self.gate = Linear("gate", D, P, config, LoraConfig(), seed=seed.fold(0))
        self.projection = Linear("projection", P, D, config, LoraConfig(), scale=depth, seed=seed.fold(1))
        self.norm = RMSNorm(D, config)

    def __call__(self, x: Float[Array, "B C D"], given: Float[Array, "B C P"]) -> Float[Array, "B C D"]:
        """Of the residual stream and the layer's inputs at the same tokens."""
        return self.norm(self.projection(gated(self.config, self.gate(x), given)))
