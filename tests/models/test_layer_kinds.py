"""Layers are stacked so that each has one place, in few scans; those whose keys and values are reused stand alone."""

import dataclasses

import pytest

from fit_jax.errors import InputError
from fit_jax.models.layer_kinds import all_stacks, layer_groups, reused_layers

GEMMA4_31B = {"layers": 60, "sliding_layers": tuple(n for n in range(60) if (n + 1) % 6), "full_head_dim": 16}
E2B = {"layers": 35, "sliding_layers": tuple(n for n in range(35) if (n + 1) % 5), "sharing_layers": 20}


def shape(config):
    """Repeats, and the layers of each stack in a repeat, of every group."""
    return [
        (repeats, [len(stack.layers) // repeats for stack in stacks])
        for stacks, repeats in layer_groups(config.scanned_kinds())
    ]


def test_layers_that_take_turns_are_one_scan(tiny):
    large = dataclasses.replace(tiny, window=4, **GEMMA4_31B)
    assert shape(large) == [(9, [5, 1]), (1, [5])]
    small = dataclasses.replace(tiny, window=4, **E2B)
    assert shape(small) == [(2, [4, 1]), (1, [3]), (1, [1]), (1, [1]), (3, [4, 1]), (1, [4])]


@pytest.mark.parametrize("changes", [{}, {"window": 4, "sliding_layers": (1,)}, GEMMA4_31B, E2B, {"layers": 1}])
def test_every_layer_but_the_last_has_one_place_in_order(tiny, changes):
    config = dataclasses.replace(tiny, **{"window": 4, **changes})
    stacks = all_stacks(config.scanned_kinds())
    assert sorted(n for stack in stacks.values() for n in stack.layers) == [*range(config.layers - 1)]
    for stack in stacks.values():
        assert list(stack.layers) == sorted(stack.layers)
        assert {config.kind(layer) for layer in stack.layers} == {stack.kind}
        assert not stack.kind.kv_reused or len(stack.layers) == 1
    assert [*stacks][:1] == ["blocks"][: len(stacks)]
    taken = []
    for group in layer_groups(config.scanned_kinds()):
        for turn in range(group.repeats):
            for stack in group.stacks:
                count = len(stack.layers) // group.repeats
                taken += stack.layers[turn * count : (turn + 1) * count]
    assert taken == [*range(config.layers - 1)]


def test_windows_alone_make_no_kinds(tiny):
    config = dataclasses.replace(tiny, layers=6, window=4, sliding_layers=(0, 2), sliding_theta=50.0)
    assert len({config.kind(layer) for layer in range(6)}) == 1


def test_the_last_of_each_way_before_those_that_share_is_reused():
    assert reused_layers((True, True, False, True, False, True), 2) == {2, 3}
    assert reused_layers((True, False, True, False, False), 2) == {1}
    assert reused_layers((True, False), 0) == frozenset()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sharing_layers": 3}, "sharing_layers: 3 of 3 layers; choose from 0 to all but one"),
        ({"sharing_layers": 1, "window": 4, "sliding_layers": (0, 1)}, "none before them does so"),
        ({"full_kv_heads": 3}, "4 heads do not divide into 3 key/value heads"),
        ({"full_head_dim": 7}, "full_head_dim: 7 is odd"),
        ({"layer_input": -1}, "layer_input: -1 is less than 0"),
    ],
)
def test_shapes_that_no_layers_have_are_told(tiny, changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(tiny, **changes).check()
