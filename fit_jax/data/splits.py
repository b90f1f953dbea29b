"""Splits with a chosen rho = P(Y = y_s | S = s) (paper, section 4): exact counts, chosen by seed, checked.

A feature is either *annotated* (each source row has its value; rho is set by leaving rows out) or *inserted* (the
value is put into the text; rho is set by choosing which row gets which value). Both start from one table of integer
counts per (value, outcome).

An *outcome* is the label where labels mean the same in every row. Where they do not (multiple choice), it is how the
true answer relates to y_s. Either way each value is tied to one outcome, and `flipped` ties it to the next one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.random import generator
from fit_jax.errors import InputError
from fit_jax.focus.example import Example


class Rho(NamedTuple):
    """rho of one feature value in one split: what was asked (None: left as it came), what came out, over how many."""

    asked: float | None
    realised: float
    count: int


@dataclass(frozen=True)
class Split:
    """Examples of one split, in an order that a prefix of is a fair sample.

    Attributes:
        name: train, validation, iid, high, low, flipped, or one of the last four after `shifted_`.
        examples: The examples; any sequence, so that large data may be read on demand.
        rho: By feature and value. In flipped splits it is the probability of the swapped label, not of y_s.

    Raises:
        ValueError: A realised rho is further than 1 / count from the asked one.
    """

    name: str
    examples: Sequence[Example]
    rho: Mapping[str, Mapping[str, Rho]]

    def __post_init__(self) -> None:
        for feature, values in self.rho.items():
            for value, rho in values.items():
                if rho.asked is not None and abs(rho.realised - rho.asked) > 1 / rho.count + 1e-12:
                    raise ValueError(f"split {self.name}: {feature} = {value} was drawn at {rho}")


class Value(NamedTuple):
    """A value s of a spurious feature, and the outcome it is tied to."""

    feature: str
    name: str
    outcome: int


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Source rows that splits are drawn from.

    Attributes:
        outcomes: Names of the outcomes.
        outcome: (N,) index of each row's outcome.
        key: (N,) key of each row's source text; rows of one key never part between train, validation and test.
        values: The feature values and what they are tied to.
        value: (N,) index of each row's value, or None where values are inserted.
        example: Makes the example of (row, value).
        stored: Whether splits keep their examples, or make each one when it is asked for.
    """

    outcomes: tuple[str, ...]
    outcome: np.ndarray
    key: np.ndarray
    values: tuple[Value, ...]
    value: np.ndarray | None
    example: Callable[[int, int], Example]
    stored: bool = True


class Drawn(Sequence[Example]):
    """The examples of a split, each made when it is asked for.

    Attributes:
        rows: (N,) the source rows drawn.
        values: (N,) index of the value that each has or is given.
    """

    def __init__(self, source: Rows, rows: np.ndarray, values: np.ndarray) -> None:
        self.rows = rows
        self.values = values
        self._example = source.example

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._example(row, v) for row, v in zip(self.rows[index].tolist(), self.values[index].tolist())]
        return self._example(int(self.rows[index]), int(self.values[index]))


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
                raise InputError(f"--task.{field}_examples: {size} gives an empty split; ask for at least one")
        return Sizes(*(size or default for size, default in zip(given, self)))


class Ask(NamedTuple):
    """How one split is to be drawn: its rho, on the tied outcome or (flipped) on the next one."""

    rho: float
    flipped: bool = False


def asked_splits(config: TaskConfig, num_outcomes: int) -> dict[str, Ask]:
    """The four test distributions by name; training and validation are drawn as `iid`."""
    iid = 1 / num_outcomes if config.rho_train is None else config.rho_train
    for field, rho in (("rho_train", iid), ("rho_high", config.rho_high), ("rho_low", config.rho_low)):
        if not 0 <= rho <= 1:
            raise InputError(f"--task.{field}: {rho} is no probability; give a number from 0 to 1")
    return {
        "iid": Ask(iid),
        "high": Ask(config.rho_high),
        "low": Ask(config.rho_low),
        "flipped": Ask(config.rho_high, flipped=True),
    }


