"""Reading source rows: files line by line, hub data sets, and an account of every row that is malformed."""

import codecs
import csv
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, cast

from fit_jax.config import TaskConfig
from fit_jax.errors import InputError
from fit_jax.foreign import check_regular, is_text, parse_json, quoted, shown

# A longer text is taken for a broken file, not for an input: no row of tokens would hold a hundredth of it.
MAX_CHARACTERS = 200_000
_SHOWN = 3
# Characters of a line on them all.
_LONGEST = 150
NO_TEXT = "NUL or half of a character"
# Bytes of a longer line are not kept: a text of that length would be refused all the same.
_LONGEST_LINE = 1 << 26

# A row and where it stands, for messages: "train.jsonl:17".
Located = tuple[str, Mapping[str, Any]]


class Malformed:
    """Collects malformed rows; `settle` then reports them all, as an error or as notes.

    Args:
        policy: `error` or `skip`.
    """

    def __init__(self, policy: Literal["error", "skip"]) -> None:
        self.count = 0
        self._policy = policy
        self._first: list[str] = []

    def add(self, where: str, problem: str) -> None:
        """Counts a malformed row."""
        self.count += 1
        if len(self._first) < _SHOWN:
            self._first.append(f"{where}: {problem}")

    def settle(self) -> tuple[str, ...]:
        """What to note where rows were skipped.

        Raises:
            InputError: There are malformed rows and the policy is `error`.
        """
        if not self.count:
            return ()
        # Folders aside, which are the user's own, the line stays short.
        lengths = accumulate(len(problem.partition(": ")[2]) + 20 for problem in self._first)
        first = [problem for problem, end in zip(self._first, lengths) if end <= _LONGEST] or self._first[:1]
        shown = "; ".join(first) + ("; ..." if self.count > len(first) else "")
        rows = f"{self.count} malformed row{'s' * (self.count > 1)}"
        if self._policy == "error":
            raise InputError(f"{rows}: {shown}; fix them, or set --task.malformed skip")
        return (f"{rows} skipped: {shown}",)

    def text(self, row: Mapping[str, Any], field: str, where: str) -> str | None:
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
        self.add(where, problem)
        return None

    def choice(self, row: Mapping[str, Any], field: str, known: Iterable[Any], where: str) -> int | None:
        """Position of a field's value in `known`; None, counted as malformed, where it is not there."""
        known = list(known)
        if (value := row.get(field)) in known:
            return known.index(value)
        self.add(where, f"{field} {quoted(value)} is none of {some_of(known)}")
        return None


def data_folder(config: TaskConfig, name: str) -> Path:
    """The folder `name` inside `config.data_dir`, or inside `FIT_JAX_DATA` where that is null.

    Raises:
        InputError: Neither is set, or the folder is not there.
    """
    root = config.data_dir or os.environ.get("FIT_JAX_DATA")
    if not root:
        raise InputError(
            f"task {config.name}: needs the folder {name}/ of official files; set FIT_JAX_DATA or --task.data_dir "
            "to the folder that holds it"
        )
    folder = Path(root).expanduser() / name
    if not folder.is_dir():
        raise InputError(
            f"task {config.name}: {folder} is no folder; set FIT_JAX_DATA or --task.data_dir to its parent"
        )
    return folder


def some_of(names: Iterable[Any], most: int = 8) -> str:
    """Names for an error message, at most so many of them."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def raw_lines(path: Path, bad: Malformed) -> Iterator[tuple[str, int, bytes, str]]:
    """The lines of a UTF-8 file that are not empty: where each stands, its first byte, its bytes and its text.

    Raises:
        InputError: The file cannot be read, is no regular file, or is of another encoding.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            end = number = 0
            while raw := file.readline(_LONGEST_LINE):
                begin, end, number = end, end + len(raw), number + 1
                where = f"{path}:{number}"
                if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise InputError(f"{path} cannot be read: is UTF-16; save it as UTF-8")
                if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
                    bad.add(where, f"a line of more than {_LONGEST_LINE} bytes")
                    while (more := file.readline(_LONGEST_LINE)) and not more.endswith(b"\n"):
                        end += len(more)
                    end += len(more)
                    continue
                if not raw.strip():
                    continue
                try:
                    yield where, begin, raw, raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    bad.add(where, f"no UTF-8 at byte {error.start}")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name a readable file") from error


def read_lines(path: Path, bad: Malformed) -> Iterator[tuple[str, str]]:
    """The lines of a file as `raw_lines` gives them, without their ends, and where each stands."""
    for where, _, _, line in raw_lines(path, bad):
        yield where, line.rstrip("\r\n")


def read_jsonl(path: Path, bad: Malformed) -> Iterator[Located]:
    """The objects of a JSON Lines file."""
    for where, line in read_lines(path, bad):
        if (row := parse_object(where, line, bad)) is not None:
            yield where, row


def parse_object(where: str, line: str, bad: Malformed) -> dict[str, Any] | None:
    """The JSON object of one line; None, counted as malformed, where it is none."""
    try:
        row = parse_json(line)
    except ValueError as error:
        bad.add(where, f"bad JSON: {shown(str(error))}")
        return None
    if not isinstance(row, dict):
        bad.add(where, f"a JSON {type(row).__name__}, not an object")
        return None
    return row


def read_delimited(path: Path, bad: Malformed, delimiter: str, quoted: bool = True) -> Iterator[Located]:
    """The rows of a table whose first line names the columns. A quoted field may span lines."""
    here = f"{path}:1"

    def lines() -> Iterator[str]:
        nonlocal here
        for here, line in read_lines(path, bad):  # noqa: B007  # `here` tells where the reader has come to
            yield line + "\n"

    csv.field_size_limit(2**31 - 1)  # too long a text is this module's to judge
    reader = csv.reader(lines(), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    try:
        header = next(reader, [])
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise InputError(f"{path}: the column {shown(twice[0])!r} stands twice in the header; rename one")
        for row in reader:
            if len(row) == len(header):
                yield here, dict(zip(header, row))
            else:
                bad.add(here, f"{len(row)} fields where the header has {len(header)}")
    except csv.Error as error:  # most often a file whose lines end in a bare carriage return
        raise InputError(f"{here}: {error}; save the table with ordinary line ends") from error


def hub_rows(config: TaskConfig, dataset: str, name: str | None, split: str) -> Iterator[Located]:
    """The rows of a split of a hub data set, or of the copy of it that `config.data_dir` names.

    Raises:
        InputError: The data set cannot be loaded.
    """
    import datasets  # takes a second

    source = config.data_dir or dataset
    try:
        if config.data_dir is None:
            rows = datasets.load_dataset(source, name, split=split)
        else:  # the library's cache does not tell folders of one name apart, nor what they held before
            with tempfile.TemporaryDirectory() as cache:
                rows = datasets.load_dataset(source, name, split=split, cache_dir=cache, keep_in_memory=True)
    except Exception as error:  # the library raises its own, the network's and the file system's errors
        reason = shown(" ".join(str(error).split()))
        raise InputError(
            f"task {config.name}: the hub data set {source} ({split}) cannot be loaded: {reason}; "
            "check the network, or set --task.data_dir to a local copy"
        ) from error
    # Of one split, `load_dataset` gives a `Dataset` of mappings, which its types do not say.
    found = cast(Iterable[Mapping[str, Any]], rows)
    return ((f"{source}/{split}:{number}", row) for number, row in enumerate(found))
