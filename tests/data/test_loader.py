import json
import threading
from collections import Counter

import numpy as np
import pytest

from fit_jax.config import Config, FocusConfig, TrainConfig
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.loader import TrainLoader, Window
from fit_jax.data.packing import Batch
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious, TaskText
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.methods.candidates import CandidateSampler

TEXT = TaskText(
    name="demo", instruction="I", input_template="{text}", cue="A", core="the core", spurious={"keyword": "the keyword"}
)


class FakeEncoder:
    """A prompt is the example's number, as often as its text is long, then the length of the instruction."""

    def __init__(self):
        self.encoded = 0

    def encode(self, examples, instructions):
        self.encoded += len(examples)
        return [
            EncodedPrompt(
                np.array([int(e.uid)] * len(e.slots["text"]) + [10_000 + len(i)] * (2 if i else 1), np.int32),
                tuple(np.array([20_000 + c, 1], np.int32) for c in range(2)),
            )
            for e, i in zip(examples, instructions)
        ]


def focus(examples, branches, seed):
    return FocusSampler(examples, TEXT, FocusConfig(branches=branches), True, seed)


def candidates(examples, branches, seed):
    return CandidateSampler(examples, seed, prior=lambda e: np.array([0.0, -1.0]), group=lambda e: int(e.uid) % 3)


WINDOW = Window()


def make(
    count=300, longest=60, seed=0, branches=1, encoder=None, token_shards=1, sampler=focus, window=WINDOW, **train
):
    rng = np.random.default_rng(0)
    examples = [
        Example(str(i), {"text": "x" * int(n)}, ("no", "yes"), i % 2, {"keyword": Spurious("a", 0)})
        for i, n in enumerate(rng.integers(10, longest, count))
    ]
    config = Config(
        seed=seed,
        train=TrainConfig(**({"sequence_length": 128, "batch_size": 8} | train)),
    )
    return TrainLoader(sampler(examples, branches, seed), encoder or FakeEncoder(), config, token_shards, window)


def uids(batch):
    """How often each example stands in a batch: its number where a new item begins (position 0)."""
    rows = batch.rows
    return Counter(rows.tokens[(rows.positions == 0) & (rows.visible_until > 0)].tolist())


def arrays_of(batch):
    """All its arrays, those of its rows too."""
    return [*batch] if batch.rows is batch else [*batch.rows, *batch[1:]]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(arrays_of(a), arrays_of(b), strict=True))


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("how", [{}, {"branches": 3}, {"sampler": candidates}])
def test_batch_is_a_function_of_seed_and_step(packing, how):
    straight = make(packing=packing, **how)
    batches = [straight.batch(step) for step in range(45)]
    other = make(packing=packing, **how)
    for step in (44, 0, 30, 31, 5):
        assert same(other.batch(step), batches[step])
    assert not same(batches[0], batches[1])
    assert not same(make(packing=packing, seed=1, **how).batch(0), batches[0])


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("sampler", [focus, candidates])
def test_every_example_once_an_epoch_and_in_another_order(packing, sampler):
    loader = make(window=Window(150, 1), packing=packing, batch_size=1, sampler=sampler)
    seen, steps, halves = Counter(), [], []
    for epoch in range(2):  # windows of 150 examples end with the epochs of 300
        step = sum(steps)
        while sum(seen.values()) < 300 * (epoch + 1):
            seen += uids(loader.batch(step))
            if sum(seen.values()) == 300 * epoch + 150:
                halves.append({i for i in range(300) if seen[i] == epoch + 1})
            step += 1
        steps.append(step - sum(steps))
        assert all(seen[i] == epoch + 1 for i in range(300))
    assert 0.3 < len(halves[0] & halves[1]) / 150 < 0.7  # another order
    assert loader.steps_per_epoch == pytest.approx(np.mean(steps), rel=0.03)
    if not packing:
        assert steps == [300, 300] == [loader.steps_per_epoch] * 2


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("train", [{"batch_size": 8}, {"batch_size": 128}, {"packing": False}, {"sampler": candidates}])
def test_hosts_together_have_the_batch_of_one(hosts, train):
    single = make(window=Window(64), **train)
    share = single.batch(0).rows.tokens.shape[0] // hosts
    parts = [make(window=Window(64), **train) for _ in range(hosts)]
    for step in (0, 3, 7):
        rows = [part.batch(step, slice(h * share, (h + 1) * share)) for h, part in enumerate(parts)]
        whole = [np.concatenate(arrays) for arrays in zip(*map(arrays_of, rows))]
        assert all(len(part.rows.tokens) == share for part in rows)
        assert all(np.array_equal(a, b) for a, b in zip(whole, arrays_of(single.batch(step)), strict=True))


