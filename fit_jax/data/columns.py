"""What each column of a table holds, found in one pass: how full it is, its values, a fair sample of rows.

Memory does not grow with the table: values are counted while there are few, keys of cells are kept only as long as no
two are the same, and of the rows a sample of fixed size stays (algorithm R, Vitter 1985).
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from fit_jax.data.association import MOST_ROWS, codes, quarters
from fit_jax.data.quantities import days, numbers
from fit_jax.data.row_readers import Located
from fit_jax.data.spelling import WAYS, fold

Kind = Literal["empty", "constant", "category", "identifier", "date", "number", "text", "nested", "many values"]
# Values that are counted; a column with more has too many for a label or a shortcut.
MOST_COUNTED = 1000
# Most values of a category, and rows that each has on average at least.
MOST_CATEGORIES, _ROWS_EACH = 20, 4
# Characters of a cell that a sampled row keeps, and of the longest cell that can be an identifier.
_KEPT, _IDENTIFIER = 4000, 64
# Words of a text on average at least.
_FEWEST_WORDS = 3
_MOSTLY = 0.95
_MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "-", "?"))


@dataclass
class Column:
    """One column.

    Attributes:
        name: As the header or the keys of the rows have it.
        filled: Rows with a value.
        counts: Rows by value, as text; empty where there are too many values.
        unique: Whether no two rows have the same value.
        kind: What it holds.
        words: Words of a value, on average.
    """

    name: str
    filled: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unique: bool = True
    kind: Kind = "empty"
    words: float = 0.0
    _many: bool = False
    _keys: set[int] = field(default_factory=set)

    @property
    def different(self) -> int | None:
        """How many different values there are; None where they were not counted to the end."""
        return None if self._many else len(self.counts)

    def add(self, value: object) -> None:
        """Counts a cell that is not empty."""
        self.filled += 1
        text = value if isinstance(value, str) else _text(value)
        if self.unique:
            key = hash(text)
            self.unique = len(text) <= _IDENTIFIER and key not in self._keys
            self._keys.add(key)
            if not self.unique:
                self._keys = set()
        if not self._many:
            self.counts[text[:_KEPT]] += 1
            if len(self.counts) > MOST_COUNTED:
                self._many, self.counts = True, Counter()


class Profile(NamedTuple):
    """A table.

    Attributes:
        rows: How many there are.
        columns: By name, in their order.
        sample: Rows to look at, all of them where there are no more.
    """

    rows: int
    columns: Mapping[str, Column]
    sample: list[dict[str, Any]]


def profile(rows: Iterable[Located]) -> Profile:
    """Reads a table once."""
    columns: dict[str, Column] = {}
    sample: list[dict[str, Any]] = []
    rng = random.Random(0)
    total = 0
    for total, (_, row) in enumerate(rows, 1):
        for name, value in row.items():
            if name not in columns:
                columns[name] = Column(name)
            if not is_missing(value):
                columns[name].add(value)
        at = len(sample) if len(sample) < MOST_ROWS else rng.randrange(total)
        if at < MOST_ROWS:
            kept = {name: v[:_KEPT] if isinstance(v, str) else v for name, v in row.items()}
            sample[at : at + 1] = [kept]
    for column in columns.values():
        cells = [row[column.name] for row in sample if not is_missing(row.get(column.name))]
        column.words = sum(len(_text(cell).split()) for cell in cells) / max(len(cells), 1)
        column.kind = _kind(column, cells, total)
    return Profile(total, columns, sample)


def is_missing(value: object) -> bool:
    """Whether a cell is empty, or holds a word that programs write for that."""
    if isinstance(value, str):
        return len(value) < 8 and value.strip().casefold() in _MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def column_codes(kind: Kind, values: Iterable[object]) -> np.ndarray | None:
    """(N,) a number for the value of each row, as a property that may tell the label.

    Numbers and dates, read as `fit_jax.data.quantities` says, are parted into quarters, of a text the length is;
    spellings of one category are one value, and an empty cell is one too. None where the column holds no property: an
    identifier, lists, always the same.
    """
    cells = list(values)
    if kind == "category" or kind == "many values":
        return codes(["" if is_missing(cell) else fold(_text(cell), WAYS) for cell in cells])
    if kind not in ("number", "date", "text"):
        return None
    if kind == "text":
        sizes = np.array([len(_text(cell).split()) for cell in cells], float)
    else:
        sizes = numbers(cells) if kind == "number" else days([_text(cell) for cell in cells])
    full = np.isfinite(sizes) & [not is_missing(cell) for cell in cells]
    found = np.zeros(len(cells), int)
    if full.any():
        found[full] = 1 + quarters(sizes[full].tolist())
    return found


def kind_of(values: Iterable[object]) -> Kind:
    """What a column holds whose every value is given."""
    column, every = Column(""), list(values)
    cells = [value for value in every if not is_missing(value)]
    for value in cells:
        column.add(value)
    column.words = sum(len(_text(cell).split()) for cell in cells) / max(len(cells), 1)
    return _kind(column, cells, len(every))


def _kind(column: Column, cells: list[Any], rows: int) -> Kind:
    if not cells:
        return "empty"
    if any(isinstance(cell, list | dict) for cell in cells):
        return "nested"
    different = len({fold(value, WAYS) for value in column.counts}) if column.counts else MOST_COUNTED
    if different == 1:
        return "constant"
    if different <= MOST_CATEGORIES and column.filled >= _ROWS_EACH * different:
        return "category"
    texts = [_text(cell) for cell in cells]
    if _mostly(np.isfinite(days(texts))):
        return "date"
    spaced = any(" " in text.strip() for text in texts)
    is_number = np.isfinite(numbers(texts))
    marked = (isinstance(cell, float) or "." in text or "," in text for cell, text in zip(cells, texts))
    fractions = any(mark and number for mark, number in zip(marked, is_number))
    if column.unique and column.filled == rows and not spaced and not fractions:
        return "identifier"
    if _mostly(is_number):
        return "number"
    return "text" if column.words >= _FEWEST_WORDS else "many values"


def _mostly(held: np.ndarray) -> bool:
    return bool(held.sum() >= _MOSTLY * len(held))


def _text(value: object) -> str:
    """A cell as text; what Python cannot write is an empty one."""
    try:
        return str(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists
        return ""
