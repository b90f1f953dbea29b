"""A loss that keeps a mixture's experts in use: without it, training the whole model may send all tokens to a few.

DeepSeek-V3 (2024), equations 17 to 20, with a row of the batch, which may hold several sequences, in the place of a
sequence, and the softmax of the router in that of their normalised sigmoids. Of one sequence and one layer it is the
loss of Switch Transformers (Fedus et al. 2022, equations 4 to 6). Each row counts for itself, so that microbatches and
meshes change nothing.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fit_jax.data.packing import Batch
from fit_jax.models.block import LayerHook, LayerNumber
from fit_jax.models.experts import Routing


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExpertBalance(LayerHook):
    """Sums over the layers how unevenly each row's tokens are spread over the experts.

    Attributes:
        tokens: 1 for the tokens of rows, 0 for padding.
        targets: 1 for the targets of rows, 0 for padding: the last layer runs at these alone.
        uneven: Of each row, the sum over the layers so far; a layer that spreads its tokens evenly adds 1.
    """

    tokens: Float[Array, "B T"]
    targets: Float[Array, "B C"]
    uneven: Float[Array, " B"]

    @classmethod
    def of(cls, rows: Batch) -> "ExpertBalance":
        """Before the first layer."""
        tokens = (rows.visible_until > 0).astype(jnp.float32)
        return cls(tokens, (rows.target_weight > 0).astype(jnp.float32), jnp.zeros(tokens.shape[0], jnp.float32))

    def routed(self, layer: LayerNumber, routing: Routing, index_BC: Int[Array, "B C"] | None) -> "ExpertBalance":
        """Adds E / k times the sum over experts of its share of the choices times the mean of its scores."""
        counted = (self.tokens if index_BC is None else self.targets)[..., None]
        experts, each = routing.scores.shape[-1], routing.chosen.shape[-1]
        taken = jax.nn.one_hot(routing.chosen, experts, dtype=jnp.float32).sum(axis=2)
        tokens = jnp.maximum(counted.sum(axis=1), 1)
        shares_BE = (taken * counted).sum(axis=1) / tokens
        means_BE = (routing.scores * counted).sum(axis=1) / tokens
        return replace(self, uneven=self.uneven + experts / each * (shares_BE * means_BE).sum(axis=-1))


def row_shares(rows: Batch) -> Float[Array, " B"]:
    """Each row's share of the tokens of the global batch, which is what its unevenness weighs."""
    tokens = (rows.visible_until > 0).sum(axis=1).astype(jnp.float32)
    return tokens / jnp.maximum(tokens.sum(), 1)
