"""Parting rows between training, validation and testing, so that no text stands in two of them."""

from collections.abc import Callable, Sequence

import numpy as np

from fit_jax.data.rho_sampling import Rows

# Parts some rows into pools in proportion to needs, rows of one key together: (rows, within, needs, rng) -> pools.
Partition = Callable[[Rows, np.ndarray, Sequence[float], np.random.Generator], list[np.ndarray]]


def partition(rows: Rows, within: np.ndarray, needs: Sequence[float], rng: np.random.Generator) -> list[np.ndarray]:
    """Parts the rows `within` into pools in proportion to `needs`, keeping rows of one key together.

    The proportion is kept within each (value, outcome), so that no pool is short of a rare one.
    """
    _, first, group = np.unique(rows.key[within], return_index=True, return_inverse=True)
    # A group counts as its row of lowest outcome: where outcomes are relative, whether any of it agrees with y_s.
    outcome = np.full(len(first), len(rows.outcomes))
    np.minimum.at(outcome, group, rows.outcome[within])
    stratum = outcome if rows.value is None else rows.value[within[first]] * len(rows.outcomes) + outcome
    order = np.lexsort((rng.random(len(first)), stratum))
    begin, size = np.unique(stratum[order], return_index=True, return_counts=True)[1:]
    rank = np.empty(len(first))
    rank[order] = (np.arange(len(first)) - np.repeat(begin, size) + 0.5) / np.repeat(size, size)
    pool_of_row = np.searchsorted(np.cumsum(needs)[:-1] / np.sum(needs), rank)[group]
    return [within[pool_of_row == i] for i in range(len(needs))]


def partition_unequal(
    rows: Rows, within: np.ndarray, needs: Sequence[float], rng: np.random.Generator
) -> list[np.ndarray]:
    """As `partition`, where few keys stand for very different numbers of rows; for annotated values.

    The largest group comes first, and each goes into the pool where it brings the rows of its values nearest to the
    asked proportions: where sum (rows - wanted)^2 / wanted over pools and values grows least. Groups of one size are
    taken in an order drawn at random.
    """
    assert rows.value is not None
    keys, group = np.unique(rows.key[within], return_inverse=True)
    count_GV = np.zeros((len(keys), len(rows.values)))
    np.add.at(count_GV, (group, rows.value[within]), 1)
    wanted_PV = np.outer(np.divide(needs, np.sum(needs)), count_GV.sum(0))
    have_PV = np.zeros_like(wanted_PV)
    pool_of_group = np.zeros(len(keys), int)
    for g in np.lexsort((rng.random(len(keys)), -count_GV.sum(1))):
        more = count_GV[g] * (2 * (have_PV - wanted_PV) + count_GV[g])
        pool_of_group[g] = np.argmin(np.divide(more, wanted_PV, where=wanted_PV > 0, out=np.zeros_like(more)).sum(1))
        have_PV[pool_of_group[g]] += count_GV[g]
    for empty in set(range(len(needs))) - set(pool_of_group.tolist()):  # better one group too many than none
        fullest = np.flatnonzero(pool_of_group == np.bincount(pool_of_group).argmax())
        pool_of_group[fullest[count_GV[fullest].sum(1).argmin()]] = empty
    return [within[pool_of_group[group] == i] for i in range(len(needs))]
