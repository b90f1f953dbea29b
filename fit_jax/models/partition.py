"""Where activations lie on the mesh in context: split by rows and by tokens, or by rows and by heads."""

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from fit_jax.parallel.config import CONTEXT, ROWS, TENSOR


def by_rows(x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Holds the residual stream split by rows and tokens, whole in width; unchanged where no mesh is in context.

    Left to itself the partitioner splits the width as the weights are split over `fsdp`, and then sums whole
    feed-forward activations over all devices instead of gathering weights.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x_BTD
    # Decoding reads one token of a row at a time, which `context` does not divide.
    tokens = CONTEXT if x_BTD.shape[1] % mesh.shape[CONTEXT] == 0 else None
    return jax.lax.with_sharding_constraint(x_BTD, P(ROWS, tokens, None))


def by_heads(x_BTHG: Float[Array, "B T H G"]) -> Float[Array, "B T H G"]:
    """Holds heads split by rows and over `tensor`, where it divides them, each with all tokens of its rows."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x_BTHG
    heads = TENSOR if x_BTHG.shape[2] % mesh.shape[TENSOR] == 0 else None
    return jax.lax.with_sharding_constraint(x_BTHG, P(ROWS, None, heads, None))
