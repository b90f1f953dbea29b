"""Splits with a chosen rho = P(Y = y_s | S = s) (paper, section 4): exact counts, chosen by seed, checked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.keyed_generator import generator
from fit_jax.data.rho_sampling import Rows, SampledExamples, balanced_items, insert_values, subsample
from fit_jax.errors import InputError
from fit_jax.focus.example import Example


@dataclass(frozen=True)
class Rho:
    """rho of one feature value in one split: what was asked (None: left as it came), what came out, over how many."""

    asked: float | None
    realised: float
    count: int


class GroupCount(NamedTuple):
    """Rows of one feature value and one outcome that a split could be drawn from, and those drawn.

    Attributes:
        value: The feature's value; empty where values are inserted, so that any row can have any.
        outcome: The label; where each row has answers of its own, how the true one stands to y_s.
        available: Rows there were.
        drawn: Rows in the split.
    """

    value: str
    outcome: str
    available: int
    drawn: int


@dataclass(frozen=True)
class Split:
    """Examples of one split, in an order that a prefix of is a fair sample.

    Attributes:
        name: train, validation, iid, high, low, flipped or natural, or one of the last five after `shifted_`.
        examples: The examples; any sequence, so that large data may be read on demand.
        rho: By feature and value. In flipped splits it is the probability of the swapped label, not of y_s.
        cells: What it was drawn from; empty where rows stand as they came, or that is not known.

    Raises:
        ValueError: A realised rho is further than 1 / count from the asked one.
    """

    name: str
    examples: Sequence[Example]
    rho: Mapping[str, Mapping[str, Rho]]
    cells: tuple[GroupCount, ...] = ()

    def __post_init__(self) -> None:
        for feature, values in self.rho.items():
            for value, rho in values.items():
                if rho.asked is not None and abs(rho.realised - rho.asked) > 1 / rho.count + 1e-12:
                    raise ValueError(f"split {self.name}: {feature} = {value} was drawn at {rho}")


class Sizes(NamedTuple):
    """Number of examples asked of train, of validation and of each test split."""

    train: int
    validation: int
    test: int

    def asked(self, config: TaskConfig) -> "Sizes":
        """These sizes, each replaced by the one that the config gives."""
        given = (config.train_examples, config.validation_examples, config.test_examples)
        for field, size in zip(self._fields, given):
            if size is not None and size < 1:
                raise InputError(f"task.{field}_examples: {size} gives an empty split; ask for at least one")
        return Sizes(*(size or default for size, default in zip(given, self)))


class SplitSpec(NamedTuple):
    """How one split is to be drawn: its rho, on the tied outcome or (flipped) on the next one."""

    rho: float
    flipped: bool = False


def split_specs(config: TaskConfig, num_outcomes: int) -> dict[str, SplitSpec]:
    """The four test distributions by name; training and validation are drawn as `iid`."""
    iid = 1 / num_outcomes if config.rho_train is None else config.rho_train
    for field, rho in (("rho_train", iid), ("rho_high", config.rho_high), ("rho_low", config.rho_low)):
        if not 0 <= rho <= 1:
            raise InputError(f"task.{field}: {rho} is no probability; give a number from 0 to 1")
    return {
        "iid": SplitSpec(iid),
        "high": SplitSpec(config.rho_high),
        "low": SplitSpec(config.rho_low),
        "flipped": SplitSpec(config.rho_high, flipped=True),
    }


# Parts some rows into pools in proportion to needs, rows of one key together: (rows, within, needs, rng) -> pools.
Partition = Callable[[Rows, np.ndarray, Sequence[float], np.random.Generator], list[np.ndarray]]


def build_splits(
    config: TaskConfig,
    seed: int,
    default: Sizes,
    rows: Rows,
    test: Rows | None = None,
    shifted: Rows | None = None,
    part: Partition | None = None,
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Draws every split of a task.

    The test splits are the four of a chosen rho and, where rows belong to items, the natural distribution.

    Args:
        config: Sizes that override the default, and the rhos.
        seed: Chooses rows.
        default: Sizes asked where the config gives none; fewer are drawn, and noted, where the data give fewer.
        rows: Rows for train and validation, and for the test splits where `test` is None.
        test: Rows of an official test file. Source texts that stand here too are left out of `rows`.
        shifted: Rows with feature values that training never shows, for the `shifted_` splits; apart as `test` is.
        part: How rows are parted into those for training, validation and testing; None stands for `partition`.

    Returns:
        The splits by name, and one line for each thing worth knowing.

    Raises:
        InputError: A split would be empty.
    """
    asks = split_specs(config, len(rows.outcomes))
    sizes = default.asked(config)
    notes: list[str] = []
    apart = [other.key for other in (test, shifted) if other is not None]
    within = np.flatnonzero(~np.isin(rows.key, np.concatenate(apart))) if apart else np.arange(len(rows.key))
    if len(within) < len(rows.key):
        notes.append(f"{len(rows.key) - len(within)} training rows left out: their text is in the test files too")
    needs = [_largest_cell(rows, size, [asks["iid"]]) for size in sizes[:2]]
    if test is None:
        needs.append(_largest_cell(rows, sizes.test, asks.values()))
    pools = (part or partition)(rows, within, needs, generator(seed, "partition"))
    drawn: dict[str, SplitSpec | None] = {**asks, **({} if rows.item is None else {"natural": None})}
    jobs: list[tuple[str, Rows, np.ndarray, int, SplitSpec | None]] = [
        ("train", rows, pools[0], sizes.train, asks["iid"]),
        ("validation", rows, pools[1], sizes.validation, asks["iid"]),
    ]
    held_out, pool = (rows, pools[2]) if test is None else (test, np.arange(len(test.key)))
    jobs += [(name, held_out, pool, sizes.test, ask) for name, ask in drawn.items()]
    if shifted is not None:
        whole = np.arange(len(shifted.key))
        jobs += [(f"shifted_{name}", shifted, whole, sizes.test, ask) for name, ask in drawn.items()]
    splits = {}
    for name, source, pool, size, ask in jobs:
        splits[name] = sample_split(name, source, pool, size, ask, generator(seed, "split", name))
        if (count := len(splits[name].examples)) < size:
            shape = "draw whole pairs of items" if ask is None else f"keep rho at {ask.rho:.3g}"
            left = f"{len(pool) - count} of its {len(pool)} rows ({1 - count / len(pool):.0%}) are left out to {shape}"
            why = left if count < len(pool) else f"it holds all of its {len(pool)} rows"
            note = f"split {name}: {count} examples, fewer than the {size} wanted: {why}"
            notes.append(f"{note}; nothing need be done, and more rows make it larger")
    return splits, tuple(notes)


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


