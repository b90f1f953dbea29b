"""How an epoch is composed: each example once, repeated ones, balanced groups."""

from collections import Counter

import numpy as np
import pytest

from fit_jax.data.orders import Balanced, EachOnce, Repeated


def epochs(order, count: int = 40) -> list[np.ndarray]:
    return [order.draw(np.random.default_rng(number)) for number in range(count)]


@pytest.mark.parametrize("order", [EachOnce(12), Repeated([1, 3, 0, 2]), Balanced([0, 0, 0, 1, 2, 2, 0])])
def test_epochs_are_of_one_size_and_differ(order):
    drawn = epochs(order, 3)
    assert {len(epoch) for epoch in drawn} == {order.size}
    assert len({tuple(epoch) for epoch in drawn}) == 3


def test_an_example_is_repeated_as_often_as_it_counts():
    for epoch in epochs(Repeated([1, 3, 0, 2]), 3):
        assert Counter(epoch.tolist()) == {0: 1, 1: 3, 3: 2}


def test_groups_are_equally_frequent_and_share_evenly_among_their_examples():
    groups = np.array([0] * 17 + [1] * 2 + [2] * 5)
    total = np.zeros(len(groups))
    for epoch in epochs(Balanced(groups)):
        assert np.bincount(groups[epoch]).tolist() == [8, 8, 8]
        counts = np.bincount(epoch, minlength=len(groups))
        for group in range(3):
            assert np.ptp(counts[groups == group]) <= 1
        total += counts
    for group, size in enumerate((17, 2, 5)):
        np.testing.assert_allclose(total[groups == group] / 40, 8 / size, rtol=0.6)


def test_what_does_not_divide_goes_to_some_groups_in_turn():
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    three = np.array([*groups, 2, 2])  # ten examples of three groups
    shares = [np.bincount(three[epoch], minlength=3) for epoch in epochs(Balanced(three), 60)]
    assert all(sorted(share.tolist()) == [3, 3, 4] for share in shares)
    assert {int(np.argmax(share)) for share in shares} == {0, 1, 2}
