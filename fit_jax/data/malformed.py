"""An account of every row that is malformed: what is wrong with it, and where it stands."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any, Literal

from fit_jax.data.spelling import near
from fit_jax.errors import InputError
from fit_jax.files import replace_with
from fit_jax.foreign import is_text, listed, named, parse_json, printable, quoted, shown

# A longer text is taken for a broken file, not for an input: no row of tokens would hold a hundredth of it.
MAX_CHARACTERS = 200_000
NO_TEXT = "NUL or half of a character"
_SHOWN = 3
# Characters of a line on them all.
_LONGEST = 170
# Characters of several names.
_LONGEST_NAMES = 60
# What a line of the list of all of them holds.
_RECORD = ("file", "row", "reason", "content")


def located(where: str) -> str:
    """A place `FILE:ROW`, of whose path the end is shown where it is long."""
    file, _, row = where.rpartition(":")
    return f"{named(file)}:{row}"


class Malformed:
    """Collects malformed rows; `settle` then reports them all, as an error or as notes.

    Args:
        policy: `error` or `skip`.
        listing: Where an error lists them all as JSON Lines; the list is removed when no row is malformed any more.
            None: an error shows the first few alone.
    """

    def __init__(self, policy: Literal["error", "skip"], listing: Path | None = None) -> None:
        self.count = 0
        self._policy = policy
        self._first: list[str] = []
        self._folder = ""  # of the last of these
        self._listing = listing
        self._records: IO[str] | None = None

    def add(self, where: str, problem: str, row: Mapping[str, object] | str | None = None) -> None:
        """Counts a malformed row.

        Args:
            where: The file and, behind a colon, the row.
            problem: What is wrong.
            row: What was read of it: its fields, or the text that could not be read as fields.
        """
        self.count += 1
        if len(self._first) < _SHOWN:
            folder, _, name = where.rpartition("/")
            place = printable(name) if self._first and folder == self._folder else located(where)
            self._folder = folder
            self._first.append(f"{place}: {problem}")
        if self._listing is None or self._policy != "error":
            return
        if self._records is None:  # on the disk, for there may be as many as rows
            self._records = tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        file, _, number = where.rpartition(":")
        content = {key: _plain(value) for key, value in row.items()} if isinstance(row, Mapping) else row
        record = dict(zip(_RECORD, (file, int(number), problem, content)))
        self._records.write(json.dumps(record, ensure_ascii=False) + "\n")

    def settle(self) -> tuple[str, ...]:
        """What to note where rows were skipped.

        Raises:
            InputError: There are malformed rows and the policy is `error`.
        """
        if not self.count:
            if self._listing is not None and _is_list(self._listing):
                with suppress(OSError):  # a folder that may not be written: the list does no harm
                    self._listing.unlink()
            return ()
        rows, first = self._summary()
        if self._policy == "error":
            raise InputError(f"{rows}: {first}; fix them{self._listed()}, or set task.malformed to skip")
        return (f"{rows} skipped: {first}",)

    def __str__(self) -> str:
        return ": ".join(self._summary())

    def _summary(self) -> tuple[str, str]:
        """How many rows there are, and what is wrong with the first of them."""
        lengths = accumulate(len(problem) for problem in self._first)
        first = [problem for problem, end in zip(self._first, lengths) if end <= _LONGEST] or self._first[:1]
        rows = f"{self.count} malformed row{'s' * (self.count > 1)}"
        return rows, "; ".join(first) + ("; ..." if self.count > len(first) else "")

    def text(self, row: Mapping[str, object], field: str, where: str) -> str | None:
        """The text of a field, stripped; None, counted as malformed, where it is missing, empty or far too long."""
        value = row.get(field)
        if not isinstance(value, str):
            problem = f"no text in field {field!r}" if value is None else f"field {field!r} is no text"
        elif not (text := value.strip()):
            problem = f"empty text in field {field!r}"
        elif len(text) > MAX_CHARACTERS:
            problem = f"{len(text)} characters in field {field!r}, more than {MAX_CHARACTERS}"
        elif not is_text(text):
            problem = f"field {field!r} holds {NO_TEXT}"
        elif "\ufffd" in text:
            problem = f"field {field!r} holds the replacement character of a broken encoding"
        else:
            return text
        self.add(where, problem, row)
        return None

    def choice(self, row: Mapping[str, object], field: str, known: Iterable[object], where: str) -> int | None:
        """Position of a field's value in `known`; None, counted as malformed, where it is not there."""
        known = list(known)
        if (value := row.get(field)) in known:
            return known.index(value)
        self.add(where, f"{field} {quoted(value)} is none of {some_of(known)}", row)
        return None

    def _listed(self) -> str:
        """Puts the list of all rows in its place; says where that is."""
        if self._listing is None or self._records is None:
            return ""

        def write(partial: Path) -> None:
            assert self._records is not None
            self._records.seek(0)
            with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
                copyfileobj(self._records, file)

        try:
            replace_with(self._listing, write)
        except InputError:  # a folder that may not be written: the rows are the user's concern
            return ""
        return f" (all are in {self._listing})"


def _is_list(path: Path) -> bool:
    """Whether a file is a list of malformed rows, and nothing of the user's own."""
    try:
        if not path.is_file():
            return False
        with path.open(encoding="utf-8") as file:
            kinds = {tuple(row) if isinstance(row := parse_json(line), dict) else () for line in file}
    except (OSError, ValueError):
        return False
    return kinds == {_RECORD}


def none_of(field: str, value: object, known: Iterable[object]) -> str:
    """What is wrong with a value that is none of the known ones: the one that was meant, where that shows."""
    if isinstance(value, str) and (meant := near(value, tuple(map(str, known)))):
        return f"{field} {quoted(value)} is unknown; {meant.hint}"
    return f"{field} {quoted(value)} is none of {some_of(known)}"


def some_of(names: Iterable[object], most: int = 8) -> str:
    """Names for an error message, at most so many of them and as many as fit, but for the first."""
    texts = [shown(name) for name in names]
    ends = accumulate(len(text) + 2 for text in texts)
    kept = max(sum(end <= _LONGEST_NAMES for end in ends), 1)
    return listed(texts, min(kept, most))


def _plain(value: object) -> Any:
    """A value as JSON takes it, whatever a table holds."""
    return value if value is None or isinstance(value, str | int) else shown(value)
