"""Several features drawn together: exact counts, independence given the outcome, and what is refused."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fit_jax.config import TaskConfig
from fit_jax.data.joint_sampling import (
    MOST_COMBINATIONS,
    Margin,
    chosen_features,
    correlation_table,
    correlations,
    joint_counts,
    rounded,
)
from fit_jax.data.keyed_generator import generator
from fit_jax.data.rho_sampling import Rows, Value
from fit_jax.data.splits import Sizes, SplitSpec, build_splits, joined, sample_split
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious

LABELS = ("no", "maybe", "yes")
COLOURS = tuple(Value("colour", name, v) for v, name in enumerate(("red", "green", "blue")))
SIZES = tuple(Value("size", name, v % 3) for v, name in enumerate(("s", "m", "l", "xl")))


def make_rows(outcome, values, value=None, labels=LABELS):
    """Rows whose examples say their combination, which is annotated where `value` gives each row's values."""
    rows: list[Rows] = []

    def example(row, combination):
        held = [values[v] for v in rows[0].combinations[combination]]
        spurious = {v.feature: Spurious(v.name, v.outcome) for v in held}
        return Example(f"row-{row}", {"text": f"text {row}"}, labels, int(outcome[row]), spurious)

    joint = len({v.feature for v in values}) > 1
    rows.append(
        Rows(
            outcomes=labels,
            outcome=np.asarray(outcome),
            key=np.arange(len(outcome)),
            values=values,
            value=None if value is None else np.asarray(value),
            example=example,
            joint=joint,
        )
    )
    return rows[0]


@given(
    rows=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 10**6), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=100)
def test_rounding_keeps_sums_and_stays_within_one(rows, cuts):
    total = max(sum(rows), 1)
    edges = np.sort([0, total, *(cut % (total + 1) for cut in cuts)])
    columns = np.diff(edges)
    rows = [*rows, total - sum(rows)]
    numerators = np.outer(rows, columns)
    whole = rounded(numerators, total)
    assert whole.sum(0).tolist() == columns.tolist()
    assert whole.sum(1).tolist() == rows
    assert (np.abs(whole * total - numerators) < total).all()


@st.composite
def margins(draw):
    num_outcomes = draw(st.integers(2, 4))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        extra = draw(st.lists(st.integers(0, num_outcomes - 1), max_size=2))
        predicted = draw(st.permutations([*range(num_outcomes), *extra]))
        weights = draw(st.lists(st.integers(1, 50), min_size=len(predicted), max_size=len(predicted)))
        found.append(Margin(predicted, weights, draw(st.floats(0, 1))))
    return num_outcomes, found


@given(drawn=margins(), each=st.integers(0, 120))
@settings(deadline=None, max_examples=150)
def test_every_feature_has_its_rho_and_none_tells_another_given_the_outcome(drawn, each):
    num_outcomes, features = drawn
    shape = [len(f.predicted) for f in features]
    table = joint_counts(each, features, num_outcomes).reshape(*shape, num_outcomes)
    assert table.min() >= 0
    assert table.reshape(-1, num_outcomes).sum(0).tolist() == [each] * num_outcomes
    product_of_shares = np.full_like(table, each, float)
    for axis, feature in enumerate(features):
        others = tuple(a for a in range(len(features)) if a != axis)
        counts = table.sum(others)  # (values, outcomes)
        sizes, hits = counts.sum(1), counts[np.arange(len(counts)), feature.predicted]
        assert (np.abs(hits - feature.rho * sizes) < 1 + 1e-4).all()
        for o in range(num_outcomes):  # the values tied to an outcome are together as frequent as those of any other
            tied = np.array(feature.predicted) == o
            assert sizes[tied].sum() == each
            weights = np.array(feature.weights)[tied]
            assert (np.abs(sizes[tied] - each * weights / weights.sum()) < 1).all()
            off = counts[~tied, o] - sizes[~tied] * (1 - feature.rho) / (num_outcomes - 1)
            assert (np.abs(off) < 1 + 1e-4).all()
        spread = [1] * len(features) + [num_outcomes]
        spread[axis] = len(counts)
        product_of_shares *= (counts / max(each, 1)).reshape(spread)
    assert (np.abs(table - product_of_shares) < max(len(features) - 1, 1e-9)).all()


def measured(examples, feature, flipped=False):
    """By value, rho and count, from the examples alone."""
    found = {}
    for value, y_s in {e.spurious[feature] for e in examples}:
        labels = [e.label for e in examples if e.spurious[feature].value == value]
        found[value] = (np.mean(np.array(labels) == (y_s + flipped) % 3), len(labels))
    return found


