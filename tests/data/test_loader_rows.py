"""The rows of a batch: their room and widths, how full they are, and what stands in them side by side."""

from collections import Counter

import numpy as np
import pytest

from fit_jax.data.loader import Window
from fit_jax.errors import InputError

from .loaders import arrays_of, candidates, focus, make, uids


def test_capacity_holds_answers_that_the_sample_lacks():
    loader = make(count=20, packing=False)
    assert loader.targets_per_row == 2
    assert make(count=20, packing=False, branches=3).targets_per_row == 6
    assert make(targets_per_row=40).batch(0).target_ids.shape == (8, 40)


@pytest.mark.parametrize("room", [{"sequence_length": 62}, {"targets_per_row": 5}])
def test_branches_that_overfill_a_row_are_divided(room):
    loader = make(window=Window(60, 1), count=60, branches=6, batch_size=1, **room)
    branches, step = Counter(), 0
    while sum(branches.values()) < 360:
        batch = loader.batch(step)
        assert batch.examples == batch.target_weight.sum() / 2
        tokens = batch.tokens[0]
        for at in batch.target_index[batch.target_ids >= 20_000]:  # the first token of an answer
            branches[int(tokens[at] if tokens[at] < 10_000 else tokens[:at][tokens[:at] < 10_000][-1])] += 1
        step += 1
    assert set(branches.values()) == {6}
    assert step == round(loader.steps_per_epoch)
    with pytest.raises(InputError, match="tokens, a row holds"):
        make(window=Window(60, 1), branches=6, packing=False, **room)


def test_candidates_stand_side_by_side_with_what_belongs_to_them():
    loader = make(sampler=candidates, batch_size=4)
    batch = loader.batch(0)
    rows = batch.rows
    for row in range(4):
        owners = batch.owner[row, : 2 * int(batch.chosen[row].sum())].tolist()
        assert owners == [number for number in range(len(owners) // 2) for _ in range(2)]
        begins = np.flatnonzero((rows.positions[row] == 0) & (rows.visible_until[row] > 0))
        for number, uid in enumerate(rows.tokens[row, begins].tolist()):
            assert batch.prior[row, 2 * number : 2 * number + 2].tolist() == [0, -1]
            assert batch.chosen[row, 2 * number : 2 * number + 2].tolist() == [1 - uid % 2, uid % 2]
            assert batch.group[row, 2 * number + uid % 2] == uid % 3
    assert batch.examples == sum(uids(batch).values())
    assert rows.target_weight.sum() == 4 * batch.examples  # two candidates of two tokens


@pytest.mark.parametrize("packing", [True, False])
def test_a_row_has_room_for_all_candidates_of_an_example(packing):
    assert make(count=20, sampler=candidates, packing=packing).targets_per_row >= 4
    with pytest.raises(InputError, match=r"4 target tokens, a row holds 3; set train.targets_per_row to 4"):
        make(count=20, sampler=candidates, packing=packing, targets_per_row=3)


@pytest.mark.parametrize("sampler", [focus, candidates])
def test_an_empty_batch_has_the_shapes_of_the_others(sampler):
    loader = make(sampler=sampler, packing=False)
    batch = loader.batch(0)
    empty = loader.empty(batch.rows.tokens.shape[1])
    assert empty.examples == 0
    shapes = [[(array.shape, array.dtype) for array in arrays_of(b)] for b in (batch, empty)]
    assert shapes[0] == shapes[1]


def test_packed_rows_are_full():
    loader = make(count=2000, sequence_length=256)
    batches = [loader.batch(step) for step in range(30)]
    assert np.mean([(batch.visible_until > 0).mean() for batch in batches]) > 0.95
    assert np.mean([batch.target_weight.mean() for batch in batches]) > 0.7


def test_unpacked_rows_stand_with_others_of_their_length():
    loader = make(count=2000, packing=False)
    batches = [loader.batch(step) for step in range(125)]
    widths = {batch.tokens.shape[1] for batch in batches}
    assert widths <= set(loader.widths)
    assert 1 < len(widths) <= 8
    assert loader.widths[-1] == 128
    assert all((batch.visible_until > 0).any(axis=1).all() for batch in batches)
    # Padded to the longest of all, two thirds of the tokens would be padding.
    assert sum((batch.visible_until > 0).sum() for batch in batches) > 0.75 * sum(b.tokens.size for b in batches)


@pytest.mark.parametrize("count", [64, 300])
def test_unpacked_rows_of_few_examples_do_not_meet_themselves(count):
    loader = make(count=count, packing=False)
    seen = Counter()
    for step in range(count // 8):
        seen += uids(loader.batch(step))
    assert set(seen.values()) == {1}


def test_widths_divide_over_a_mesh_that_splits_tokens():
    loader = make(packing=False, sequence_length=120, token_shards=4)
    assert len(loader.widths) == 8
    assert all(width % 4 == 0 for width in loader.widths)


def test_wrong_data():
    with pytest.raises(InputError, match="the training split is empty"):
        make(count=0)
    with pytest.raises(InputError, match=r"example \d+: [67]\d tokens, a row holds 60; raise train.sequence_length"):
        make(longest=70, sequence_length=60)
    with pytest.raises(InputError, match=r"raise train.sequence_length, or lower focus.branches"):
        make(longest=70, sequence_length=60, long_text="cut")
    with pytest.raises(
        InputError, match=r"example \d+: 2 target tokens, a row holds 1; set train.targets_per_row to 2"
    ):
        make(targets_per_row=1)


@pytest.mark.parametrize("sampler", [focus, candidates])
def test_a_step_takes_the_examples_it_is_told_to_in_rows_of_few_widths(sampler):
    """Whatever room they take; so the examples of two methods are the same number in every step."""
    branches = 3 if sampler is focus else 1
    loader = make(examples_per_step=10, branches=branches, sampler=sampler)
    seen = Counter()
    for step in range(30):
        batch = loader.batch(step)
        assert batch.rows.tokens.shape == (8, batch.rows.tokens.shape[1])
        assert batch.rows.tokens.shape[1] in loader.widths
        assert len(uids(batch)) == 10
        seen += uids(batch)
    assert set(seen.values()) == {1}  # 300 examples are an epoch
    assert loader.steps_per_epoch == 30


def test_more_examples_than_the_rows_hold_are_reported():
    with pytest.raises(InputError, match="examples_per_step: 40 examples need more than 8 rows of 128 tokens"):
        make(examples_per_step=40)