def sample_split(
    name: str, rows: Rows, within: np.ndarray, size: int, ask: SplitSpec | None, rng: np.random.Generator
) -> Split:
    """Draws up to `size` of the rows `within` at the asked rho, values as equally frequent as the data allow.

    Where nothing is asked (None), rows keep their natural distribution (`balanced_items`).

    Raises:
        InputError: Some value has no row at all that the asked rho could use.
    """
    flipped = ask is not None and ask.flipped
    predicted = [(value.outcome + flipped) % len(rows.outcomes) for value in rows.values]
    if ask is None:
        chosen, values = balanced_items(name, rows, within, size, rng)
    else:
        draw = insert_values if rows.value is None else subsample
        chosen, values = draw(name, rows, within, size, ask.rho, predicted, rng)
        order = rng.permutation(len(chosen))
        chosen, values = chosen[order], values[order]
    rho: dict[str, dict[str, Rho]] = {}
    for v, value in enumerate(rows.values):
        outcome = rows.outcome[chosen[values == v]]
        if len(outcome):
            realised = float(np.mean(outcome == predicted[v]))
            rho.setdefault(value.feature, {})[value.name] = Rho(ask and ask.rho, realised, len(outcome))
    examples = SampledExamples(rows, chosen, values)
    cells = () if ask is None else _cells(rows, within, chosen)
    return Split(name, examples[:] if rows.stored else examples, rho, cells)


def _cells(rows: Rows, within: np.ndarray, chosen: np.ndarray) -> tuple[GroupCount, ...]:
    """How many rows of each cell there were in a pool, and how many were chosen."""
    names = [""] if rows.value is None else [value.name for value in rows.values]

    def counts(at: np.ndarray) -> np.ndarray:
        cell = rows.outcome[at] + (0 if rows.value is None else rows.value[at] * len(rows.outcomes))
        return np.bincount(cell, minlength=len(names) * len(rows.outcomes)).reshape(len(names), -1)

    available, drawn = counts(within), counts(chosen)
    return tuple(
        GroupCount(name, outcome, int(available[v, o]), int(drawn[v, o]))
        for v, name in enumerate(names)
        for o, outcome in enumerate(rows.outcomes)
    )


def joined(name: str, first: Split, second: Split) -> Split:
    """Both splits' examples, `second` after `first`; both must have the same feature values and asked rho."""
    rho: dict[str, dict[str, Rho]] = {}
    for feature, values in first.rho.items():
        for value, a in values.items():
            b = second.rho[feature][value]
            both = a.count + b.count
            realised = (a.realised * a.count + b.realised * b.count) / both
            rho.setdefault(feature, {})[value] = Rho(a.asked, realised, both)
    return replace(first, name=name, examples=[*first.examples, *second.examples], rho=rho, cells=())


def _largest_cell(rows: Rows, size: int, asks: Iterable[SplitSpec]) -> float:
    """How many rows of one (value, outcome) the most demanding of the asked splits takes."""
    if rows.value is None:
        return size
    return size * max(max(ask.rho, (1 - ask.rho) / (len(rows.outcomes) - 1)) for ask in asks)
