"""Values that are almost the same: except for case, outer white space or Unicode form, or except for one letter."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from fit_jax.foreign import shown

# Fields of a description by which values are the same that differ in this.
WAYS = ("trim", "ignore_case", "ignore_form")
# White space and what stands for nothing; some programs put a byte order mark before the first cell.
_OUTER = re.compile(r"^[\s\u200b\ufeff]+|[\s\u200b\ufeff]+$")
# A shorter value is another one with a letter changed.
_SHORTEST = 4


class Near(NamedTuple):
    """A known value that another one is close to.

    Attributes:
        known: The known value.
        ways: The fewest of `WAYS` that make the two equal; none where a letter differs.
    """

    known: str
    ways: tuple[str, ...]

    @property
    def hint(self) -> str:
        """What to do, for an error's line."""
        accepts = " and ".join(f"`{way}: true`" for way in self.ways)
        settled = f" {accepts} in the description accept{'s' * (len(self.ways) == 1)} it" if self.ways else ""
        return f"did you mean '{shown(self.known)}'?{settled}"


def fold(text: str, ways: Iterable[str]) -> str:
    """What values have in common that are the same by these `WAYS`."""
    ways = tuple(ways)
    if "ignore_form" in ways:
        text = unicodedata.normalize("NFKC", text)
    if "ignore_case" in ways:
        text = text.casefold()
        if "ignore_form" in ways:  # folding case can take letters and accents apart
            text = unicodedata.normalize("NFKC", text)
    return _OUTER.sub("", text) if "trim" in ways else text


@lru_cache(maxsize=1 << 14)
def near(value: str, known: tuple[str, ...]) -> Near | None:
    """The known value that this one was meant to be; None where none is close, or more than one is by a letter.

    Args:
        value: A value that is none of the known ones.
        known: The known values.
    """
    if len(value) > 10 * max(map(len, known), default=0) + 100:  # a text, and comparing it would take long
        return None
    folded = fold(value, WAYS)
    same = [word for word in known if fold(word, WAYS) == folded]
    if same:
        subsets = (ways for size in range(1, len(WAYS) + 1) for ways in combinations(WAYS, size))
        ways = next(ways for ways in subsets if fold(value, ways) == fold(same[0], ways))
        return Near(same[0], ways)
    close = [word for word in known if _one_edit(folded, fold(word, WAYS))]
    return Near(close[0], ()) if len(close) == 1 else None


def alike(values: Iterable[str]) -> list[list[str]]:
    """Groups of two or more values that differ in case, outer white space and Unicode form alone."""
    groups: dict[str, list[str]] = {}
    for value in values:
        groups.setdefault(fold(value, WAYS), []).append(value)
    return [group for group in groups.values() if len(group) > 1]


class Spellings:
    """Brings values to one spelling: that of the known ones, else the first that was seen."""

    def __init__(self, known: Iterable[str], ways: Iterable[str]) -> None:
        """`ways` are those of `WAYS` by which values are the same."""
        self._ways = tuple(ways)
        self._spelt = {fold(word, self._ways): word for word in known}

    def of(self, value: str) -> str:
        """The spelling of a value."""
        if not self._ways:
            return value
        return self._spelt.setdefault(fold(value, self._ways), fold(value, {"trim"} & {*self._ways}))


def _one_edit(a: str, b: str) -> bool:
    """Whether one letter is changed, left out or put in, or two neighbours changed places; numbers are never close."""
    if len(a) > len(b):
        a, b = b, a
    if len(b) < _SHORTEST or len(b) - len(a) > 1 or a == b:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(a))
    rest = slice(start + 1, None)
    if len(a) < len(b):
        return a[start:] == b[rest] and not b[start].isdigit()
    changed = a[rest] == b[rest] and not (a[start].isdigit() or b[start].isdigit())
    swapped = a[start : start + 2] == b[start : start + 2][::-1] and a[start + 2 :] == b[start + 2 :]
    return changed or (swapped and not a[start : start + 2].isdigit())
