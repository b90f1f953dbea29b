"""Training on true labels over the candidates of each example: what product of experts and group DRO share.

The loss of example i, whose candidates c have a prior a_i(c) from elsewhere, is

    loss_i = -log softmax_c(log p(answer c | x_i) + a_i(c))[y_i]
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Int64

from fit_jax.data.orders import Order
from fit_jax.data.packing import Batch
from fit_jax.data.sampler import Branch, Sampler
from fit_jax.focus.example import Example
from fit_jax.training.objective import Losses, Objective, TargetScores

NEVER = -1e30  # prior of slots that hold no answer


class CandidateBatch(NamedTuple):
    """Rows whose examples carry all their candidates, and what belongs to each answer, at its slot.

    Attributes:
        rows: The rows.
        owner: Which example of the row the answer belongs to; C - 1 at unused slots.
        prior: Added to the answer's log-probability; very low at unused slots.
        chosen: 1 at the slot of each example's true answer, else 0.
        group: Number of the example's group, at the slot of its true answer; else 0.
    """

    rows: Batch
    owner: Int32[Any, "B C"]
    prior: Float32[Any, "B C"]
    chosen: Float32[Any, "B C"]
    group: Int32[Any, "B C"]

    @property
    def examples(self) -> Any:
        """How many examples the batch trains on; a scalar array."""
        return self.chosen.sum()

    @property
    def axes(self) -> "CandidateBatch":
        """The dimensions of each array, by letter."""
        return CandidateBatch(self.rows.axes, "BC", "BC", "BC", "BC")


class CandidateSampler(Sampler[CandidateBatch]):
    """Examples without a focus instruction, each with all its candidates."""

    def __init__(
        self,
        examples: Sequence[Example],
        seed: int,
        prior: Callable[[Example], Float[np.ndarray, " candidates"]] = lambda e: np.zeros(len(e.candidates)),
        group: Callable[[Example], int] = lambda e: 0,
        order: Order | None = None,
    ) -> None:
        """Draws nothing yet.

        Args:
            examples: The training examples.
            seed: Draws their order.
            prior: What is added to the log-probability of each candidate of an example; by default nothing.
            group: Number of an example's group; by default there is one.
            order: How often an epoch takes each example; by default once.

        Raises:
            InputError: There are no examples.
        """
        super().__init__(examples, seed, order)
        self._prior = prior
        self._group = group

    def branches_of(self, epoch: int, indices: Int64[np.ndarray, " n"]) -> list[tuple[Branch, ...]]:
        """One branch with every candidate."""
        return [(Branch("", range(len(self.examples[i].candidates))),) for i in indices.tolist()]

    def targets_needed(self, lengths: Sequence[int]) -> int:
        """Target positions of all candidates."""
        return sum(lengths)

    def batch(
        self, rows: Batch, places: Int32[np.ndarray, "items 2"], examples: Int64[np.ndarray, " items"]
    ) -> CandidateBatch:
        """The rows with owner, prior, truth and group of their answers."""
        shape = rows.target_slot.shape
        owner = np.full(shape, shape[1] - 1, np.int32)
        prior, chosen = np.full(shape, NEVER, np.float32), np.zeros(shape, np.float32)
        group, seen = np.zeros(shape, np.int32), np.zeros(shape[0], np.int32)
        for (row, first), index in zip(places.tolist(), examples.tolist()):
            example = self.examples[index]
            slots = slice(first, first + len(example.candidates))
            owner[row, slots] = seen[row]
            prior[row, slots] = self._prior(example)
            chosen[row, first + example.label] = 1
            group[row, first + example.label] = self._group(example)
            seen[row] += 1
        return CandidateBatch(rows, owner, prior, chosen, group)


class CandidateLoss(Objective[CandidateBatch]):
    """The loss above, the mean over examples."""

    def counted(self, batch: CandidateBatch) -> Float[Array, "B C"]:
        """Every true answer."""
        return batch.chosen

    def losses(self, scores: TargetScores, batch: CandidateBatch) -> Losses:
        """Each example's loss at the slot of its true answer; right where no other candidate is likelier."""
        C = batch.owner.shape[1]

        def row(log_prob: Array, slot: Array, owner: Array, prior: Array) -> tuple[Array, Array, Array]:
            score = jax.ops.segment_sum(log_prob, slot, num_segments=C) + prior
            top = jax.lax.stop_gradient(jax.ops.segment_max(score, owner, num_segments=C))[owner]
            return score, top, jax.ops.segment_sum(jnp.exp(score - top), owner, num_segments=C)[owner]

        log_prob = jnp.where(batch.rows.target_weight > 0, scores.log_prob, 0.0)
        score, top, total = jax.vmap(row)(log_prob, batch.rows.target_slot, batch.owner, batch.prior)
        chosen = batch.chosen > 0
        loss = jnp.log(jnp.where(chosen, total, 1.0)) + jnp.where(chosen, top - score, 0.0)
        return Losses(loss, (chosen & (score >= top)).astype(jnp.float32))
