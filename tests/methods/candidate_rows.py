"""Rows of examples with all their candidates, and the scores of these by hand, for methods that train on them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fit_jax.data.layout import lay_out
from fit_jax.data.packing import stack
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.methods.candidates import CandidateBatch, CandidateSampler

T, C = 256, 24  # tokens and targets of a row


class Candidates(NamedTuple):
    """An example of a batch: its number, its row, and the targets (C of the row) of each of its candidates."""

    number: int
    row: int
    targets: list[np.ndarray]

    def scores(self, log_prob: np.ndarray) -> np.ndarray:
        """log p of each candidate, summed over its tokens."""
        return np.array([log_prob[self.row, targets].sum() for targets in self.targets])


class Rows(NamedTuple):
    """A batch, and where the candidates of its examples stand."""

    batch: CandidateBatch
    candidates: list[Candidates]

    def random_log_probs(self, seed: int) -> np.ndarray:
        """Some log-probability of each target, in float64."""
        return -np.random.default_rng(seed).gamma(1.0, 2.0, self.batch.owner.shape)


def candidate_rows(sampler: CandidateSampler, encoder: PromptEncoder, numbers: list[int]) -> Rows:
    """Examples of the sampler, by number, in two rows of two or more."""
    examples = [sampler.examples[number] for number in numbers]
    (branches,) = zip(*sampler.branches_of(0, np.array(numbers)))
    prompts = encoder.encode(examples, [branch.instruction for branch in branches])
    items = [lay_out([prompt], [branch.answers]) for prompt, branch in zip(prompts, branches)]
    half = len(items) // 2
    rows, places = stack([items[:half], items[half:]], T, C)
    batch = sampler.batch(rows, places, np.array(numbers))
    return Rows(batch, list(_places(batch, sampler, numbers, places)))


def _places(batch: CandidateBatch, sampler: CandidateSampler, numbers: list[int], places: np.ndarray) -> Iterator:
    for number, (row, first) in zip(numbers, places.tolist()):
        slot, used = batch.rows.target_slot[row], batch.rows.target_weight[row] > 0
        count = len(sampler.examples[number].candidates)
        yield Candidates(number, row, [np.flatnonzero(used & (slot == first + c)) for c in range(count)])


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(scores), normalised."""
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()
