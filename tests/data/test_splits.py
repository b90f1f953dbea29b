"""Splits: exact counts, chosen rho, no source text in two parts, helpful errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fit_jax.config import TaskConfig
from fit_jax.data.keyed_generator import generator
from fit_jax.data.rho_sampling import Rows, Value, cell_counts
from fit_jax.data.splits import Rho, Sizes, Split, SplitSpec, build_splits, joined, partition, sample_split, split_specs
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


def test_generator_depends_on_seed_and_purpose_alone():
    first = generator(3, "order", 1).random(4)
    generator(3, "other").random(100)
    assert np.array_equal(first, generator(3, "order", 1).random(4))
    assert not np.array_equal(first, generator(3, "order", 2).random(4))
    assert not np.array_equal(first, generator(4, "order", 1).random(4))
    assert np.array_equal(first, generator(np.int64(3), "order", np.int32(1)).random(4))


@given(size=st.integers(0, 200), rho=st.floats(0, 1), outcomes=st.integers(2, 5), predicted=st.integers(0, 4))
@settings(deadline=None, max_examples=50)
def test_cell_counts_keep_size_and_rho(size, rho, outcomes, predicted):
    predicted %= outcomes
    (row,) = cell_counts([size], [predicted], rho, outcomes)
    assert row.sum() == size
    assert row.min() >= 0
    assert abs(row[predicted] - rho * size) <= 0.5
    others = np.delete(row, predicted)
    assert others.max() - others.min() <= 1


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


def test_fewer_rows_than_asked_are_noted():
    rows = make_rows([0, 1, 2] * 100, [0, 1] * 150)
    splits, notes = build_splits(TaskConfig(), 0, Sizes(1000, 100, 100), rows)
    assert f"train: {len(splits['train'].examples)} of 1000 examples" in " ".join(notes)


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


def test_joined_splits_measure_both():
    rows = make_rows([0, 1, 2] * 100)
    parts = [sample_split("train", rows, np.arange(300), n, SplitSpec(0.5), generator(n, "x")) for n in (40, 70)]
    both = joined("train", *parts)
    assert len(both.examples) == 110
    for value, (rho, count) in measured(both).items():
        assert both.rho["genre"][value].count == count
        assert both.rho["genre"][value].realised == pytest.approx(rho)
