"""Splits with a chosen rho = P(Y = y_s | S = s) (paper, section 4): exact counts, chosen by seed, checked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.joint_sampling import correlations, draw_jointly
from fit_jax.data.keyed_generator import generator
from fit_jax.data.partition import Partition, partition
from fit_jax.data.rho_sampling import (
    Rows,
    SampledExamples,
    balanced_items,
    combination_names,
    insert_values,
    subsample,
)
from fit_jax.errors import InputError
from fit_jax.focus.example import Example
from fit_jax.foreign import shown


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
        correlation: Where several features were drawn together, how far they tell each other and the label
            (`fit_jax.data.joint_sampling.correlations`).

    Raises:
        ValueError: A realised rho is further than 1 / count from the asked one.
    """

    name: str
    examples: Sequence[Example]
    rho: Mapping[str, Mapping[str, Rho]]
    cells: tuple[GroupCount, ...] = ()
    correlation: Mapping[str, float] = field(default_factory=dict)

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
        for name, size in zip(self._fields, given):
            if size is not None and size < 1:
                raise InputError(f"task.{name}_examples: {size} gives an empty split; ask for at least one")
        return Sizes(*(size or default for size, default in zip(given, self)))


class SplitSpec(NamedTuple):
    """How one split is to be drawn: its rho, on the tied outcome or (flipped) on the next one.

    Of features that are drawn together, those in `own` have one of their own.
    """

    rho: float
    flipped: bool = False
    own: Mapping[str, float] = {}  # never written to

    def rho_of(self, feature: str) -> float:
        """The rho of one feature."""
        return self.own.get(feature, self.rho)


def split_specs(config: TaskConfig, num_outcomes: int) -> dict[str, SplitSpec]:
    """The four test distributions by name; training and validation are drawn as `iid`."""
    iid = 1 / num_outcomes if config.rho_train is None else config.rho_train
    own = {f"rho_train_of.{feature}": rho for feature, rho in config.rho_train_of.items()}
    asked = {"rho_train": iid, "rho_high": config.rho_high, "rho_low": config.rho_low, **own}
    for name, rho in asked.items():
        if not 0 <= rho <= 1:
            raise InputError(f"task.{name}: {rho} is no probability; give a number from 0 to 1")
    return {
        "iid": SplitSpec(iid, own=config.rho_train_of),
        "high": SplitSpec(config.rho_high),
        "low": SplitSpec(config.rho_low),
        "flipped": SplitSpec(config.rho_high, flipped=True),
    }


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
            Where features drawn together lack a value for some answer there, these splits are left out, and noted.
        part: How rows are parted into those for training, validation and testing; None stands for `partition`.

    Returns:
        The splits by name, and one line for each thing worth knowing.

    Raises:
        InputError: A split would be empty.
    """
    asks = split_specs(config, len(rows.outcomes))
    sizes = default.asked(config)
    notes: list[str] = []
    if shifted is not None and (untied := shifted.untied):
        notes.append(
            f"no shifted splits: in them no value of {shown(untied[0])} is tied to {shown(untied[1])}, and features "
            "that are drawn together need one for each answer"
        )
        shifted = None
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
        if rows.joint:
            rhos = {feature: ask.rho_of(feature) for feature in rows.features}
            chosen, values = draw_jointly(name, rows, within, size, rhos, predicted, rng)
        else:
            draw = insert_values if rows.value is None else subsample
            chosen, values = draw(name, rows, within, size, ask.rho, predicted, rng)
        order = rng.permutation(len(chosen))
        chosen, values = chosen[order], values[order]
    rho: dict[str, dict[str, Rho]] = {}
    for v, value in enumerate(rows.values):
        outcome = rows.outcome[chosen[rows.holds[values, v] if rows.joint else values == v]]
        if len(outcome):
            realised = float(np.mean(outcome == predicted[v]))
            rho.setdefault(value.feature, {})[value.name] = Rho(
                ask and ask.rho_of(value.feature), realised, len(outcome)
            )
    examples = SampledExamples(rows, chosen, values)
    cells = () if ask is None else _cells(rows, within, chosen)
    codes = dict(zip(rows.features, np.array(rows.combinations)[values].T)) if rows.joint else {}
    found = correlations(codes, rows.outcome[chosen]) if codes else {}
    return Split(name, examples[:] if rows.stored else examples, rho, cells, found)


def _cells(rows: Rows, within: np.ndarray, chosen: np.ndarray) -> tuple[GroupCount, ...]:
    """How many rows of each cell there were in a pool, and how many were chosen."""
    names = [""] if rows.value is None else combination_names(rows)

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
    examples = [*first.examples, *second.examples]
    found = _correlations(examples) if first.correlation else {}
    return replace(first, name=name, examples=examples, rho=rho, cells=(), correlation=found)


def _correlations(examples: Sequence[Example]) -> dict[str, float]:
    """`correlations` of examples that all have the same features."""
    features = {
        feature: np.unique([example.spurious[feature].value for example in examples], return_inverse=True)[1]
        for feature in examples[0].spurious
    }
    return correlations(features, np.array([example.label for example in examples]))


def _largest_cell(rows: Rows, size: int, asks: Iterable[SplitSpec]) -> float:
    """How many rows of one (value, outcome) the most demanding of the asked splits takes."""
    if rows.value is None:
        return size
    return size * max(max(ask.rho, (1 - ask.rho) / (len(rows.outcomes) - 1)) for ask in asks)
