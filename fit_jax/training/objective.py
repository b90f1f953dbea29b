"""What a training step minimises, exchangeable: a weighted sum of losses over the global batch.

A method brings its own `Objective` and its own batches (`fit_jax.data.sampler`). The step runs the model, microbatch
by microbatch; everything that an objective says of a batch as a whole, its weights and its own state, is a function of
the whole global batch, so that accumulation and the mesh change nothing.
"""

from abc import ABC, abstractmethod
from typing import Any, Generic, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from fit_jax.data.packing import Batch
from fit_jax.data.sampler import BatchType
from fit_jax.models.attention import Scope
from fit_jax.models.block import LayerHook
from fit_jax.models.decoder import Decoder, Hook
from fit_jax.models.hash_random import Seed
from fit_jax.models.head import target_log_probs


class TargetScores(NamedTuple):
    """What the model says of each target of a batch.

    Attributes:
        log_prob: Its log-probability, in nats; any finite number in padding.
        is_argmax: Whether no other token is likelier.
    """

    log_prob: Float[Array, "B C"]
    is_argmax: Bool[Array, "B C"]


class Losses(NamedTuple):
    """The losses of a batch, each in the place of its target or answer; finite everywhere.

    Attributes:
        loss: In nats.
        correct: 1 where the model is right, else 0.
    """

    loss: Float[Array, "B C"]
    correct: Float[Array, "B C"]


class LossSums(NamedTuple):
    """Sums over the targets of a batch, fp32, to be added over steps before any division.

    Attributes:
        loss: Their losses, in nats.
        targets: How many targets there are: tokens, or whole answers where the loss is over these.
        correct: How many of them the model has right.
    """

    loss: Float[Array, ""]
    targets: Float[Array, ""]
    correct: Float[Array, ""]


def target_scores(
    decoder: Decoder,
    rows: Batch,
    dropout_key: Key[Array, ""] | None = None,
    hook: Hook = LayerHook(),  # noqa: B008
) -> tuple[TargetScores, Hook]:
    """Runs the model; only target positions reach the vocabulary projection.

    Args:
        decoder: The model.
        rows: Packed or unpacked rows.
        dropout_key: Draws the dropout; None means none.
        hook: Takes part in each layer; returned as the last one hands it on.
    """
    hidden, hook = hidden_at_targets(decoder, rows, dropout_key, hook)
    return TargetScores(*target_log_probs(decoder, hidden, rows.target_ids)), hook


def hidden_at_targets(
    decoder: Decoder,
    rows: Batch,
    dropout_key: Key[Array, ""] | None,
    hook: Hook = LayerHook(),  # noqa: B008
) -> tuple[Float[Array, "B C D"], Hook]:
    """The hidden states that predict the targets of rows, and the hook; without a `dropout_key` there is no dropout."""
    seed = None if dropout_key is None else Seed.of(dropout_key)
    return decoder.walk(rows.tokens, Scope.of_rows(rows.positions, rows.visible_until), hook, rows.target_index, seed)


class Objective(ABC, Generic[BatchType]):
    """The loss of a step: the sum of `weights` times `losses` over the global batch. Its methods are pure functions."""

    def start(self) -> Any:
        """The objective's own state before the first step: a pytree of fp32 NumPy arrays, which checkpoints hold."""
        return ()

    @abstractmethod
    def counted(self, batch: BatchType) -> Float[Array, "B C"]:
        """1 in the places that have a loss, 0 elsewhere."""

    @abstractmethod
    def losses(self, scores: TargetScores, batch: BatchType) -> Losses:
        """The losses of a batch or microbatch; rows do not depend on each other."""

    def weights(self, batch: BatchType, own: Any) -> Float[Array, "B C"]:
        """What each loss of the global batch weighs, given the objective's own state; by default all weigh the same.

        The default is the mean over all that is counted, so that microbatches with few targets weigh no more than their
        share.
        """
        counted = self.counted(batch)
        return counted / jnp.sum(counted)

    def update(self, own: Any, batch: BatchType, loss: Float[Array, "B C"]) -> Any:
        """The objective's own state after a step, from the losses of the global batch before the step's update."""
        return own


class CrossEntropy(Objective[Batch]):
    """-log p of the label's tokens given the prompt, the mean over tokens (paper, section 3)."""

    def counted(self, batch: Batch) -> Float[Array, "B C"]:
        """Every target."""
        return batch.target_weight

    def losses(self, scores: TargetScores, batch: Batch) -> Losses:
        """-log p of each target; right where no other token is likelier."""
        return Losses(-scores.log_prob, scores.is_argmax.astype(jnp.float32))


CROSS_ENTROPY = CrossEntropy()