def test_a_host_encodes_its_own_lanes_only():
    encoded = []
    for rows in (None, slice(0, 32)):
        encoder = FakeEncoder()
        loader = make(window=Window(64), batch_size=128, encoder=encoder)
        before = encoder.encoded
        for step in range(4):
            loader.batch(step, rows)
        encoded.append(encoder.encoded - before)
    assert encoded[1] < 0.4 * encoded[0]


@pytest.mark.parametrize(("batch_size", "step"), [(8, 60), (128, 10)])
def test_resuming_with_the_state_gives_the_same_batches_and_counts_nothing_again(batch_size, step):
    straight, encoder = make(window=Window(64), batch_size=batch_size), FakeEncoder()
    later = [straight.batch(step + 3), straight.batch(step)]
    resumed = make(window=Window(64), batch_size=batch_size, encoder=encoder)
    start = encoder.encoded
    resumed.restore(json.loads(json.dumps(straight.state(step))))
    assert same(resumed.batch(step), later[1])
    cheap = encoder.encoded - start
    assert same(resumed.batch(step + 3), later[0])
    assert resumed.state(step + 3) == straight.state(step + 3)
    # Rows before the mark, and rows counted without one.
    assert same(resumed.batch(2), straight.batch(2))
    start = encoder.encoded
    resumed.restore(make(window=Window(64), batch_size=batch_size).state(0))
    assert same(resumed.batch(step), later[1])
    assert encoder.encoded - start > 2.5 * cheap


def test_state_of_other_data_is_refused():
    with pytest.raises(InputError, match=r"data stream .*'examples': 300.* have changed"):
        make(count=299).restore(make().state(0))


def test_state_of_a_version_without_rehearsal_is_taken_up():
    state = make().state(0)
    assert state["stream"].pop("rehearsed") == 0
    make().restore(state)


def test_states_of_hosts_merge_by_maximum():
    single, hosts = make(window=Window(64), batch_size=128), [make(window=Window(64), batch_size=128) for _ in range(2)]
    for step in range(5):
        single.batch(step)
        for h, host in enumerate(hosts):
            host.batch(step, slice(64 * h, 64 * h + 64))
    merged = np.maximum(*(host.state(4)["marks"] for host in hosts))
    assert merged.tolist() == single.state(4)["marks"]


def test_iterate_gives_the_batches_in_order_and_ends():
    loader, direct = make(), make()
    threads = threading.active_count()
    batches = list(loader.iterate(3, 9))
    assert len(batches) == 6
    assert all(same(batch, direct.batch(3 + i)) for i, batch in enumerate(batches))
    rows = list(loader.iterate(3, 5, slice(2, 4)))
    assert all(same(Batch(*(array[2:4] for array in direct.batch(3 + i))), batch) for i, batch in enumerate(rows))
    assert list(loader.iterate(4, 4)) == []
    stopped = loader.iterate(0, 1000)
    next(stopped)
    stopped.close()
    for thread in threading.enumerate():
        if thread.name.startswith("grain"):
            thread.join(timeout=10)
    assert threading.active_count() <= threads


def test_an_exception_of_the_worker_surfaces():
    class Broken(FakeEncoder):
        def encode(self, examples, instructions):
            if self.encoded > 1400:
                raise InputError("example 7: broken")
            return super().encode(examples, instructions)

    batches = make(encoder=Broken()).iterate(0, 10_000)
    next(batches)
    with pytest.raises(InputError, match="example 7: broken"):
        list(batches)


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


def test_hosts_share_the_examples_of_a_step():
    single, parts = make(examples_per_step=10), [make(examples_per_step=10) for _ in range(2)]
    for step in (0, 7):
        rows = [part.batch(step, slice(4 * h, 4 * h + 4)) for h, part in enumerate(parts)]
        whole = [np.concatenate(arrays) for arrays in zip(*map(arrays_of, rows))]
        assert all(np.array_equal(a, b) for a, b in zip(whole, arrays_of(single.batch(step)), strict=True))


def test_more_examples_than_the_rows_hold_are_reported():
    with pytest.raises(InputError, match="examples_per_step: 40 examples need more than 8 rows of 128 tokens"):
        make(examples_per_step=40)