ASKS = [SplitSpec(1 / 3), SplitSpec(0.9), SplitSpec(0.1), SplitSpec(0.9, flipped=True), SplitSpec(1.0), SplitSpec(0.0)]


@pytest.mark.parametrize("ask", [*ASKS, SplitSpec(1 / 3, own={"size": 0.8})])
@pytest.mark.parametrize("annotated", [True, False])
def test_a_split_has_the_asked_rho_of_each_feature(ask, annotated):
    rng = np.random.default_rng(0)
    values = (*COLOURS, *SIZES)
    value = rng.integers(12, size=6000) if annotated else None
    rows = make_rows(rng.integers(3, size=6000), values, value)
    split = sample_split("x", rows, np.arange(6000), 600, ask, generator(0, "x"))
    assert len({e.uid for e in split.examples}) == len(split.examples) > 300
    for feature in ("colour", "size"):
        asked = ask.own.get(feature, ask.rho)
        for name, (rho, count) in measured(split.examples, feature, ask.flipped).items():
            assert abs(rho - asked) <= 1 / count
            told = split.rho[feature][name]
            assert (told.asked, told.count) == (asked, count)
            assert told.realised == pytest.approx(rho)
    assert split.correlation["colour and size, given the label"] < 0.2  # rare cells are rounded to whole rows
    if annotated:
        held = [(e.spurious["colour"].value, e.spurious["size"].value) for e in split.examples]
        at = {uid: value[int(uid.removeprefix("row-"))] for uid in (e.uid for e in split.examples)}
        every = list(product((v.name for v in COLOURS), (v.name for v in SIZES)))
        assert held == [every[at[e.uid]] for e in split.examples]


def test_the_colour_says_nothing_of_the_size_where_each_says_nothing_of_the_label():
    rows = make_rows(np.arange(3600) % 3, (*COLOURS, *SIZES))
    split = sample_split("iid", rows, np.arange(3600), 3600, SplitSpec(1 / 3), generator(0, "x"))
    pairs = [(e.spurious["colour"].value, e.spurious["size"].value, e.label) for e in split.examples]
    counts = np.array([pairs.count((c.name, s.name, y)) for c in COLOURS for s in SIZES for y in range(3)])
    # s and xl are both tied to "no", and share its third.
    expected = [3600 / 27 / (2 if s.outcome == 0 else 1) for _ in COLOURS for s in SIZES for _ in range(3)]
    assert np.abs(counts - expected).max() < 2
    assert max(split.correlation.values()) < 0.01


def test_a_split_takes_as_many_rows_as_the_rarest_combination_allows():
    values = (COLOURS[0], COLOURS[1], Value("size", "s", 0), Value("size", "l", 1))
    labels = ("no", "maybe")
    #           red s   red l   green s  green l
    have = {0: [40, 40, 40, 10], 1: [40, 40, 40, 40]}
    outcome = [y for y, counts in have.items() for n in counts for _ in range(n)]
    value = [c for counts in have.values() for c, n in enumerate(counts) for _ in range(n)]
    rows = make_rows(outcome, values, value, labels)
    split = sample_split("iid", rows, np.arange(len(outcome)), 1000, SplitSpec(0.5), generator(0, "x"))
    drawn = [(c.value, c.outcome, c.available, c.drawn) for c in split.cells]
    assert ("green & l", "no", 10, 10) in drawn
    assert abs(len(split.examples) - 80) <= 8
    assert sum(c.drawn for c in split.cells) == len(split.examples)


def test_annotated_values_of_one_outcome_are_as_frequent_as_in_the_data():
    rng = np.random.default_rng(0)
    value = rng.integers(3, size=9000) * 4 + rng.choice(4, size=9000, p=(0.3, 0.3, 0.3, 0.1))
    rows = make_rows(rng.integers(3, size=9000), (*COLOURS, *SIZES), value)
    split = sample_split("iid", rows, np.arange(9000), 900, SplitSpec(1 / 3), generator(0, "x"))
    sizes = {name: rho.count for name, rho in split.rho["size"].items()}
    assert sizes["s"] + sizes["xl"] == sizes["m"] == sizes["l"] == 300
    assert sizes["s"] == pytest.approx(225, abs=12)


def test_joined_splits_keep_their_correlation():
    rows = make_rows(np.arange(600) % 3, (*COLOURS, *SIZES))
    parts = [sample_split("x", rows, np.arange(600), 300, SplitSpec(0.9), generator(seed, "x")) for seed in (0, 1)]
    both = joined("train", *parts)
    for pair, value in both.correlation.items():
        assert value == pytest.approx(np.mean([part.correlation[pair] for part in parts]), abs=0.05)
    assert both.correlation.keys() == parts[0].correlation.keys()


