"""Whether two models compute the same: what an export is checked by before it is declared done."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Params

# Largest difference of logits, relative to the largest logit, that rounding of the weights to a dtype explains.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
ROWS, TOKENS = 2, 64


@dataclass(frozen=True)
class Agreement:
    """How far the logits of two models lie apart on the same tokens.

    Attributes:
        largest: Largest absolute difference.
        mean: Mean absolute difference.
        scale: Largest absolute logit of the first model.
        same_argmax: Share of positions at which both find the same token likeliest.
    """

    largest: float
    mean: float
    scale: float
    same_argmax: float

    def within(self, dtype: str) -> bool:
        """Whether the difference is no more than storing weights in this dtype explains."""
        return self.largest <= TOLERANCE[dtype] * self.scale


def compare(first: Float[np.ndarray, "B T V"], second: Float[np.ndarray, "B T V"]) -> Agreement:
    """The agreement of two models' logits."""
    difference = np.abs(first - second)
    same = (first.argmax(-1) == second.argmax(-1)).mean()
    return Agreement(float(difference.max()), float(difference.mean()), float(np.abs(first).max()), float(same))


def probe_tokens(config: DecoderConfig) -> Int[np.ndarray, "B T"]:
    """Random tokens, always the same for one vocabulary."""
    return np.random.default_rng(0).integers(0, config.vocab_size, (ROWS, TOKENS), np.int32)


def probe_logits(graphdef: nnx.GraphDef, params: Params, tokens: Int[np.ndarray, "B T"]) -> np.ndarray:
    """A decoder's logits, fp32, at every position of plain rows."""
    return np.asarray(_logits(graphdef, params, jnp.asarray(tokens)))


@partial(jax.jit, static_argnums=0)
def _logits(graphdef: nnx.GraphDef, params: Params, tokens: jax.Array) -> jax.Array:
    decoder = nnx.merge(graphdef, *params)
    B, T = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None], (B, T))
    return decoder.logits(decoder(tokens, positions, jnp.full((B, T), T, jnp.int32)))
