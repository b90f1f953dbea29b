"""The vocabulary projection at target positions: log-probabilities without an array of all logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fit_jax.models.decoder import Decoder

# Most target positions of a row whose logits exist at once.
CHUNK = 128


def chunks_of(targets: int) -> tuple[int, int]:
    """How many chunks the target positions of a row are computed in, and how many positions each has."""
    count = -(-targets // CHUNK)
    return count, targets if count == 1 else -(-targets // (8 * count)) * 8


def target_log_probs(
    decoder: Decoder, hidden_BCD: Float[Array, "B C D"], target_ids_BC: Int[Array, "B C"]
) -> tuple[Float[Array, "B C"], Bool[Array, "B C"]]:
    """Log-probability of each target, and whether no other token is likelier; fp32.

    Logits are made for at most `CHUNK` positions of a row at a time, and made again in the backward pass, so that the
    largest array is (B, CHUNK, V) however many targets a row holds.

    Args:
        decoder: Gives the vocabulary projection.
        hidden_BCD: Hidden states that predict the targets.
        target_ids_BC: Target tokens; any id in the vocabulary at unused positions.
    """

    def score(hidden: Array, targets: Array) -> tuple[Array, Array]:
        logits = decoder.logits(hidden)
        chosen = jnp.take_along_axis(logits, targets[:, :, None], axis=-1)[:, :, 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1), chosen >= jnp.max(logits, axis=-1)

    B, C, D = hidden_BCD.shape
    chunks, size = chunks_of(C)
    if chunks == 1:
        return score(hidden_BCD, target_ids_BC)
    pad = chunks * size - C
    hidden = jnp.pad(hidden_BCD, ((0, 0), (0, pad), (0, 0))).reshape(B, chunks, size, D)
    targets = jnp.pad(target_ids_BC, ((0, 0), (0, pad))).reshape(B, chunks, size)
    _, (log_prob, is_argmax) = jax.lax.scan(
        jax.checkpoint(lambda _, xs: (None, score(*xs)), prevent_cse=False),
        None,
        (jnp.moveaxis(hidden, 1, 0), jnp.moveaxis(targets, 1, 0)),
    )
    log_prob, is_argmax = (jnp.moveaxis(a, 0, 1).reshape(B, chunks * size)[:, :C] for a in (log_prob, is_argmax))
    return log_prob, is_argmax
