"""Splits: exact counts, chosen rho, no source text in two parts, helpful errors."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fit_jax.config import TaskConfig
from fit_jax.data.keyed_generator import generator
from fit_jax.data.partition import partition, partition_unequal
from fit_jax.data.rho_sampling import Rows, Value
from fit_jax.data.splits import (
    Rho,
    Sizes,
    Split,
    SplitSpec,
    build_splits,
    joined,
    sample_split,
    split_specs,
)
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious

LABELS = ("no", "maybe", "yes")
VALUES = (Value("genre", "a", 0), Value("genre", "b", 1))


def make_rows(outcome, value=None, key=None, values=VALUES, outcomes=LABELS):
    outcome = np.asarray(outcome)

    def example(row, v):
        spurious = {values[v].feature: Spurious(values[v].name, values[v].outcome)}
        return Example(f"row-{row}#{values[v].name}", {"text": f"text {row}"}, outcomes, int(outcome[row]), spurious)

    key = np.arange(len(outcome)) if key is None else np.asarray(key)
    value = None if value is None else np.asarray(value)
    return Rows(outcomes=outcomes, outcome=outcome, key=key, values=values, value=value, example=example)


def measured(split, flipped=False, num_labels=3):
    """rho counted from the examples themselves, not by the code under test."""
    result = {}
    for value in {e.spurious["genre"] for e in split.examples}:
        labels = [e.label for e in split.examples if e.spurious["genre"] == value]
        result[value.value] = (np.mean(np.array(labels) == (value.label + flipped) % num_labels), len(labels))
    return result


@pytest.mark.parametrize(
    "ask",
    [SplitSpec(1 / 3), SplitSpec(0.9), SplitSpec(0.1), SplitSpec(0.9, flipped=True), SplitSpec(1.0), SplitSpec(0.0)],
)
@pytest.mark.parametrize("annotated", [True, False])
def test_realised_rho(ask, annotated):
    rng = np.random.default_rng(0)
    rows = make_rows(rng.integers(3, size=2000), rng.integers(2, size=2000) if annotated else None)
    split = sample_split("high", rows, np.arange(2000), 500, ask, generator(0, "x"))
    assert len({e.uid.partition("#")[0] for e in split.examples}) == len(split.examples)
    for value, (rho, count) in measured(split, ask.flipped).items():
        assert abs(rho - ask.rho) <= 1 / count
        assert split.rho["genre"][value] == Rho(ask.rho, pytest.approx(rho), count)


def test_each_split_has_the_rho_of_the_config():
    config = TaskConfig(rho_train=0.6, rho_high=0.8, rho_low=0.3)
    assert split_specs(config, 3) == {
        "iid": SplitSpec(0.6),
        "high": SplitSpec(0.8),
        "low": SplitSpec(0.3),
        "flipped": SplitSpec(0.8, flipped=True),
    }
    assert split_specs(TaskConfig(), 4)["iid"] == SplitSpec(0.25)


def test_flipped_keeps_the_original_spurious_label():
    rows = make_rows([0, 1, 2] * 50, [0] * 75 + [1] * 75)
    split = sample_split("flipped", rows, np.arange(150), 40, SplitSpec(0.9, flipped=True), generator(0, "x"))
    tied = {value.name: value.outcome for value in VALUES}
    assert all(e.spurious["genre"].label == tied[e.spurious["genre"].value] for e in split.examples)


def test_seed_chooses_and_repeats():
    rows = make_rows([0, 1, 2] * 100, [0] * 150 + [1] * 150)
    draws = [
        [e.uid for e in sample_split("s", rows, np.arange(300), 60, SplitSpec(1 / 3), generator(seed, "x")).examples]
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("annotated", [True, False])
def test_parts_share_no_source_text(annotated):
    rng = np.random.default_rng(1)
    key = rng.integers(300, size=900)
    rows = make_rows(rng.integers(3, size=900), rng.integers(2, size=900) if annotated else None, key)
    splits, _ = build_splits(TaskConfig(), 0, Sizes(300, 60, 90), rows)
    keys = [
        {key[int(e.uid.partition("#")[0][4:])] for e in splits[name].examples}
        for name in ("train", "validation", "high")
    ]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert list(splits) == ["train", "validation", "iid", "high", "low", "flipped"]


def test_texts_of_the_test_file_leave_training():
    rows = make_rows([0, 1, 2] * 40)
    test = make_rows([0, 1, 2] * 20, key=np.arange(100, 160))
    splits, notes = build_splits(TaskConfig(), 0, Sizes(50, 10, 30), rows, test=test)
    assert "20 training rows left out" in notes[0]
    assert all(int(e.uid.partition("#")[0][4:]) < 100 for e in splits["train"].examples)


def test_fewer_rows_than_asked_are_noted_with_their_split_and_the_reason():
    rows = make_rows([0, 1, 2] * 100, [0, 1] * 150)
    why = {0.5: r"\d+ of its \d+ rows \(\d+%\) are left out to keep rho at 0\.5", 1 / 3: "it holds all of its 216 rows"}
    for rho, said in why.items():
        splits, notes = build_splits(TaskConfig(rho_train=rho), 0, Sizes(1000, 100, 100), rows)
        size = len(splits["train"].examples)
        assert re.match(f"split train: {size} examples, fewer than the 1000 wanted: {said}; nothing need be", notes[0])


def test_config_sizes_and_rho_override():
    rows = make_rows([0, 1, 2] * 300)
    config = TaskConfig(train_examples=100, test_examples=30, rho_train=0.8)
    splits, _ = build_splits(config, 0, Sizes(200, 50, 60), rows)
    assert [len(splits[name].examples) for name in ("train", "validation", "iid")] == [100, 50, 30]
    assert splits["iid"].rho["genre"]["a"].asked == 0.8
    assert splits["high"].rho["genre"]["a"].asked == 0.9


def test_rho_that_the_data_cannot_give():
    rows = make_rows([0] * 60, [0, 1] * 30)
    with pytest.raises(InputError, match=r"rho 0.333 on no cannot be drawn.*genre = a.*30 no, 0 maybe, 0 yes"):
        sample_split("train", rows, np.arange(60), 30, SplitSpec(1 / 3), generator(0, "x"))
    with pytest.raises(InputError, match=r"cannot be drawn from 60 no, 0 maybe"):
        sample_split("train", make_rows([0] * 60), np.arange(60), 30, SplitSpec(1 / 3), generator(0, "x"))
    with pytest.raises(InputError, match="no row to draw from"):
        sample_split("train", rows, np.arange(0), 30, SplitSpec(1 / 3), generator(0, "x"))
    with pytest.raises(InputError, match=r"rho_high: 1.5 is no probability"):
        split_specs(TaskConfig(rho_high=1.5), 2)
    with pytest.raises(InputError, match="gives an empty split"):
        Sizes(1, 1, 1).asked(TaskConfig(test_examples=0))


def test_split_checks_its_rho():
    with pytest.raises(ValueError, match="was drawn at"):
        Split("high", [], {"genre": {"a": Rho(0.9, 0.5, 100)}})


def test_partition_shares_every_kind_of_row():
    rows = make_rows([0, 1, 2] * 100, [0] * 240 + [1] * 60)
    pools = partition(rows, np.arange(300), [8, 1, 1], generator(0, "x"))
    assert sorted(np.concatenate(pools)) == list(range(300))
    assert [np.bincount(rows.value[pool]).tolist() for pool in pools] == [[192, 48], [24, 6], [24, 6]]


@given(sizes=st.lists(st.integers(1, 40), min_size=12, max_size=30), seed=st.integers(0, 99), values=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_unequal_groups_stay_whole_and_near_the_asked_proportions(sizes, seed, values):
    key = np.repeat(np.arange(len(sizes)), sizes)
    value = np.random.default_rng(seed).integers(values, size=len(sizes))[key]
    names = tuple(Value("genre", str(v), 0) for v in range(values))
    rows = make_rows(np.zeros(len(key), int), value, key, names)
    pools = partition_unequal(rows, np.arange(len(key)), [7, 1, 2], generator(seed, "x"))
    assert sorted(np.concatenate(pools)) == list(range(len(key)))
    held = [set(key[pool].tolist()) for pool in pools]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    assert all(held)
    # No value is further off than by the largest group that could have been given elsewhere.
    for v in range(values):
        shares = [np.sum(value[pool] == v) for pool in pools]
        assert abs(shares[0] - 0.7 * sum(shares)) <= max(sizes)


def test_few_unequal_groups_leave_no_pool_empty():
    rows = make_rows(np.zeros(60, int), np.zeros(60, int), np.repeat(np.arange(4), 15))
    pools = partition_unequal(rows, np.arange(60), [90, 1, 9], generator(0, "x"))
    assert [len(pool) for pool in pools] == [30, 15, 15]


def test_natural_splits_hold_pairs_of_whole_items():
    # Items of two rows; value 0 has six items that agree with y_s and two that do not, value 1 three of each.
    agree = [1] * 6 + [0] * 2 + [1] * 3 + [0] * 3
    item = np.repeat(np.arange(len(agree)), 2)
    outcome = np.array([x for a in agree for x in (0 if a else 1, 2)])
    value = np.repeat([0] * 8 + [1] * 6, 2)
    item[:2] = -1  # not whole
    rows = replace(make_rows(outcome, value), item=item)
    split = sample_split("natural", rows, np.arange(len(item)), 100, None, generator(0, "x"))
    drawn = [int(e.uid.partition("#")[0][4:]) for e in split.examples]
    assert len(drawn) == 4 * (2 + 3)
    assert 0 not in drawn
    for pair in np.reshape(drawn, (-1, 4)):
        assert sorted(outcome[pair]) == [0, 1, 2, 2]
        assert len(set(value[pair])) == 1
        assert len(set(item[pair])) == 2
    assert {v: rho.asked for v, rho in split.rho["genre"].items()} == {"a": None, "b": None}
    fewer = sample_split("natural", rows, np.arange(len(item)), 11, None, generator(0, "x"))
    assert [e.uid for e in fewer.examples] == [e.uid for e in split.examples[:8]]
    with pytest.raises(InputError, match="no pair of items"):
        sample_split("natural", rows, np.arange(6), 100, None, generator(0, "x"))


@pytest.mark.parametrize(("outcomes", "again"), [(("no", "yes"), True), (LABELS, False)])
def test_with_two_labels_flipped_is_low_again(outcomes, again):
    rows = make_rows(np.arange(900) % len(outcomes), outcomes=outcomes)
    splits, _ = build_splits(TaskConfig(), 0, Sizes(200, 50, 60), rows)
    agree = {name: np.mean([e.label == e.spurious["genre"].label for e in splits[name].examples]) for name in splits}
    assert (agree["flipped"] == pytest.approx(agree["low"], abs=0.02)) == again


def test_joined_splits_measure_both():
    rows = make_rows([0, 1, 2] * 100)
    parts = [sample_split("train", rows, np.arange(300), n, SplitSpec(0.5), generator(n, "x")) for n in (40, 70)]
    both = joined("train", *parts)
    assert len(both.examples) == 110
    for value, (rho, count) in measured(both).items():
        assert both.rho["genre"][value].count == count
        assert both.rho["genre"][value].realised == pytest.approx(rho)
