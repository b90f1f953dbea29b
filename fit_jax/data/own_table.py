"""A table of one's own data, scanned once: of each row only numbers are kept, whatever its texts."""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.malformed import Malformed, located
from fit_jax.data.own_data import FeatureConfig, OwnData
from fit_jax.data.own_rows import OwnReader
from fit_jax.data.row_stores import RowStore
from fit_jax.data.spelling import alike, near
from fit_jax.data.text import text_key
from fit_jax.data.visibility import LOOKED_AT, unseen
from fit_jax.errors import InputError
from fit_jax.foreign import listed, quoted, shown

# The code of a row without a value.
NONE = -1


@dataclass
class ParsedTable:
    """What is kept of the rows in memory: numbers, one a row and column."""

    store: RowStore
    number: array = field(default_factory=lambda: array("q"))
    label: array = field(default_factory=lambda: array("h"))
    answers: array = field(default_factory=lambda: array("h"))
    key: array = field(default_factory=lambda: array("q"))
    values: list[array] = field(default_factory=list)
    tied: list[array] = field(default_factory=list)
    names: list[dict[str, int]] = field(default_factory=list)


class Source(NamedTuple):
    """Data that have been read: tables by name (`train`, perhaps `test`) and the label tied to each feature value."""

    reader: OwnReader
    tables: dict[str, ParsedTable]
    ties: list[dict[str, int]]
    notes: tuple[str, ...]
    dropped: dict[str, int]


def read_tables(own: OwnData, store: RowStore, test: RowStore | None, config: TaskConfig, folder: Path) -> Source:
    """Scans the rows to train on and, where there is a store of them, the rows to test on.

    Raises:
        InputError: Malformed rows that are not to be skipped, which are then listed in a file beside the description
            that `config.file` names; a column that no row has; values of a feature that are almost the same.
    """
    listing = Path(config.file).with_suffix(".malformed.jsonl") if config.file else None
    bad, dropped = Malformed(own.malformed or config.malformed, listing), Counter[str]()
    reader = OwnReader(own, folder)
    tables = {"train": _scan(reader, store, bad, dropped)}
    if test is not None:
        tables["test"] = _scan(reader, test, bad, dropped)
    notes = bad.settle()
    for number, feature in enumerate(own.features):
        if feature.column:
            _check_spellings(own, feature, [(table.names[number], table.values[number]) for table in tables.values()])
    ties, more = _ties(own, tables["train"])
    train = tables["train"]
    at = np.unique(np.linspace(0, len(train.number) - 1, LOOKED_AT).astype(int))
    hidden = unseen(reader, [store.row(train.number[n]) for n in at])
    return Source(reader, tables, ties, (*notes, *more, *hidden), dict(dropped))


def _check_spellings(own: OwnData, feature: FeatureConfig, tables: Iterable[tuple[dict[str, int], array]]) -> None:
    """Raises `InputError` where two values that the description does not both name are the same except for spelling."""
    count = Counter[str]()
    for names, codes in tables:
        rows = np.bincount(np.asarray(codes)[np.asarray(codes) != NONE], minlength=len(names))
        count.update({name: int(rows[code]) for name, code in names.items()})
    for group in alike(count):
        if not {*group} <= {*feature.named}:
            often, seldom = sorted(group, key=lambda value: -count[value])[:2]
            meant = near(seldom, (often,))
            raise InputError(
                f"{own.name}: feature {feature.key}: {quoted(seldom)} ({count[seldom]} rows) beside {quoted(often)} "
                f"({count[often]}): {meant.hint if meant else ''}, or name both in its `labels`"
            )


def _scan(reader: OwnReader, store: RowStore, bad: Malformed, dropped: Counter[str]) -> ParsedTable:
    features = reader.own.features
    table = ParsedTable(store)
    table.values = [array("i") for _ in features]
    table.tied = [array("h") for _ in features]
    table.names = [{word: n for n, word in enumerate(feature.insert)} for feature in features]
    seen: set[int] = set()
    columns: set[str] = set()
    where = ""
    for number, (where, row) in enumerate(store.scan(bad)):
        columns.update(row)
        parsed = reader.parse(row, where, bad)
        if parsed is None:
            continue
        if parsed.uid is not None:
            known = len(seen)
            seen.add(hash(parsed.uid))
            if len(seen) == known:
                bad.add(where, f"uid {shown(parsed.uid)!r} appears twice in the data", row)
                continue
        if features and parsed.values[0] is None and not features[0].insert:
            dropped[f"no value of {features[0].key}"] += 1
            continue
        table.number.append(number)
        table.label.append(parsed.label)
        table.answers.append(len(parsed.candidates))
        table.key.append(text_key(*parsed.slots.values()))
        for value, codes, names in zip(parsed.values, table.values, table.names):
            codes.append(NONE if value is None else names.setdefault(value, len(names)))
        for label, tied in zip(parsed.tied, table.tied):
            tied.append(label)
    for use, column in _columns(reader.own):
        if columns and column not in columns:
            known = listed(map(shown, sorted(columns)))
            raise InputError(f"{use}: no row up to {located(where)} has a column {quoted(column)}; columns are {known}")
    if not table.number:
        # Malformed rows are the better explanation, of which the first is shown.
        skipped = "".join(f": {note.partition(';')[0]}" for note in bad.settle())
        raise InputError(
            f"{reader.own.name}: no row is left of the data{skipped}; check the files and the features' columns"
        )
    return table


def _columns(own: OwnData) -> list[tuple[str, str]]:
    """The columns without which no row can be used, each with what uses it."""
    uses = [("label", own.label), ("uid", own.uid), *(("input", slot) for slot in own.slots)]
    uses += [(f"feature {feature.key}", feature.column) for feature in own.features]
    return [(use, column) for use, column in uses if column]


def _ties(own: OwnData, table: ParsedTable) -> tuple[list[dict[str, int]], tuple[str, ...]]:
    """The label tied to each value of each feature: the one given, else the one it is most over-represented with."""
    labels = np.asarray(table.label)
    counts = np.bincount(labels, minlength=len(own.candidates) or 1)
    ties: list[dict[str, int]] = []
    notes = []
    for feature, codes, names in zip(own.features, table.values, table.names):
        tied = {value: own.candidates.index(label) for value, label in feature.labels.items()}
        if not feature.label_column:
            for value, code in names.items():
                if value not in tied:
                    here = np.bincount(labels[np.asarray(codes) == code], minlength=len(counts))
                    share = here / np.maximum(counts, 1)
                    tied[value] = int(np.argmax(share))
                    answer, rho = own.candidates[tied[value]], here[tied[value]] / here.sum()
                    notes.append(f"{feature.key} = {value}: tied to {answer} (estimated; rho in the data {rho:.2f})")
        ties.append(tied)
    return ties, tuple(notes)