def test_cramers_v():
    label = np.repeat([0, 1], 200)
    same = {"a": np.tile([0, 1], 200), "b": np.tile([0, 1], 200)}
    assert correlations(same, label) == {
        "a and b": 1.0,
        "a and b, given the label": 1.0,
        "a and the label": 0.0,
        "b and the label": 0.0,
    }
    # Each follows the label at 0.75, and of the rows that do, as many follow it in both as chance has.
    counts = {(0, 0, 0): 9, (0, 1, 0): 3, (1, 0, 0): 3, (1, 1, 0): 1}
    counts |= {(1 - a, 1 - b, 1): n for (a, b, _), n in counts.items()}
    a, b, y = np.repeat(np.array(list(counts)), list(counts.values()), axis=0).T
    found = correlations({"a": a, "b": b}, y)
    assert found["a and the label"] == pytest.approx(0.5)
    assert found["a and b"] == pytest.approx(0.25)  # by the label that both follow
    assert found["a and b, given the label"] == pytest.approx(0, abs=1e-12)
    constant = correlations({"a": a, "b": np.zeros_like(b)}, y)
    assert constant["a and b"] == 0.0
    assert correlation_table({"train": {}, "iid": found}).rows == [("iid", "0.250", "0.000", "0.500", "0.500")]
    assert not correlation_table({"train": {}}).rows


def test_config_chooses_features_and_a_rho_of_their_own():
    rows = make_rows(np.arange(3000) % 3, (*COLOURS, *SIZES))
    config = TaskConfig(rho_train_of={"size": 0.7}, rho_high=0.8)
    splits, _ = build_splits(config, 0, Sizes(300, 60, 90), rows)
    asked = {name: {f: {r.asked for r in of.values()} for f, of in split.rho.items()} for name, split in splits.items()}
    for name in ("train", "validation", "iid"):
        assert asked[name] == {"colour": {1 / 3}, "size": {0.7}}
    assert asked["high"] == asked["flipped"] == {"colour": {0.8}, "size": {0.8}}
    assert asked["low"] == {"colour": {0.1}, "size": {0.1}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": ("hue",)}, r"task\.features: task t has no feature 'hue'; it has colour, size$"),
        ({"features": ("size", "size")}, "names a feature twice"),
    ],
)
def test_features_that_a_task_lacks_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        chosen_features(TaskConfig(**fields), ("colour", "size"), "t")


def test_features_come_in_the_tasks_order():
    assert chosen_features(TaskConfig(), ("colour", "size"), "t") == ("colour",)
    assert chosen_features(TaskConfig(features=("size", "colour")), ("colour", "size"), "t") == ("colour", "size")


def test_a_rho_of_its_own_is_a_probability():
    rows = make_rows(np.arange(300) % 3, (*COLOURS, *SIZES))
    with pytest.raises(InputError, match=r"task\.rho_train_of\.size: 1\.5 is no probability"):
        build_splits(TaskConfig(rho_train_of={"size": 1.5}), 0, Sizes(30, 6, 9), rows)


def refused(rows, size=600, rho=0.9):
    with pytest.raises(InputError) as told:
        sample_split("high", rows, np.arange(len(rows.outcome)), size, SplitSpec(rho), generator(0, "x"))
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_cannot_be_drawn_is_told():
    rng = np.random.default_rng(0)
    outcome = rng.integers(3, size=900)
    told = refused(make_rows(outcome, (*COLOURS, *SIZES[:2])))
    assert told.startswith("split high: no value of size is tied to yes")
    many = tuple(Value("size", f"v{n}", n % 3) for n in range(MOST_COMBINATIONS // 3 + 1))
    assert f"more than {MOST_COMBINATIONS}" in refused(make_rows(outcome, (*COLOURS, *many)))
    told = refused(make_rows(np.zeros(900, int), (*COLOURS, *SIZES)))
    assert "cannot be drawn independently of each other from 900 no, 0 maybe, 0 yes rows" in told
    # No row with red and s has the answer no, though each of both has it often.
    value = rng.integers(12, size=900)
    value[(value == 0) & (outcome == 0)] = 5
    told = refused(make_rows(outcome, (*COLOURS, *SIZES), value))
    assert "0 rows with red & s have the answer no; give more rows" in told
    told = refused(make_rows(outcome, (*COLOURS, *SIZES), rng.integers(12, size=900)), size=12)
    assert "12 examples are too few for every value of colour and size" in told
