"""Several features at once: each has its rho, and none says anything of another beyond what the outcome says.

A *combination* is one value of every feature. Every outcome is as frequent as any other, and so are, feature by
feature, the values tied to each of them together; then each feature can have any rho whatever the others have. Within
an outcome the features' values are independent: the table of combinations has the counts of each feature exactly, and
each of its cells differs from the product of shares by less than a row (per feature beyond the first).
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations, pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.rho_sampling import Rows, assigned, combination_names, fewest, picked
from fit_jax.errors import InputError
from fit_jax.foreign import quoted, shown
from fit_jax.tables import Table

# Combinations beyond which most would have no row at all.
MOST_COMBINATIONS = 200
_DENOMINATOR = 10**6


def chosen_features(config: TaskConfig, offered: Sequence[str], task: str) -> tuple[str, ...]:
    """The features of `task.features`, in the task's order; the first that it offers where the config names none.

    Raises:
        InputError: The task lacks one, or one is named twice.
    """
    named = config.features or tuple(offered[:1])
    unknown = [feature for feature in named if feature not in offered]
    if unknown:
        raise InputError(
            f"task.features: task {task} has no feature {quoted(unknown[0])}; it has {', '.join(map(shown, offered))}"
        )
    if len(set(named)) < len(named):
        raise InputError(f"task.features: {', '.join(map(shown, named))} names a feature twice; leave one out")
    return tuple(feature for feature in offered if feature in named)


class Margin(NamedTuple):
    """What a joint table keeps of one feature.

    Attributes:
        predicted: By value, the outcome that it predicts.
        weights: By value, how frequent it is to be among the values that predict the same outcome.
        rho: The share of each value's rows that have its outcome.
    """

    predicted: Sequence[int]
    weights: Sequence[float]
    rho: float


def joint_counts(each: int, margins: Sequence[Margin], num_outcomes: int) -> np.ndarray:
    """(combinations, outcomes) rows, `each` of every outcome; combinations as `itertools.product` orders them."""
    joint, *others = (_margin_counts(each, margin, num_outcomes) for margin in margins)
    for table in others:
        cells = [rounded(np.outer(joint[:, o], table[:, o]), max(each, 1)).ravel() for o in range(num_outcomes)]
        joint = np.stack(cells, axis=1)
    return joint


def rounded(numerators: np.ndarray, denominator: int) -> np.ndarray:
    """Whole numbers for a table of fractions, its sums of rows and columns kept, no cell changed by 1 or more.

    Cells that are not whole lie on loops, for the sums are whole; going round a loop, cells are raised and lowered in
    turn until one is whole (controlled rounding; Cox, 1987).

    Args:
        numerators: (R, C) integers whose sums of rows and of columns are multiples of the denominator.
        denominator: Of all cells.
    """
    rest = numerators % denominator
    while loop := _loop(rest % denominator != 0):
        raised, lowered = loop[::2], loop[1::2]
        step = min(*(denominator - rest[cell] for cell in raised), *(rest[cell] for cell in lowered))
        for cell in raised:
            rest[cell] += step
        for cell in lowered:
            rest[cell] -= step
    return numerators // denominator + rest // denominator


def draw_jointly(
    name: str,
    rows: Rows,
    within: np.ndarray,
    size: int,
    rho: Mapping[str, float],
    predicted: Sequence[int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in which every feature has its rho and they are independent given the outcome, and each row's combination.

    Args:
        name: The split.
        rows: What is drawn from; values are inserted into them, or theirs already.
        within: The rows that may be drawn.
        size: How many are wanted.
        rho: By feature.
        predicted: By value, the outcome that it predicts here.
        rng: Chooses rows.

    Raises:
        InputError: A feature ties no value to some outcome, the rows lack a combination, or there are too many.
    """
    members = {feature: [v for v, value in enumerate(rows.values) if value.feature == feature] for feature in rho}
    if (number := prod(map(len, members.values()))) > MOST_COMBINATIONS:
        raise InputError(
            f"task.features: {' and '.join(map(shown, rho))} have {number} combinations of values, more than "
            f"{MOST_COMBINATIONS}; choose fewer features, or values (`values` of a feature)"
        )
    num_outcomes = len(rows.outcomes)
    outcome = rows.outcome[within]
    if rows.value is None:
        available = np.bincount(outcome, minlength=num_outcomes)
        weights = np.ones(len(rows.values))
    else:
        cell = rows.value[within] * num_outcomes + outcome
        available = np.bincount(cell, minlength=number * num_outcomes).reshape(-1, num_outcomes)
        weights = available.sum(1) @ rows.holds
    for feature, own in members.items():
        for o in set(range(num_outcomes)) - {predicted[v] for v in own if weights[v]}:
            raise InputError(
                f"split {name}: no value of {shown(feature)} is tied to {shown(rows.outcomes[o])}, and features that "
                "are drawn together need one for each answer; tie one to it in its `labels`, or leave the feature out "
                "of task.features"
            )
    margins = [Margin([predicted[v] for v in own], weights[own].tolist(), rho[f]) for f, own in members.items()]

    def table(each: int) -> np.ndarray:
        return joint_counts(each, margins, num_outcomes)

    def needed(each: int) -> np.ndarray:
        return table(each).sum(0) if rows.value is None else table(each)

    each, most = 0, min(size, len(within)) // num_outcomes
    while each < most:  # tables of more rows need more of nearly every cell
        middle = (each + most + 1) // 2
        if (needed(middle) <= available).all():
            each = middle
        else:
            most = middle - 1
    counts = table(each)
    _check_enough(name, rows, rho, counts, available, weights, needed(each + 1), size)
    return (assigned if rows.value is None else picked)(rows, within, counts, rng)


