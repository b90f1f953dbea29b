"""The stream of batches: a function of seed and step, on any number of hosts, and after a restart."""

import json
import threading
from collections import Counter

import numpy as np
import pytest

from fit_jax.data.loader import Window
from fit_jax.data.packing import Batch
from fit_jax.errors import InputError

from .loaders import FakeEncoder, arrays_of, candidates, focus, make, uids


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


def test_hosts_share_the_examples_of_a_step():
    single, parts = make(examples_per_step=10), [make(examples_per_step=10) for _ in range(2)]
    for step in (0, 7):
        rows = [part.batch(step, slice(4 * h, 4 * h + 4)) for h, part in enumerate(parts)]
        whole = [np.concatenate(arrays) for arrays in zip(*map(arrays_of, rows))]
        assert all(np.array_equal(a, b) for a, b in zip(whole, arrays_of(single.batch(step)), strict=True))
