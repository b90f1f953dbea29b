"""The vocabulary projection at target positions: log-probabilities without an array of all logits."""

from collections.abc import Callable

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
        return _log_prob(logits, targets), _chosen(logits, targets) >= jnp.max(logits, axis=-1)

    return _in_chunks(score, hidden_BCD, target_ids_BC)


def target_divergences(
    decoder: Decoder,
    hidden_BCD: Float[Array, "B C D"],
    base: Decoder,
    base_hidden_BCD: Float[Array, "B C D"],
    target_ids_BC: Int[Array, "B C"],
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Log-probability of each target, and KL(base || decoder) of the distributions it is drawn from; nats, fp32.

    In chunks as `target_log_probs`.

    Args:
        decoder: The model.
        hidden_BCD: Its hidden states that predict the targets.
        base: The model that it is held against.
        base_hidden_BCD: The base's hidden states at the same places.
        target_ids_BC: Target tokens; any id in the vocabulary at unused positions.
    """

    def score(hidden: Array, base_hidden: Array, targets: Array) -> tuple[Array, Array]:
        logits = decoder.logits(hidden)
        expected = jax.nn.log_softmax(base.logits(base_hidden), axis=-1)
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        return _log_prob(logits, targets), jnp.sum(jnp.exp(expected) * (expected - log_probs), axis=-1)

    return _in_chunks(score, hidden_BCD, base_hidden_BCD, target_ids_BC)


def _chosen(logits: Float[Array, "B C V"], targets: Int[Array, "B C"]) -> Float[Array, "B C"]:
    return jnp.take_along_axis(logits, targets[:, :, None], axis=-1)[:, :, 0]


def _log_prob(logits: Float[Array, "B C V"], targets: Int[Array, "B C"]) -> Float[Array, "B C"]:
    return _chosen(logits, targets) - jax.nn.logsumexp(logits, axis=-1)


def _in_chunks(score: Callable[..., tuple[Array, Array]], *arrays: Array) -> tuple[Array, Array]:
    """What `score` makes of arrays (B, C, ...), `CHUNK` positions of a row at a time, made again in backward passes."""
    B, C = arrays[0].shape[:2]
    chunks, size = chunks_of(C)
    if chunks == 1:
        return score(*arrays)
    pad = chunks * size - C
    parts = tuple(
        jnp.moveaxis(
            jnp.pad(a, ((0, 0), (0, pad), *[(0, 0)] * (a.ndim - 2))).reshape(B, chunks, size, *a.shape[2:]), 1, 0
        )
        for a in arrays
    )
    _, found = jax.lax.scan(jax.checkpoint(lambda _, xs: (None, score(*xs)), prevent_cse=False), None, parts)
    one, other = (jnp.moveaxis(a, 0, 1).reshape(B, chunks * size)[:, :C] for a in found)
    return one, other