def build_splits(
    config: TaskConfig, seed: int, default: Sizes, rows: Rows, test: Rows | None = None, shifted: Rows | None = None
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Draws every split of a task.

    Args:
        config: Sizes that override the default, and the rhos.
        seed: Chooses rows.
        default: Sizes asked where the config gives none; fewer are drawn, and noted, where the data give fewer.
        rows: Rows for train and validation, and for the test splits where `test` is None.
        test: Rows of an official test file. Source texts that stand here too are left out of `rows`.
        shifted: Rows with feature values that training never shows, for the `shifted_` splits; apart as `test` is.

    Returns:
        The splits by name, and one line for each thing worth knowing.

    Raises:
        InputError: A split would be empty.
    """
    asks = asked_splits(config, len(rows.outcomes))
    sizes = default.asked(config)
    notes: list[str] = []
    apart = [other.key for other in (test, shifted) if other is not None]
    within = np.flatnonzero(~np.isin(rows.key, np.concatenate(apart))) if apart else np.arange(len(rows.key))
    if len(within) < len(rows.key):
        notes.append(f"{len(rows.key) - len(within)} training rows left out: their text is in the test files too")
    needs = [_largest_cell(rows, size, [asks["iid"]]) for size in sizes[:2]]
    if test is None:
        needs.append(_largest_cell(rows, sizes.test, asks.values()))
    pools = partition(rows, within, needs, generator(seed, "partition"))

    jobs = [("train", rows, pools[0], sizes.train, asks["iid"])]
    jobs.append(("validation", rows, pools[1], sizes.validation, asks["iid"]))
    held_out = (rows, pools[2]) if test is None else (test, np.arange(len(test.key)))
    jobs += [(name, *held_out, sizes.test, ask) for name, ask in asks.items()]
    if shifted is not None:
        whole = np.arange(len(shifted.key))
        jobs += [(f"shifted_{name}", shifted, whole, sizes.test, ask) for name, ask in asks.items()]
    splits = {}
    for name, source, pool, size, ask in jobs:
        splits[name] = draw_split(name, source, pool, size, ask, generator(seed, "split", name))
        if (drawn := len(splits[name].examples)) < size:
            notes.append(f"{name}: {drawn} of {size} examples, as many as the data allow at rho {ask.rho:.3g}")
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
    pool = np.searchsorted(np.cumsum(needs)[:-1] / np.sum(needs), rank)[group]
    return [within[pool == i] for i in range(len(needs))]


def draw_split(name: str, rows: Rows, within: np.ndarray, size: int, ask: Ask, rng: np.random.Generator) -> Split:
    """Draws up to `size` of the rows `within` at the asked rho, values as equally frequent as the data allow.

    Raises:
        InputError: Some value has no row at all that the asked rho could use.
    """
    predicted = [(value.outcome + ask.flipped) % len(rows.outcomes) for value in rows.values]
    draw = _insert if rows.value is None else _subsample
    chosen, values = draw(name, rows, within, size, ask.rho, predicted, rng)
    order = rng.permutation(len(chosen))
    chosen, values = chosen[order], values[order]
    rho: dict[str, dict[str, Rho]] = {}
    for v, value in enumerate(rows.values):
        outcome = rows.outcome[chosen[values == v]]
        if len(outcome):
            realised = float(np.mean(outcome == predicted[v]))
            rho.setdefault(value.feature, {})[value.name] = Rho(ask.rho, realised, len(outcome))
    examples = Drawn(rows, chosen, values)
    return Split(name, examples[:] if rows.stored else examples, rho)


def joined(name: str, first: Split, second: Split) -> Split:
    """Both splits' examples, `second` after `first`; both must have the same feature values and asked rho."""
    rho: dict[str, dict[str, Rho]] = {}
    for feature, values in first.rho.items():
        for value, a in values.items():
            b = second.rho[feature][value]
            both = a.count + b.count
            realised = (a.realised * a.count + b.realised * b.count) / both
            rho.setdefault(feature, {})[value] = Rho(a.asked, realised, both)
    return replace(first, name=name, examples=[*first.examples, *second.examples], rho=rho)


def cell_counts(sizes: Sequence[int], predicted: Sequence[int], rho: float, num_outcomes: int) -> np.ndarray:
    """(V, L) rows per (value, outcome): `rho` of each value's size on its predicted outcome, the rest spread evenly."""
    table = np.zeros((len(sizes), num_outcomes), int)
    for v, (size, outcome) in enumerate(zip(sizes, predicted)):
        table[v, outcome] = hit = int(rho * size + 0.5)
        others = [(outcome + i) % num_outcomes for i in range(1, num_outcomes)]
        each, extra = divmod(size - hit, len(others))
        table[v, others] = each
        table[v, others[:extra]] += 1
    return table


def _insert(
    name: str, rows: Rows, within: np.ndarray, size: int, rho: float, predicted: list[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and the value each is given; every value equally often."""
    values = len(rows.values)

    def table(total: int) -> np.ndarray:
        sizes = [total // values + (v < total % values) for v in range(values)]
        return cell_counts(sizes, predicted, rho, len(rows.outcomes))

    outcome = rows.outcome[within]
    available = np.bincount(outcome, minlength=len(rows.outcomes))
    total = _largest(lambda total: table(total).sum(0), available, min(size, len(within)))
    if total < values:
        have = ", ".join(f"{n} {o}" for n, o in zip(available, rows.outcomes))
        raise InputError(
            f"split {name}: rho {rho:.3g} over {values} feature values cannot be drawn from {have} rows; "
            "ask for another rho or give more data"
        )
    chosen, given = [], []
    for o, cells in enumerate(table(total).T):
        chosen.append(rng.permutation(within[outcome == o])[: cells.sum()])
        given.append(np.repeat(np.arange(values), cells))
    return np.concatenate(chosen), np.concatenate(given)


def _subsample(
    name: str, rows: Rows, within: np.ndarray, size: int, rho: float, predicted: list[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows chosen so that each value has the asked rho, and the value each row has."""
    assert rows.value is not None
    num_outcomes = len(rows.outcomes)
    cell = rows.value[within] * num_outcomes + rows.outcome[within]
    available = np.bincount(cell, minlength=len(rows.values) * num_outcomes).reshape(-1, num_outcomes)
    most = []
    for have, outcome, value in zip(available, predicted, rows.values):
        most.append(_largest(lambda n, o=outcome: cell_counts([n], [o], rho, num_outcomes)[0], have, have.sum()))
        if most[-1] < min(_fewest(rho), have.sum()):
            counts = ", ".join(f"{n} {o}" for n, o in zip(have, rows.outcomes))
            raise InputError(
                f"split {name}: rho {rho:.3g} on {rows.outcomes[outcome]} cannot be drawn from the rows with "
                f"{value.feature} = {value.name}: {counts}; ask for another rho or leave the value out"
            )
    if not sum(most):
        raise InputError(f"split {name}: there is no row to draw from; give more data or ask for smaller other splits")
    table = cell_counts(_level(most, size), predicted, rho, num_outcomes)
    chosen = [
        rng.permutation(within[cell == v * num_outcomes + o])[: table[v, o]]
        for v in range(len(rows.values))
        for o in range(num_outcomes)
    ]
    return np.concatenate(chosen), np.repeat(np.arange(len(rows.values)), table.sum(1))


def _largest(counts: Callable[[int], np.ndarray], available: np.ndarray, size: int) -> int:
    """The largest number up to `size` whose counts are all available."""
    need = counts(size)
    short = need > available
    if short.any():  # start just above the answer, which rounding moves by less than one row a cell
        size = min(size, int(size * np.min(available[short] / need[short])) + 2 * need.size)
    while size and (counts(size) > available).any():
        size -= 1
    return size


def _fewest(rho: float) -> int:
    """The fewest rows whose counts show both the predicted outcome and another, as `rho` asks."""
    sizes = (n for n in count(1) if (rho == 0 or int(rho * n + 0.5)) and (rho == 1 or n > int(rho * n + 0.5)))
    return next(sizes)


def _level(most: Sequence[int], size: int) -> list[int]:
    """Sizes up to `most` that sum to `size` (or to all there is), as equal as they can be."""
    sizes = [0] * len(most)
    for done, v in enumerate(np.argsort(most, kind="stable")):
        sizes[v] = min(most[v], size // (len(most) - done))
        size -= sizes[v]
    return sizes


def _largest_cell(rows: Rows, size: int, asks: Sequence[Ask] | Mapping[str, Ask]) -> float:
    """How many rows of one (value, outcome) the most demanding of the asked splits takes."""
    if rows.value is None:
        return size
    return size * max(max(ask.rho, (1 - ask.rho) / (len(rows.outcomes) - 1)) for ask in asks)
