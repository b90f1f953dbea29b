"""Rows of a table, read in order once and then by number: JSON Lines from the disk, other formats from memory."""

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fit_jax.data.row_readers import Located, Malformed, parse_object, read_delimited
from fit_jax.errors import InputError

FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")


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
            try:
                with path.open("rb") as file:
                    self._files.append(os.open(path, os.O_RDONLY))
                    yield from self._scan(path, file, bad)
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}; name a readable file") from error

    def row(self, number: int) -> Mapping[str, Any]:
        """Reads the row from its file again."""
        raw = os.pread(self._files[self._file[number]], self._length[number], self._begin[number])
        row = parse_object("", raw.decode("utf-8-sig"), Malformed("error"))
        if row is None:
            raise InputError(f"{self._paths[self._file[number]]} has changed while it was in use; start again")
        return row

    def _scan(self, path: Path, file: Any, bad: Malformed) -> Iterator[Located]:
        end = 0
        for number, raw in enumerate(file, 1):
            begin, end = end, end + len(raw)
            where = f"{path}:{number}"
            if not raw.strip():
                continue
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                bad.add(where, f"no UTF-8 at byte {error.start}")
                continue
            if (row := parse_object(where, line, bad)) is not None:
                self._file.append(len(self._files) - 1)
                self._begin.append(begin)
                self._length.append(len(raw))
                yield where, row


class MemoryStore:
    """Rows of CSV, TSV or Parquet files, held in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._rows: list[Mapping[str, Any]] = []

    def scan(self, bad: Malformed) -> Iterator[Located]:
        """The rows of all files in order."""
        for path in self._paths:
            for where, row in _table(path, bad):
                self._rows.append(row)
                yield where, row

    def row(self, number: int) -> Mapping[str, Any]:
        """The row."""
        return self._rows[number]


class DatasetStore:
    """Rows of a `datasets.Dataset`, or of anything else that is indexed by number and gives mappings."""

    def __init__(self, dataset: Sequence[Mapping[str, Any]], name: str) -> None:
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


def open_store(paths: Sequence[Path]) -> RowStore:
    """A store of files of one format.

    Raises:
        InputError: No file, a format that is not known, or several formats.
    """
    formats = {path.suffix.lower() for path in paths}
    if len(formats) != 1 or not formats <= set(FORMATS):
        names = ", ".join(map(str, paths)) or "no file"
        raise InputError(f"own data: {names}: give files of one format, of {', '.join(FORMATS)}")
    return JsonlStore(paths) if formats == {".jsonl"} else MemoryStore(paths)


def _table(path: Path, bad: Malformed) -> Iterator[Located]:
    if path.suffix.lower() != ".parquet":
        return read_delimited(path, bad, "\t" if path.suffix.lower() == ".tsv" else ",")
    import pyarrow.lib
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}; name a Parquet file") from error
    return ((f"{path}:{number}", row) for number, row in enumerate(rows))
