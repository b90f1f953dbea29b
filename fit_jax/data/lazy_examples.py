"""Examples that are made when they are asked for, so that large data need not stay in memory."""

from collections.abc import Callable, Sequence
from typing import overload

from fit_jax.focus.example import Example


class LazyExamples(Sequence[Example]):
    """A sequence of examples of which none is kept."""

    def __init__(self, count: int, make: Callable[[Sequence[int]], list[Example]]) -> None:
        """`make` gives the examples of some numbers below `count`, in their order."""
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        numbers = range(self._count)
        if isinstance(index, slice):
            return self._make(numbers[index])
        return self._make([numbers[index]])[0]  # an index out of range raises, as in a list
