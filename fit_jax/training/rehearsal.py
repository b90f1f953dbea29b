"""The loss of rehearsal: what a step adds to the task's, on rows of texts and conversations.

With w the weight and k that of the divergence (`RehearsalConfig`), a step adds

    w mean(-log p(t)) + k mean(KL(p_base || p)),

both means over the tokens to learn of the global batch. The base is the same weights without the adapter: a second
structure over the frozen parameters, of which no copy is made, and one more forward pass.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from fit_jax.config import RehearsalConfig
from fit_jax.data.packing import Batch
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.head import target_divergences, target_log_probs
from fit_jax.models.lora_config import LoraConfig
from fit_jax.training.objective import hidden_at_targets


class RehearsalSums(NamedTuple):
    """Sums over the tokens to learn of rehearsal, fp32, to be added over steps before any division.

    Attributes:
        loss: Their -log p, in nats.
        divergence: Their KL(base || model), in nats; 0 where it is not asked for.
        targets: How many there are.
        tokens: Tokens of the rows that are no padding.
    """

    loss: Float[Array, ""]
    divergence: Float[Array, ""]
    targets: Float[Array, ""]
    tokens: Float[Array, ""]


@dataclass(frozen=True)
class Rehearsal:
    """What rehearsal adds to a step's loss.

    Attributes:
        weight: w.
        kl: k.
        base: The structure of the model without its adapter; None where k is 0.
    """

    weight: float
    kl: float
    base: nnx.GraphDef | None

    @classmethod
    def of(cls, config: RehearsalConfig, model: DecoderConfig) -> "Rehearsal | None":
        """That of a run; None where it rehearses nothing."""
        if not config.files:
            return None
        base = None
        if config.kl:
            base = nnx.graphdef(nnx.eval_shape(lambda: Decoder(model, LoraConfig(), rngs=nnx.Rngs(0))))
        return cls(config.weight, config.kl, base)

    def losses(
        self, decoder: Decoder, frozen: nnx.State, rows: Batch, dropout_key: Key[Array, ""]
    ) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
        """-log p of each target, and the divergence from the base where it is asked for.

        Args:
            decoder: The model.
            frozen: Its parameters without those of the adapter.
            rows: The rows.
            dropout_key: Draws the model's dropout; the base has none.
        """
        hidden, _ = hidden_at_targets(decoder, rows, dropout_key)
        if self.base is None:
            log_prob, _ = target_log_probs(decoder, hidden, rows.target_ids)
            return -log_prob, jnp.zeros_like(log_prob)
        base = nnx.merge(self.base, frozen)
        expected, _ = hidden_at_targets(base, rows, None)
        log_prob, divergence = target_divergences(decoder, hidden, base, expected, rows.target_ids)
        return -log_prob, divergence

    def total(
        self, loss: Float[Array, "B C"], divergence: Float[Array, "B C"], share: Float[Array, "B C"]
    ) -> Float[Array, ""]:
        """What is minimised; `share` is what each target's mean weighs: 1 / their number in the global batch."""
        return jnp.sum(share * (self.weight * loss + self.kl * divergence))


def shares(rows: Batch) -> Float[Array, "B C"]:
    """What each target of the global batch weighs in a mean over them."""
    return rows.target_weight / jnp.sum(rows.target_weight)


def rehearsal_sums(rows: Batch, loss: Float[Array, "B C"], divergence: Float[Array, "B C"]) -> RehearsalSums:
    """What a step reports of the global batch's rehearsal."""
    counted = rows.target_weight
    tokens = jnp.sum((rows.visible_until > 0).astype(jnp.float32))
    apart = jnp.maximum(jnp.sum(divergence * counted), 0.0)  # of equal models it is rounding, of either sign
    return RehearsalSums(jnp.sum(loss * counted), apart, jnp.sum(counted), tokens)