def correlations(codes: Mapping[str, np.ndarray], outcome: np.ndarray) -> dict[str, float]:
    """Cramér's V (1946) of each pair of features, alone and given the label, and of each feature with the label.

    Given the label it is the root of the chi-squared statistics, summed over labels, over the largest that they could
    be; 0 is independence and 1 that one determines the other.

    Args:
        codes: By feature, (N,) the number of each example's value.
        outcome: (N,) the number of its label.
    """
    everything = np.zeros_like(outcome)
    found = {}
    for first, second in combinations(codes, 2):
        pair = f"{first} and {second}"
        found[pair] = _association(codes[first], codes[second], everything)
        found[f"{pair}, given the label"] = _association(codes[first], codes[second], outcome)
    return found | {f"{name} and the label": _association(code, outcome, everything) for name, code in codes.items()}


def correlation_table(splits: Mapping[str, Mapping[str, float]]) -> Table:
    """What `correlations` found, by split; without rows where no features were drawn together."""
    pairs = list(dict.fromkeys(pair for found in splits.values() for pair in found))
    rows = [(name, *(f"{found[pair]:.3f}" for pair in pairs)) for name, found in splits.items() if found]
    caption = (
        "Cramér's V: 0 is independence, and 1 that one tells the other. Features that are drawn together are "
        "independent given the label, up to the rounding of row counts; where each of them tells the label, they tell "
        "each other too."
    )
    return Table("Correlation of the features", caption, ("split", *pairs), rows)


def _association(first: np.ndarray, second: np.ndarray, given: np.ndarray) -> float:
    statistic = most = 0.0
    for value in np.unique(given):
        here = given == value
        (a, rows), (b, columns) = (np.unique(code[here], return_inverse=True) for code in (first, second))
        counts = np.bincount(rows * len(b) + columns, minlength=len(a) * len(b)).reshape(len(a), len(b))
        expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
        statistic += float(((counts - expected) ** 2 / expected).sum())
        most += float(counts.sum()) * (min(len(a), len(b)) - 1)
    return (statistic / most) ** 0.5 if most else 0.0


def _margin_counts(each: int, margin: Margin, num_outcomes: int) -> np.ndarray:
    """(values, outcomes) counts of one feature, with `each` rows of every outcome."""
    predicted, sizes = np.array(margin.predicted), np.zeros(len(margin.predicted), int)
    for o in range(num_outcomes):
        tied = np.flatnonzero(predicted == o)
        weights = np.array(margin.weights)[tied]
        shares = each * weights / weights.sum() if weights.sum() else np.full(len(tied), each / len(tied))
        sizes[tied] = np.floor(shares)
        more = np.argsort(sizes[tied] - shares, kind="stable")[: each - sizes[tied].sum()]
        sizes[tied[more]] += 1
    rho = Fraction(margin.rho).limit_denominator(_DENOMINATOR)
    numerators = np.tile(sizes[:, None] * (rho.denominator - rho.numerator), num_outcomes)
    numerators[np.arange(len(sizes)), predicted] = sizes * rho.numerator * (num_outcomes - 1)
    return rounded(numerators, rho.denominator * (num_outcomes - 1))


def _check_enough(
    name: str,
    rows: Rows,
    rho: Mapping[str, float],
    counts: np.ndarray,
    available: np.ndarray,
    weights: np.ndarray,
    more: np.ndarray,
    size: int,
) -> None:
    """Raises `InputError` where a value has too few rows to show its rho."""
    drawn = counts.sum(1) @ rows.holds
    if not any(n > 0 and m < fewest(rho[value.feature]) for n, m, value in zip(weights, drawn, rows.values)):
        return
    features = " and ".join(map(shown, rho))
    if rows.value is None:
        have = ", ".join(f"{n} {o}" for n, o in zip(available, rows.outcomes))
        raise InputError(
            f"split {name}: {features} cannot be drawn independently of each other from {have} rows; ask for more "
            "examples, or give more data"
        )
    short = np.argwhere(more > available)
    if not len(short):
        raise InputError(
            f"split {name}: {size} examples are too few for every value of {features}; ask for more, or leave rare "
            "values out (`values` of a feature)"
        )
    c, o = short[0]
    raise InputError(
        f"split {name}: {features} cannot be drawn independently of each other: {available[c, o]} rows with "
        f"{shown(combination_names(rows)[c])} have the answer {shown(rows.outcomes[o])}; give more rows, hold more of "
        "them back (`test:` of a description), leave rare values out (`values` of a feature), or draw fewer features "
        "(task.features)"
    )


def _loop(left: np.ndarray) -> list[tuple[int, int]]:
    """Cells that are left, each in the row or, in turn, the column of the one before, and so the first of the last."""
    if not left.any():
        return []
    lines = [(0, int(np.argwhere(left)[0, 0]))]  # pairs (0, row) and (1, column)
    while True:
        axis, at = lines[-1]
        crossing = np.flatnonzero(left[at] if axis == 0 else left[:, at])
        came = lines[-2][1] if len(lines) > 1 else -1
        line = (1 - axis, int(crossing[crossing != came][0]))
        if line in lines:
            round_trip = [*lines[lines.index(line) :], line]
            return [(a, b) if axis == 0 else (b, a) for (axis, a), (_, b) in pairwise(round_trip)]
        lines.append(line)
