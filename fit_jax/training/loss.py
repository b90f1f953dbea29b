"""The focus tuning loss: cross-entropy of the focus label's tokens given the prompt (paper, section 3)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fit_jax.data.packing import Batch
from fit_jax.models.decoder import Decoder
from fit_jax.models.head import target_log_probs


class LossSums(NamedTuple):
    """Sums over the targets of a batch, fp32, to be added over microbatches and steps before any division.

    Attributes:
        loss: -log p of the targets, in nats.
        targets: How many targets there are.
        correct: How many of them no other token is likelier than.
    """

    loss: Float[Array, ""]
    targets: Float[Array, ""]
    correct: Float[Array, ""]


def loss_sums(
    decoder: Decoder, batch: Batch, dropout_key: Key[Array, ""] | None = None, trees: bool = True
) -> LossSums:
    """The loss of a batch as sums; only target positions reach the vocabulary projection.

    Args:
        decoder: The model.
        batch: Packed or unpacked rows.
        dropout_key: Draws the dropout; None means none.
        trees: Whether rows may hold items that branch (several focus instructions on one input).
    """
    hidden = decoder(
        batch.tokens,
        batch.positions,
        batch.visible_until,
        batch.target_index,
        deterministic=dropout_key is None,
        dropout_key=dropout_key,
        trees=trees,
    )
    log_prob, is_argmax = target_log_probs(decoder, hidden, batch.target_ids)
    weight = batch.target_weight
    return LossSums(-jnp.sum(log_prob * weight), jnp.sum(weight), jnp.sum(is_argmax * weight))
