"""Intervals and tests that know what varies: training seeds, clusters of examples, and examples within a cluster.

A method is trained with a few seeds, and each seed is asked many examples; examples of one cluster (a template, a
shared text) succeed and fail together, and mostly the same ones are asked of every seed. So seeds and clusters are
crossed random effects, and the mean over seeds errs by both:

    variance of the mean = variance of the seeds' means / S  +  covariance of two seeds' means

The first term holds the seeds' own effects and whatever differs between seeds; the second is what all seeds have in
common since they meet the same clusters. Both are unbiased estimates whichever seed asked which examples, and the
first alone has S - 1 degrees of freedom, which Satterthwaite's formula carries over to their sum. `docs/statistics.md`
shows what the tests come to where there is nothing to find (`benchmarks/null_false_positives.py`).
"""

from collections.abc import Hashable, Sequence
from math import inf, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit

LEVEL = 0.95


class Mean(NamedTuple):
    """A mean over seeds and how well it is known.

    Attributes:
        value: The mean over seeds of each seed's mean over its examples.
        variance: Of the value, over seeds and resampled clusters; infinite where all examples are of one cluster.
        df: Degrees of freedom of the variance.
        seeds: Number of seeds.
        examples: Number of distinct examples.
    """

    value: float
    variance: float
    df: float
    seeds: int
    examples: int

    def interval(self) -> tuple[float, float]:
        """The 95 % interval by Student's t."""
        reach = _quantile(self.df) * sqrt(self.variance)
        return self.value - reach, self.value + reach

    def share_interval(self) -> tuple[float, float]:
        """The 95 % interval of a share: Wilson's, of as many independent examples as have the same variance.

        The effective number of examples is at most the real one (Korn and Graubard, 1998), and the quantile is
        Student's, as the variance is estimated (Wilson, 1927, has the normal one). It is the real one where nothing
        varied: then nothing tells how alike the examples of a cluster are.
        """
        spread = self.value * (1 - self.value)
        count = min(self.examples, spread / self.variance) if self.variance > 0 else self.examples
        return wilson(self.value, max(count, 1.0), _quantile(self.df))

    @property
    def p(self) -> float | None:
        """Two-sided p of the hypothesis that the value is 0; None with one seed, which tells nothing of others."""
        if self.seeds < 2:
            return None
        if not self.value:
            return 1.0
        return float(2 * stdtr(self.df, -abs(self.value) / sqrt(self.variance)))


def mean_over_seeds(values: Float[np.ndarray, "n seeds"], clusters: Sequence[Hashable]) -> Mean:
    """The mean over seeds, with the variance that seeds and clusters give it, to be compared with 0.

    With one seed the variance is that of other clusters alone. It is never less than if one cluster had come out as 0:
    that nothing varied is no proof.

    Args:
        values: What each example came to in each seed; NaN where a seed did not ask it. Each seed asked one at least.
        clusters: The cluster of each example; examples that stand alone have one of their own each.
    """
    return _over_seeds(values, clusters, provable=False)


def share_over_seeds(values: Float[np.ndarray, "n seeds"], clusters: Sequence[Hashable]) -> Mean:
    """As `mean_over_seeds` of values from 0 to 1, with the variance as it is estimated: 0 where nothing varied.

    It is that of the share of wrong answers too. `Mean.share_interval` keeps a share from being certain.
    """
    return _over_seeds(values, clusters, provable=True)


def _over_seeds(values: Float[np.ndarray, "n seeds"], clusters: Sequence[Hashable], provable: bool) -> Mean:
    count, seeds = values.shape
    index: dict[Hashable, int] = {}
    number = np.array([index.setdefault(cluster, len(index)) for cluster in clusters])
    total = len(index)
    asked = ~np.isnan(values)
    means = np.nanmean(values, axis=0)
    mean = float(means.mean())
    if total == 1:
        return Mean(mean, inf, 1, seeds, count)
    # What each cluster moves each seed's mean by.
    off = np.where(asked, values - means, 0.0) / asked.sum(axis=0)
    moved = np.stack([np.bincount(number, column, total) for column in off.T], axis=1)
    moved *= sqrt(total / (total - 1))
    least = 0.0 if provable else (mean / total) ** 2
    if seeds == 1:
        return Mean(mean, max(float((moved**2).sum()), least), total - 1, 1, count)
    own = float(means.var(ddof=1)) / seeds
    # Averaged over the pairs of seeds.
    common = float((moved.sum(axis=1) ** 2 - (moved**2).sum(axis=1)).sum()) / (seeds * (seeds - 1))
    shared = max(common, least)
    variance = own + shared
    if not variance:
        return Mean(mean, 0.0, seeds - 1, seeds, count)
    df = variance**2 / (own**2 / (seeds - 1) + shared**2 / (total - 1))
    return Mean(mean, variance, df, seeds, count)


def unpaired(ours: Mean, theirs: Mean) -> Mean:
    """The difference of two means that share neither seeds nor examples (Welch, 1947)."""
    variance = ours.variance + theirs.variance
    parts = sum(m.variance**2 / m.df for m in (ours, theirs))
    df = variance**2 / parts if 0 < variance < inf else min(ours.df, theirs.df)
    seeds = min(ours.seeds, theirs.seeds)
    return Mean(ours.value - theirs.value, variance, df, seeds, ours.examples + theirs.examples)


def wilson(share: float, count: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share among `count` examples."""
    spread = quantile * sqrt(share * (1 - share) / count + (quantile / (2 * count)) ** 2)
    centre, scale = share + quantile**2 / (2 * count), 1 + quantile**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for testing them all at once (Holm, 1979), in the order given."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()


def _quantile(df: float) -> float:
    return float(stdtrit(df, (1 + LEVEL) / 2))
