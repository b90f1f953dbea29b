import time

import numpy as np
import pytest

from fit_jax.data.layout import Item
from fit_jax.data.packing import first_fit, stack, target_capacity


def make_item(length, targets, slots=1, token=1):
    return Item(
        tokens=np.full(length, token, np.int32),
        positions=np.arange(length, dtype=np.int32),
        visible_until=np.full(length, length, np.int32),
        target_index=np.arange(length - targets, length, dtype=np.int32),
        target_ids=np.full(targets, token, np.int32),
        target_slot=np.sort(np.arange(targets) % slots).astype(np.int32),
        slots=slots,
    )


def normal_lengths(rng, n):
    return np.clip(rng.normal(40, 12, n), 12, 120).astype(int)


def skewed_lengths(rng, n):
    return np.clip(np.exp(rng.normal(3.6, 0.4, n)), 10, 250).astype(int)


@pytest.mark.parametrize("T", [256, 512])
@pytest.mark.parametrize("lengths", [normal_lengths, skewed_lengths])
def test_rows_hold_every_item_once_and_are_full(lengths, T):
    rng = np.random.default_rng(0)
    items = [make_item(int(n), int(m)) for n, m in zip(lengths(rng, 2048), rng.integers(2, 4, 2048))]
    C = target_capacity(items, T)
    start = time.process_time()
    rows = first_fit(items, T, C)
    assert time.process_time() - start < 0.4  # about 0.02 s on an idle machine
    assert sorted(i for row in rows for i in row) == list(range(len(items)))
    tokens = [sum(len(items[i].tokens) for i in row) for row in rows]
    targets = [sum(len(items[i].target_ids) for i in row) for row in rows]
    assert max(tokens) <= T
    assert max(targets) <= C
    assert sum(tokens) >= 0.97 * T * len(rows)
    # The capacity is near what a row needs on average.
    assert 1.4 * np.mean(targets) >= C
    assert first_fit(items, T, C) == rows


def test_one_item_fills_a_row():
    assert first_fit([make_item(8, 2)] * 3, 8, 2) == [[0], [1], [2]]
    assert first_fit([], 8, 2) == []


def test_targets_close_a_row():
    assert [len(row) for row in first_fit([make_item(2, 2)] * 4, 100, 4)] == [2, 2]


@pytest.mark.parametrize(("length", "targets"), [(9, 1), (8, 5)])
def test_an_item_larger_than_a_row_is_refused(length, targets):
    with pytest.raises(ValueError, match=f"{length} tokens, {targets} targets; a row holds 8 and 4"):
        first_fit([make_item(length, targets)], 8, 4)


def test_stack_places_items_side_by_side():
    a, b, c = make_item(3, 2, token=5), make_item(2, 2, slots=2, token=6), make_item(4, 3, slots=2, token=7)
    batch, places = stack([[a, b], [], [c]], T=6, C=5)
    assert batch.tokens.tolist() == [[5, 5, 5, 6, 6, 0], [0] * 6, [7, 7, 7, 7, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0], [0] * 6, [0, 1, 2, 3, 0, 0]]
    assert batch.visible_until.tolist() == [[3, 3, 3, 5, 5, 0], [0] * 6, [4, 4, 4, 4, 0, 0]]
    assert batch.target_index.tolist() == [[1, 2, 3, 4, 0], [0] * 5, [1, 2, 3, 0, 0]]
    assert batch.target_ids.tolist() == [[5, 5, 6, 6, 0], [0] * 5, [7, 7, 7, 0, 0]]
    assert batch.target_slot.tolist() == [[0, 0, 1, 2, 0], [0] * 5, [0, 0, 1, 0, 0]]
    assert batch.target_weight.tolist() == [[1, 1, 1, 1, 0], [0] * 5, [1, 1, 1, 0, 0]]
    assert places.tolist() == [[0, 0], [0, 1], [2, 0]]
    assert batch.examples == 5
    assert {array.dtype.name for array in batch} == {"int32", "float32"}
    assert batch.target_weight.dtype == np.float32


def test_empty_batch():
    batch, places = stack([[], []], T=4, C=2)
    assert batch.tokens.shape == (2, 4)
    assert not batch.target_weight.any()
    assert batch.examples == 0
    assert places.shape == (0, 2)


def test_stack_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="9 tokens; it holds 8"):
        stack([[make_item(4, 1), make_item(5, 1)]], T=8, C=4)
    with pytest.raises(ValueError, match="5 targets; it holds 4"):
        stack([[make_item(4, 2), make_item(4, 3)]], T=8, C=4)
