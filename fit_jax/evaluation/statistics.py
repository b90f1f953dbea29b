"""Intervals and tests over examples: bootstrap, paired sign-flip test, correction for many comparisons."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

DRAWS = 4000
_BLOCK = 1 << 24  # numbers drawn at a time


def bootstrap_interval(
    values: Float[np.ndarray, " n"], rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, one per example (Efron, 1979)."""
    n = len(values)
    means = [values[rng.integers(n, size=(rows, n))].mean(axis=1) for rows in _blocks(n)]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_flip_p(differences: Float[np.ndarray, " n"], rng: np.random.Generator) -> float:
    """Two-sided p of a mean paired difference, by flipping the sign of each example's difference at random.

    The observed signs count as one of the draws, so p is never 0.
    """
    observed = abs(differences.mean())
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    at_least = 1
    for rows in _blocks(len(moved)):
        signs = 2.0 * rng.integers(2, size=(rows, len(moved))) - 1.0
        # The tolerance keeps draws that equal the observed mean up to rounding.
        at_least += int((abs(signs @ moved) / len(differences) >= observed * (1 - 1e-9)).sum())
    return at_least / (DRAWS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for testing them all at once (Holm, 1979), in the order given."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()


def _blocks(n: int) -> list[int]:
    """Rows drawn at a time, in all `DRAWS`, so that memory stays bounded."""
    rows = max(1, min(DRAWS, _BLOCK // n))
    whole, rest = divmod(DRAWS, rows)
    return [rows] * whole + [rest] * bool(rest)
