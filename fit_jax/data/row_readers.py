"""Reading source rows: files line by line, and hub data sets."""

import codecs
import csv
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, cast

from fit_jax.config import TaskConfig
from fit_jax.data.malformed import Malformed, located
from fit_jax.errors import InputError
from fit_jax.foreign import check_regular, exists, named, parse_json, shown

# Bytes of a longer line are not kept: a text of that length would be refused all the same.
_LONGEST_LINE = 1 << 26

# A row and where it stands, for messages: "train.jsonl:17".
Located = tuple[str, Mapping[str, Any]]


def data_folder(config: TaskConfig, name: str) -> Path:
    """The folder `name` inside `config.data_dir`, or inside `FIT_JAX_DATA` where that is null.

    Raises:
        InputError: Neither is set, or the folder is not there.
    """
    root = config.data_dir or os.environ.get("FIT_JAX_DATA")
    if not root:
        raise InputError(
            f"task {config.name}: needs the folder {name}/ of official files; set FIT_JAX_DATA or task.data_dir "
            "to the folder that holds it"
        )
    folder = Path(root).expanduser() / name
    if not (exists(folder) and folder.is_dir()):
        raise InputError(
            f"task {config.name}: {named(folder)} is no folder; set FIT_JAX_DATA or task.data_dir to its parent"
        )
    return folder


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
                if number == 1 and _is_utf16(raw):
                    raise InputError(f"{named(path)} cannot be read: is UTF-16; save it as UTF-8")
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
                    bad.add(
                        where,
                        f"no UTF-8 at byte {error.start} (save the file as UTF-8)",
                        raw.decode("utf-8", "replace"),
                    )
    except OSError as error:
        raise InputError(f"{named(path)} cannot be read: {error.strerror}; name a readable file") from error


def _is_utf16(begin: bytes) -> bool:
    """Whether a file that begins so is UTF-16, with its mark or, of Latin letters, without."""
    return begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (b"\0" in begin[:2] and b"\0" in begin[2:4])


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
        bad.add(where, f"bad JSON: {shown(str(error))}", line)
        return None
    if not isinstance(row, dict):
        bad.add(where, f"a JSON {type(row).__name__}, not an object", line)
        return None
    return row


def read_delimited(path: Path, bad: Malformed, delimiter: str, quoted: bool = True) -> Iterator[Located]:
    """The rows of a table whose first line names the columns. A quoted field may span lines; a row is at its first.

    Where that line has semicolons and no comma, as spreadsheets of much of Europe save it, semicolons part the fields.

    Raises:
        InputError: The first line cannot be read, or names a column twice; lines have ends of another kind.
    """
    before, begin, here = bad.count, "", f"{path}:1"

    def lines() -> Iterator[str]:
        nonlocal begin, here
        for here, line in read_lines(path, bad):
            begin = begin or here
            yield line + "\n"

    csv.field_size_limit(2**31 - 1)  # too long a text is this module's to judge
    found = lines()
    first = next(found, "")
    if delimiter == "," and ";" in first and "," not in first:
        delimiter = ";"
    reader = csv.reader(
        chain((first,), found), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    )
    try:
        header = next(reader, [])
        if bad.count > before:  # or the first row that can be read would be taken for the names
            raise InputError(
                f"{named(path)}: the line of column names is no UTF-8, or far too long; save the file as UTF-8"
            )
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise InputError(f"{named(path)}: the column {shown(twice[0])!r} appears twice in the header; rename one")
        begin = ""
        for row in reader:
            where, begin = begin, ""
            if len(row) == len(header):
                yield where, dict(zip(header, row))
            else:
                problem = f"{len(row)} fields where the header has {len(header)}"
                if where != here:
                    problem += f", up to line {here.rpartition(':')[2]} by a quote that does not close before"
                bad.add(where, problem, delimiter.join(row))
    except csv.Error as error:  # most often a file whose lines end in a bare carriage return
        raise InputError(f"{located(here)}: {error}; save the table with ordinary line ends") from error


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
            f"task {config.name}: the hub data set {named(source)} ({split}) cannot be loaded: {reason}; "
            "check the network, or set task.data_dir to a local copy"
        ) from error
    # Of one split, `load_dataset` gives a `Dataset` of mappings, which its types do not say.
    found = cast(Iterable[Mapping[str, Any]], rows)
    return ((f"{source}/{split}:{number}", row) for number, row in enumerate(found))
