"""Intervals and tests over examples: bootstrap, paired sign-flip test, correction for many comparisons."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

DRAWS = 4000
_BLOCK = 1 << 24  # numbers drawn at a time


def mean_over_seeds(values: Float[np.ndarray, "n seeds"]) -> float:
    """The mean over seeds of each seed's mean over its examples; NaN marks an example that a seed did not ask."""
    return float(np.nanmean(values, axis=0).mean())


def bootstrap_interval(
    values: Float[np.ndarray, "n seeds"], rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of `mean_over_seeds` (Efron, 1979); an example is drawn with all its seeds."""
    n, seeds = values.shape
    asked = ~np.isnan(values)
    weighed = np.concatenate([np.where(asked, values, 0), asked], axis=1)
    means = []
    for rows in _blocks(n):
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums, counts = np.split(times @ weighed, [seeds], axis=1)
        # A seed with few examples may be left out of a draw.
        means.append(np.where(counts > 0, sums, np.nan) / np.maximum(counts, 1))
    low, high = np.nanquantile(np.nanmean(np.concatenate(means), axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def shares(values: Float[np.ndarray, "n seeds"]) -> Float[np.ndarray, " n"]:
    """What each example adds to `mean_over_seeds`, times n: numbers whose mean it is."""
    n, seeds = values.shape
    return n * np.nansum(values / (~np.isnan(values)).sum(axis=0), axis=1) / seeds


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
