"""Rows of packed windows as one endless numbered stream."""

import threading
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from fit_jax.data.sampler import DrawnItem

Row = list[DrawnItem]


class Mark(NamedTuple):
    """A place to start counting from: a window, and the number of rows of all windows before it."""

    window: int
    rows: int


class RowStream:
    """Row number -> row, over windows of which each gives as many rows as it happens to pack into.

    The stream counts the rows of windows from a mark on and remembers what it counted; rows before the mark make it
    count again from the beginning. The last two windows used are kept. Safe to use from several threads.
    """

    def __init__(self, build: Callable[[int], list[Row]]) -> None:
        """`build` gives the rows of a window, at least one; a pure function."""
        self._build = build
        self._lock = threading.Lock()
        self._kept: dict[int, list[Row]] = {}
        self.restore(Mark(0, 0))

    def rows(self, start: int, stop: int) -> list[Row]:
        """Rows `start` to `stop` (exclusive)."""
        found: list[Row] = []
        with self._lock:
            while start < stop:
                window, before = self._mark(start)
                taken = self._window(window)[start - before : stop - before]
                found += taken
                start += len(taken)
        return found

    def mark(self, row: int) -> Mark:
        """The mark of the window that holds `row`, or the furthest one known before it."""
        with self._lock:
            return self._known(row)

    def restore(self, mark: Mark) -> None:
        """Counts from a mark that this stream, or another of the same windows, gave."""
        self._first = mark.window
        self._before = [mark.rows]  # rows before window first, first + 1, ...

    def _known(self, row: int) -> Mark:
        if row < self._before[0]:
            self.restore(Mark(0, 0))
        at = bisect_right(self._before, row) - 1
        return Mark(self._first + at, self._before[at])

    def _mark(self, row: int) -> Mark:
        """The mark of the window that holds `row`; counts up to it."""
        while (mark := self._known(row)).rows == self._before[-1]:
            after = mark.rows + len(self._window(mark.window))
            self._before.append(after)
            if row < after:
                break
        return mark

    def _window(self, number: int) -> list[Row]:
        if number not in self._kept:
            self._kept[number] = self._build(number)
            while len(self._kept) > 2:
                del self._kept[next(iter(self._kept))]
        return self._kept[number]
