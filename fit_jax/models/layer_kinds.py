"""Layers of several kinds: their shapes, and how they are stacked, so that a walk over them is a few scans."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import NamedTuple


class LayerKind(NamedTuple):
    """What tells layers apart: those of one kind have parameters of the same names and shapes, and are stacked.

    Attributes:
        slides: Whether the layer slides, where more than its window depends on it; None where nothing does.
        head_width: G.
        kv_heads: K.
        feed_forward: F.
        own_values: Whether it has a projection of values, which else are its keys.
        reuses_kv: Whether it attends to the keys and values of an earlier layer, and has none.
        kv_reused: Whether later layers attend to its keys and values.
        linear: Whether it keeps a state and attends to nothing; what is said of attention is then nothing.
    """

    slides: bool | None
    head_width: int
    kv_heads: int
    feed_forward: int
    own_values: bool
    reuses_kv: bool
    kv_reused: bool
    linear: bool = False


class Stack(NamedTuple):
    """Layers of one kind whose parameters are stacked.

    Attributes:
        name: Of the parameters.
        kind: Of all of them.
        layers: Their numbers, in order.
    """

    name: str
    kind: LayerKind
    layers: tuple[int, ...]


class Group(NamedTuple):
    """Stacks that take turns: an equal share of the layers of each, in order, so often as `repeats` says."""

    stacks: tuple[Stack, ...]
    repeats: int


@cache
def reused_layers(slides: tuple[bool, ...], sharing: int) -> frozenset[int]:
    """The layers whose keys and values the last `sharing` ones attend to: the last before them that slides alike."""
    own = len(slides) - sharing
    return frozenset(max(n for n in range(own) if slides[n] == how) for how in {*slides[own:]} & {*slides[:own]})


@cache
def layer_groups(kinds: tuple[LayerKind, ...]) -> tuple[Group, ...]:
    """All layers but the last, of the kinds given, as groups in order; where all are of one kind, one stack.

    Parameters are stacked as the groups take them, so that none is cut, which would be a copy.
    """
    runs = [(kind, len(list(layers))) for kind, layers in groupby(kinds)]
    groups: list[Group] = []
    at = first = names = 0
    while at < len(runs):
        period, repeats = _repetition(runs[at:])
        pattern = runs[at : at + period]
        length, stacks = sum(count for _, count in pattern), []
        for kind, count in pattern:
            layers = [first + turn * length + n for turn in range(repeats) for n in range(count)]
            stacks.append(Stack(f"blocks_{names}" if names else "blocks", kind, tuple(layers)))
            first, names = first + count, names + 1
        first += (repeats - 1) * length
        groups.append(Group(tuple(stacks), repeats))
        at += period * repeats
    return tuple(groups)


def all_stacks(kinds: tuple[LayerKind, ...]) -> dict[str, Stack]:
    """The stacks of `layer_groups` by name."""
    return {stack.name: stack for group in layer_groups(kinds) for stack in group.stacks}


def _repetition(runs: Sequence[tuple[LayerKind, int]]) -> tuple[int, int]:
    """How many runs repeat, and how often, such that most runs are covered from the first on; else the first alone."""
    best = (1, 1)
    for period in range(2, len(runs) // 2 + 1):
        repeats = 1
        while runs[repeats * period : (repeats + 1) * period] == runs[:period]:
            repeats += 1
        if repeats > 1 and period * repeats > best[0] * best[1]:
            best = (period, repeats)
    return best
