"""A model that answers by the bias alone: log-linear in what a task declares as biased input.

What it reads of an example z is either the text of the slots that the task names (`TaskText.biased`: the hypothesis of
MNLI, the question of BBQ without its context), as words and pairs of neighbouring words, or, where a task names none,
the values of the spurious features. Each is a feature crossed with the candidate: with its number, or where the
candidates are the row's own (multiple choice) with each of its words. Features are hashed into a fixed number of
weights w, and

    b(c | z) = softmax_c(w . f(z, c)).

w minimises the negative log-likelihood of the true answers plus r/2 |w|^2, by L-BFGS over all examples. Predictions are
cross-fitted: those on a part of the examples come from weights fitted to the others, and r is the one under which they
are likeliest.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from zlib import crc32

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.sparse import csr_array

from fit_jax.data.keyed_generator import generator
from fit_jax.focus.example import Example

PARTS = 4  # into which the examples are divided for cross-fitting
BUCKETS = 1 << 18  # weights that features are hashed into
DECAYS = (0.1, 1.0, 10.0, 100.0)  # values of r
ITERATIONS = 100  # most iterations of L-BFGS


@dataclass(frozen=True)
class BiasPredictions:
    """The bias-only model's predictions on the training examples.

    Attributes:
        log_probs: By example, log b of each candidate, in nats.
        accuracy: How often the likeliest candidate is the true answer.
        log_likelihood: Mean log b of the true answer.
    """

    log_probs: Sequence[Float[np.ndarray, " candidates"]]
    accuracy: float
    log_likelihood: float


def cross_fitted(examples: Sequence[Example], slots: Sequence[str], seed: int) -> BiasPredictions:
    """Predictions on examples that the weights behind them were not fitted to.

    Args:
        examples: The training examples.
        slots: The slots whose text is read; without any, the values of the spurious features are.
        seed: Parts the examples; those of one source text stay together.
    """
    table = _Table(examples, slots)
    sources = {source: n for n, source in enumerate(dict.fromkeys(_source(e) for e in examples))}
    dealt = generator(seed, "bias_model").permutation(len(sources)) % PARTS
    part = np.array([dealt[sources[_source(e)]] for e in examples])
    fits = []
    for decay in DECAYS:
        scores = np.zeros(len(table.owner))
        for number in range(PARTS):
            weights = table.fit(np.flatnonzero(part != number), decay)
            inside = part[table.owner] == number
            scores[inside] = table.features[inside] @ weights
        fits.append(table.log_softmax(scores))
    best = max(fits, key=lambda log_probs: log_probs[table.true].mean())
    log_probs = np.split(best, table.first[1:])
    accuracy = np.mean([p.argmax() == e.label for p, e in zip(log_probs, examples)])
    return BiasPredictions(log_probs, float(accuracy), float(best[table.true].mean()))


class _Table:
    """The features of every candidate of every example, one row a candidate.

    Attributes:
        features: (candidates, weights), counts.
        owner: The example of each row.
        first: The first row of each example.
        true: The row of each example's true answer.
    """

    def __init__(self, examples: Sequence[Example], slots: Sequence[str]) -> None:
        rows = [[_bucket(f) for f in names] for e in examples for names in _features(e, slots)]
        lengths = [len(e.candidates) for e in examples]
        self.owner = np.repeat(np.arange(len(examples)), lengths)
        self.first = np.cumsum([0, *lengths[:-1]])
        self.true = self.first + np.array([e.label for e in examples])
        ends = np.cumsum([0, *map(len, rows)])
        used, columns = np.unique(np.concatenate([np.array(row, np.int64) for row in rows]), return_inverse=True)
        self.features: Any = csr_array((np.ones(ends[-1]), columns, ends), shape=(len(rows), len(used)))
        self.features.sum_duplicates()

    def fit(self, chosen: np.ndarray, decay: float) -> Float[np.ndarray, " weights"]:
        """The weights of these examples."""
        width = self.features.shape[1]
        inside = np.zeros(len(self.first), bool)
        inside[chosen] = True
        rows = inside[self.owner]
        features, transposed = self.features[rows], self.features[rows].T.tocsr()
        first = np.flatnonzero(np.diff(self.owner[rows], prepend=-1))
        is_true = np.zeros(len(self.owner))
        is_true[self.true] = 1
        is_true = is_true[rows]

        def loss(weights: np.ndarray) -> tuple[Any, np.ndarray]:
            log_probs = _log_softmax(features @ weights, first)
            gradient = transposed @ (np.exp(log_probs) - is_true) + decay * weights
            return decay / 2 * weights @ weights - log_probs @ is_true, gradient

        if not len(chosen):
            return np.zeros(width)
        return minimize(loss, np.zeros(width), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x

    def log_softmax(self, scores: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        """Over the candidates of each example."""
        return _log_softmax(scores, self.first)


def _log_softmax(scores: np.ndarray, first: np.ndarray) -> np.ndarray:
    counts = np.diff(first, append=len(scores))
    scores = scores - np.repeat(np.maximum.reduceat(scores, first), counts)
    return scores - np.repeat(np.log(np.add.reduceat(np.exp(scores), first)), counts)


def _features(example: Example, slots: Sequence[str]) -> list[list[str]]:
    """The names of the features of each candidate."""
    if slots:
        seen = []
        for slot in slots:
            words = _words(example.slots[slot])
            seen += [f"{slot} {word}" for word in words] + [f"{slot} {a} {b}" for a, b in pairwise(words)]
    else:
        seen = [f"{feature} {value}" for feature, (value, _) in sorted(example.spurious.items())]
    parts = [_words(c) for c in example.candidates] if example.own_answers else [[str(n)] for n in _numbers(example)]
    return [[*own, *(f"{part}\x1f{name}" for part in own for name in seen)] for own in parts]


def _numbers(example: Example) -> range:
    return range(len(example.candidates))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _bucket(name: str) -> int:
    return crc32(name.encode()) % BUCKETS


def _source(example: Example) -> str:
    return example.uid.partition("#")[0]
