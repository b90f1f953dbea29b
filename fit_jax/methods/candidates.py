"""Batches whose examples carry all their candidates, for losses over the candidate set."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from fit_jax.data.keyed_generator import generator
from fit_jax.data.layout import Item, lay_out
from fit_jax.data.packing import Batch, first_fit, stack, target_capacity
from fit_jax.focus.example import Example
from fit_jax.focus.prompts import PromptEncoder

WINDOW = 1024  # examples packed together
NEVER = -1e30  # prior of slots that hold no answer


class CandidateBatch(NamedTuple):
    """A `Batch` (its first seven fields), and what belongs to each of its answer slots.

    Attributes:
        target_owner: Which example of the row a slot's answer belongs to.
        target_prior: Added to the answer's log-probability; very low at unused slots.
        target_chosen: 1 at the slot of each example's true answer.
        target_group: Number of the example's group, at the slot of its true answer.
    """

    tokens: Int32[Any, "B T"]
    positions: Int32[Any, "B T"]
    visible_until: Int32[Any, "B T"]
    target_index: Int32[Any, "B C"]
    target_ids: Int32[Any, "B C"]
    target_slot: Int32[Any, "B C"]
    target_weight: Float32[Any, "B C"]
    target_owner: Int32[Any, "B C"]
    target_prior: Float32[Any, "B C"]
    target_chosen: Float32[Any, "B C"]
    target_group: Int32[Any, "B C"]


class Candidate(NamedTuple):
    """An example to train on: its prior over candidates, and its group."""

    example: Example
    prior: Float32[np.ndarray, " candidates"]
    group: int


def candidate_batches(
    candidates: Sequence[Candidate], encoder: PromptEncoder, rows: int, tokens: int, seed: int
) -> Iterator[CandidateBatch]:
    """An endless stream: the examples without focus instructions in a fresh order each epoch, packed by the window.

    Args:
        candidates: The training examples.
        encoder: The prompt code.
        rows: Rows of a batch.
        tokens: Tokens of a row.
        seed: Draws the order.
    """
    waiting: list[list[tuple[Candidate, Item]]] = []
    targets = 0
    epoch = 0
    while True:
        order = generator(seed, "order", epoch).permutation(len(candidates))
        for start in range(0, len(order), WINDOW):
            part = [candidates[i] for i in order[start : start + WINDOW]]
            prompts = encoder.encode([c.example for c in part], [""] * len(part))
            items = [lay_out([p], [range(len(p.answers))]) for p in prompts]
            if not targets:
                targets = target_capacity(items, tokens) + max(len(item.target_ids) for item in items)
            waiting += [[(part[i], items[i]) for i in row] for row in first_fit(items, tokens, targets)]
            while len(waiting) >= rows:
                yield _batch(waiting[:rows], tokens, targets)
                del waiting[:rows]
        epoch += 1


def _batch(rows: Sequence[Sequence[tuple[Candidate, Item]]], T: int, C: int) -> CandidateBatch:
    batch, places = stack([[item for _, item in row] for row in rows], T, C)
    owner = np.full((len(rows), C), C - 1, np.int32)
    prior, chosen = np.full(owner.shape, NEVER, np.float32), np.zeros(owner.shape, np.float32)
    group = np.zeros(owner.shape, np.int32)
    numbered = [(number, *pair) for row in rows for number, pair in enumerate(row)]
    for (row, first), (number, candidate, item) in zip(places, numbered, strict=True):
        owner[row, first : first + item.slots] = number
        prior[row, first : first + item.slots] = candidate.prior
        chosen[row, first + candidate.example.label] = 1
        group[row, first + candidate.example.label] = candidate.group
    return CandidateBatch(*batch, owner, prior, chosen, group)


def plain(whole: CandidateBatch) -> Batch:
    """The rows alone."""
    return Batch(*whole[: len(Batch._fields)])
