"""Choosing rows so that a feature has a chosen rho: one table of integer counts per (value, outcome).

A feature is either *annotated* (each source row has its value; rho is set by leaving rows out) or *inserted* (the
value is put into the text; rho is set by choosing which row gets which value).

An *outcome* is the label where labels mean the same in every row. Where they do not (multiple choice), it is how the
true answer relates to y_s. Either way each value is tied to one outcome, and `flipped` ties it to the next one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, product
from typing import NamedTuple

import numpy as np

from fit_jax.data.lazy_examples import LazyExamples
from fit_jax.errors import InputError
from fit_jax.focus.example import Example
from fit_jax.foreign import shown


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
        joint: Whether a row has a value of every feature, all drawn together; "the value" of a row is then the index
            of one of the `combinations`.
        item: (N,) number of the item that a row is one of several questions about, -1 for none; with it the data have
            a natural distribution, in which items stand whole and each side of an item has its like.
        stored: Whether splits keep their examples, or make each one when it is asked for.
    """

    outcomes: tuple[str, ...]
    outcome: np.ndarray
    key: np.ndarray
    values: tuple[Value, ...]
    value: np.ndarray | None
    example: Callable[[int, int], Example]
    item: np.ndarray | None = None
    stored: bool = True
    joint: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        """The features that the values are of."""
        return tuple(dict.fromkeys(value.feature for value in self.values))

    @cached_property
    def combinations(self) -> tuple[tuple[int, ...], ...]:
        """What a row can have, as indices of `values`: one of each feature where they are drawn together, else one."""
        return combinations_of(self.values) if self.joint else tuple((v,) for v in range(len(self.values)))

    @property
    def untied(self) -> tuple[str, str] | None:
        """Of features that are drawn together, one of which no value is tied to an outcome, and that outcome."""
        tied = {(value.feature, value.outcome) for value in self.values}
        pairs = product(self.features if self.joint else (), range(len(self.outcomes)))
        return next(((f, self.outcomes[o]) for f, o in pairs if (f, o) not in tied), None)

    @cached_property
    def holds(self) -> np.ndarray:
        """(combinations, values) whether a combination holds a value; of features that are drawn together."""
        holds = np.zeros((len(self.combinations), len(self.values)), bool)
        for number, combination in enumerate(self.combinations):
            holds[number, list(combination)] = True
        return holds


def combinations_of(values: Sequence[Value]) -> tuple[tuple[int, ...], ...]:
    """One value of every feature, in all ways, as indices of `values`; those of the last feature change first."""
    features = dict.fromkeys(value.feature for value in values)
    return tuple(product(*([v for v, value in enumerate(values) if value.feature == f] for f in features)))


class SampledExamples(LazyExamples):
    """The examples of a split.

    Attributes:
        rows: (N,) the source rows drawn.
    """

    def __init__(self, source: Rows, rows: np.ndarray, values: np.ndarray) -> None:
        """`values` holds the index of the value that each of the rows has or is given."""
        super().__init__(len(rows), lambda numbers: [source.example(int(rows[n]), int(values[n])) for n in numbers])
        self.rows = rows


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


def insert_values(
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
    return assigned(rows, within, table(total), rng)


def subsample(
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
        if most[-1] < min(fewest(rho), have.sum()):
            counts = ", ".join(f"{n} {o}" for n, o in zip(have, rows.outcomes))
            raise InputError(
                f"split {name}: rho {rho:.3g} on {shown(rows.outcomes[outcome])} cannot be drawn from the rows with "
                f"{value.feature} = {shown(value.name)}: {shown(counts)}; give more rows, hold more of them back "
                "(`test:` of a description), ask for another task.rho_low or task.rho_high, or leave the value out"
            )
    if not sum(most):
        raise InputError(f"split {name}: there is no row to draw from; give more data or ask for smaller other splits")
    return picked(rows, within, cell_counts(_level(most, size), predicted, rho, num_outcomes), rng)


def assigned(
    rows: Rows, within: np.ndarray, table: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows drawn at random to be given values: (values, outcomes) so many of each; and the value of each."""
    outcome = rows.outcome[within]
    chosen, given = [], []
    for o, cells in enumerate(table.T):
        chosen.append(rng.permutation(within[outcome == o])[: cells.sum()])
        given.append(np.repeat(np.arange(len(table)), cells))
    return np.concatenate(chosen), np.concatenate(given)


def picked(
    rows: Rows, within: np.ndarray, table: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows drawn at random by the value that they have: (values, outcomes) so many of each; and the value of each."""
    assert rows.value is not None
    values, num_outcomes = table.shape
    cell = rows.value[within] * num_outcomes + rows.outcome[within]
    chosen = [
        rng.permutation(within[cell == v * num_outcomes + o])[: table[v, o]]
        for v in range(values)
        for o in range(num_outcomes)
    ]
    return np.concatenate(chosen), np.repeat(np.arange(values), table.sum(1))


def combination_names(rows: Rows) -> list[str]:
    """What reports call each of a row's values or combinations."""
    return [" & ".join(rows.values[v].name for v in combination) for combination in rows.combinations]


def balanced_items(
    name: str, rows: Rows, within: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of whole items in their natural proportions, and the value each row has; nothing is shaped but one balance.

    Of each value as many items are taken that hold an answer of outcome 0 (y = y_s) as that hold none, in pairs that
    stay together: after every pair the right answer has agreed with y_s as often as the data's design has it differ.
    """
    assert rows.value is not None
    assert rows.item is not None
    within = within[rows.item[within] >= 0]
    _, first, group = np.unique(rows.item[within], return_index=True, return_inverse=True)
    members = np.split(within[np.argsort(group, kind="stable")], np.cumsum(np.bincount(group))[:-1])
    value = rows.value[within[first]]
    agrees = np.array([(rows.outcome[member] == 0).any() for member in members], bool)
    pairs: list[tuple[int, int]] = []
    for v in range(len(rows.values)):
        sides = [rng.permutation(np.flatnonzero((value == v) & (agrees == side))) for side in (False, True)]
        pairs += zip(*(side.tolist() for side in sides))
    chosen: list[np.ndarray] = []
    for number in rng.permutation(len(pairs)):
        both = np.concatenate([members[item] for item in pairs[number]])
        if len(both) > size:
            break
        size -= len(both)
        chosen.append(both)
    if not chosen:
        raise InputError(f"split {name}: there is no pair of items to draw; give more data or ask for more examples")
    drawn = np.concatenate(chosen)
    return drawn, rows.value[drawn]


def _largest(counts: Callable[[int], np.ndarray], available: np.ndarray, size: int) -> int:
    """The largest number up to `size` whose counts are all available."""
    need = counts(size)
    short = need > available
    if short.any():  # start just above the answer, which rounding moves by less than one row a cell
        size = min(size, int(size * np.min(available[short] / need[short])) + 2 * need.size)
    while size and (counts(size) > available).any():
        size -= 1
    return size


def fewest(rho: float) -> int:
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
