"""Rows of a table, read in order once and then by number: JSON Lines from the disk, other formats from memory."""

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fit_jax.data.malformed import Malformed, some_of
from fit_jax.data.row_readers import Located, parse_object, raw_lines, read_delimited, read_jsonl
from fit_jax.errors import InputError
from fit_jax.foreign import check_regular, named, shown

FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")
# Rows of a Parquet file in memory at a time.
_BATCH = 4096


class RowStore(Protocol):
    """Rows that are scanned once; afterwards `row(n)` gives the n-th row that the scan gave."""

    def scan(self, bad: Malformed) -> Iterator[Located]:
        """Every row that can be read, and where it stands."""
        ...

    def row(self, number: int) -> Mapping[str, Any]:
        """A row by its number in the scan."""
        ...


class JsonlStore:
    """JSON Lines files; only the place of each row is kept, so that memory does not grow with the texts."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._files: list[int] = []
        self._file = array("i")
        self._begin = array("q")
        self._length = array("q")

    def scan(self, bad: Malformed) -> Iterator[Located]:
        """The objects of all files in order."""
        for path in self._paths:
            self._files.append(open_regular(path))
            for where, begin, raw, line in raw_lines(path, bad):
                if (row := parse_object(where, line, bad)) is not None:
                    self._file.append(len(self._files) - 1)
                    self._begin.append(begin)
                    self._length.append(len(raw))
                    yield where, row

    def row(self, number: int) -> Mapping[str, Any]:
        """Reads the row from its file again."""
        raw = os.pread(self._files[self._file[number]], self._length[number], self._begin[number])
        row = parse_object("", raw.decode("utf-8-sig", "replace"), Malformed("error"))
        if row is None:
            raise InputError(f"{self._paths[self._file[number]]} has changed while it was in use; start again")
        return row


class MemoryStore:
    """Rows of CSV, TSV or Parquet files, held in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._rows: list[Mapping[str, Any]] = []

    def scan(self, bad: Malformed) -> Iterator[Located]:
        """The rows of all files in order."""
        for path in self._paths:
            for where, row in table_rows(path, bad):
                self._rows.append(row)
                yield where, row

    def row(self, number: int) -> Mapping[str, Any]:
        """The row."""
        return self._rows[number]


class DatasetStore:
    """Rows of a `datasets.Dataset`, or of anything else that is indexed by number and gives mappings."""

    def __init__(self, dataset: Sequence[Mapping[str, object]], name: str) -> None:
        self._dataset = dataset
        self._name = name

    def scan(self, bad: Malformed) -> Iterator[Located]:
        """The rows in order."""
        del bad  # a data set has no rows that cannot be read
        for number in range(len(self._dataset)):
            yield f"{self._name}:{number}", self._dataset[number]

    def row(self, number: int) -> Mapping[str, Any]:
        """The row."""
        return self._dataset[number]


def open_regular(path: Path) -> int:
    """A descriptor of a file whose rows are read again later.

    Raises:
        InputError: The file cannot be read, or is no regular one.
    """
    check_regular(path)
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{named(path)} cannot be read: {error.strerror}; name a readable file") from error


def open_store(paths: Sequence[Path]) -> RowStore:
    """A store of files of one format.

    Raises:
        InputError: No file, a format that is not known, or several formats.
    """
    formats = {path.suffix.lower() for path in paths}
    if len(formats) != 1 or not formats <= set(FORMATS):
        names = some_of(paths) or "no file"
        raise InputError(f"own data: {names}: give files of one format, of {', '.join(FORMATS)}")
    return JsonlStore(paths) if formats == {".jsonl"} else MemoryStore(paths)


def table_rows(path: Path, bad: Malformed) -> Iterator[Located]:
    """The rows of one file of any of the formats, of which no more than a few thousand are in memory at a time.

    Raises:
        InputError: The file cannot be read.
    """
    kind = path.suffix.lower()
    if kind == ".jsonl":
        return read_jsonl(path, bad)
    return _parquet(path) if kind == ".parquet" else read_delimited(path, bad, "\t" if kind == ".tsv" else ",")


def _parquet(path: Path) -> Iterator[Located]:
    import pyarrow.parquet

    check_regular(path, "name a Parquet file")
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    yield f"{path}:{number}", row
                    number += 1
    except Exception as error:  # Arrow's own, and Python's of text, dates and numbers that are none
        reason = shown(" ".join(str(error).split()))
        raise InputError(f"{named(path)} cannot be read: {reason}; name a Parquet file") from error
