"""In which order, and how often, an epoch takes the training examples."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Int64


class Order(Protocol):
    """How an epoch is composed.

    Attributes:
        size: Examples of an epoch, the same for every epoch.
    """

    size: int

    def draw(self, rng: np.random.Generator) -> Int64[np.ndarray, " size"]:
        """The examples of an epoch, by index."""
        ...


class EachOnce:
    """Every example once."""

    def __init__(self, count: int) -> None:
        """`count` examples."""
        self.size = count

    def draw(self, rng: np.random.Generator) -> Int64[np.ndarray, " size"]:
        """A permutation."""
        return rng.permutation(self.size)


class Repeated:
    """Every example as often as it counts."""

    def __init__(self, counts: Sequence[int] | np.ndarray) -> None:
        """`counts` has a number from 0 up for each example."""
        self._indices = np.repeat(np.arange(len(counts)), counts)
        self.size = len(self._indices)

    def draw(self, rng: np.random.Generator) -> Int64[np.ndarray, " size"]:
        """A permutation of the examples and their copies."""
        return rng.permutation(self._indices)


class Balanced:
    """Every group equally often, in an epoch that is as long as there are examples.

    A group gives its examples in passes, each in an order of its own: those of a small group recur before a large
    group has shown all of its. Over the epochs every example of a group is taken equally often on average.
    """

    def __init__(self, groups: Sequence[int] | np.ndarray) -> None:
        """`groups` has the number of each example's group."""
        numbers = np.asarray(groups)
        self._members = [np.flatnonzero(numbers == group) for group in np.unique(numbers)]
        self.size = len(numbers)

    def draw(self, rng: np.random.Generator) -> Int64[np.ndarray, " size"]:
        """Equal shares of every group, mixed; where they do not divide the epoch, some groups have one more."""
        each, more = divmod(self.size, len(self._members))
        extra = rng.permutation(len(self._members)) < more
        taken = [_passes(members, each + int(one), rng) for members, one in zip(self._members, extra)]
        return rng.permutation(np.concatenate(taken))


def _passes(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    passes = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([*passes, members[:0]])[:count]
