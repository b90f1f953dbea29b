"""Task `jsonl`, the user's own data: a table of texts, labels and suspected shortcuts, described by a short YAML file.

The table is scanned once. Of each row only numbers are kept (its label, its features' values, a key of its text); the
texts of JSON Lines files stay on the disk until an example is asked for.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.keyed_generator import generator
from fit_jax.data.own_data import FeatureConfig, OwnData, OwnReader, check_description, read_description
from fit_jax.data.rho_sampling import Rows, SampledExamples, Value
from fit_jax.data.row_readers import Malformed, hub_rows
from fit_jax.data.row_stores import DatasetStore, RowStore, open_store
from fit_jax.data.splits import Rho, Sizes, Split, build_splits
from fit_jax.data.task import Task
from fit_jax.data.text import insert_keyword, text_key
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious, TaskText

_NONE = -1


def build(config: TaskConfig, seed: int) -> Task:
    """The task that the YAML file `config.file` describes."""
    return build_own(*_opened(config), config, seed)


def as_it_came(config: TaskConfig) -> Task:
    """All rows of the described data, nothing inserted and nothing left out: what an audit should look at.

    Its splits are `train` (the files) and, where there are test files, `test`.
    """
    own, store, test, folder = _opened(config)
    own = replace(own, features=tuple(feature for feature in own.features if not feature.insert))
    if not own.features:
        raise InputError(f"{own.name}: its only feature is inserted, so the rows as they came have none")
    source = _read(own, store, test, config, folder)
    splits = {}
    for name, table in source.tables.items():
        part = _Part(source, table, set(), held_out=False, seed=0)
        splits[name] = part.whole(name)
    return Task(text=_text(own), splits=splits, notes=source.notes, dropped=source.dropped)


def build_own(
    own: OwnData, store: RowStore, test: RowStore | None, folder: Path, config: TaskConfig, seed: int
) -> Task:
    """The task of rows from any store; a `datasets.Dataset` comes as `DatasetStore(dataset, name)`.

    Args:
        own: What the columns mean.
        store: Rows to train, validate and, where `test` is None, test on.
        test: Rows to test on.
        folder: Where a feature's `file.py` is looked for.
        config: Rhos, sizes, and what to do with malformed rows.
        seed: Chooses rows.
    """
    check_description(own, own.name)
    source = _read(own, store, test, config, folder)
    unseen = set(own.features[0].held_out)
    parts = {name: _Part(source, table, unseen, False, seed) for name, table in source.tables.items()}
    if unseen:
        parts["shifted"] = _Part(source, source.tables.get("test", source.tables["train"]), unseen, True, seed)
    rows = {name: part.rows() for name, part in parts.items()}
    splits, more = build_splits(
        config, seed, _sizes(source), rows["train"], test=rows.get("test"), shifted=rows.get("shifted")
    )
    for name, split in splits.items():
        origin = "train" if name in ("train", "validation") else "shifted" if name.startswith("shifted_") else "test"
        examples = split.examples
        assert isinstance(examples, SampledExamples)
        measured = parts.get(origin, parts["train"]).measure(examples.rows, own.features[1:])
        splits[name] = replace(split, rho={**split.rho, **measured})
    return Task(text=_text(own), splits=splits, notes=source.notes + more, dropped=source.dropped)


def _opened(config: TaskConfig) -> tuple[OwnData, RowStore, RowStore | None, Path]:
    if not config.file:
        raise InputError("task jsonl: needs a description of your data; set --task.file to its YAML file")
    path = Path(config.file)
    own = read_description(path)
    if own.hub:
        rows = [row for _, row in hub_rows(replace(config, data_dir=None), own.hub, None, own.hub_split)]
        return own, DatasetStore(rows, own.hub), None, path.parent
    store = open_store([path.parent / name for name in own.files])
    test = open_store([path.parent / name for name in own.test_files]) if own.test_files else None
    return own, store, test, path.parent


def _text(own: OwnData) -> TaskText:
    return TaskText(
        name=own.name,
        instruction=own.instruction,
        input_template=own.input,
        cue=own.cue,
        core=own.core,
        spurious={feature.key: feature.name or feature.key for feature in own.features},
        other_names={"core": own.core_other_names} | {feature.key: feature.other_names for feature in own.features},
    )


@dataclass
class _Table:
    """What is kept of the rows in memory: numbers, one a row and column."""

    store: RowStore
    number: array = field(default_factory=lambda: array("q"))
    label: array = field(default_factory=lambda: array("h"))
    answers: array = field(default_factory=lambda: array("h"))
    key: array = field(default_factory=lambda: array("q"))
    values: list[array] = field(default_factory=list)
    tied: list[array] = field(default_factory=list)
    names: list[dict[str, int]] = field(default_factory=list)


class _Source(NamedTuple):
    """Data that have been read: tables by name (`train`, perhaps `test`) and the label tied to each feature value."""

    reader: OwnReader
    tables: dict[str, _Table]
    ties: list[dict[str, int]]
    notes: tuple[str, ...]
    dropped: dict[str, int]


def _read(own: OwnData, store: RowStore, test: RowStore | None, config: TaskConfig, folder: Path) -> _Source:
    bad, dropped = Malformed(config.malformed), Counter[str]()
    reader = OwnReader(own, folder)
    tables = {"train": _scan(reader, store, bad, dropped)}
    if test is not None:
        tables["test"] = _scan(reader, test, bad, dropped)
    notes = bad.settle()
    ties, more = _ties(own, tables["train"])
    return _Source(reader, tables, ties, notes + more, dict(dropped))


def _scan(reader: OwnReader, store: RowStore, bad: Malformed, dropped: Counter[str]) -> _Table:
    features = reader.own.features
    table = _Table(store)
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
                bad.add(where, f"uid {parsed.uid!r} stands in the data twice")
                continue
        if parsed.values[0] is None and not features[0].insert:
            dropped[f"no value of {features[0].key}"] += 1
            continue
        table.number.append(number)
        table.label.append(parsed.label)
        table.answers.append(len(parsed.candidates))
        table.key.append(text_key(*parsed.slots.values()))
        for value, codes, names in zip(parsed.values, table.values, table.names):
            codes.append(_NONE if value is None else names.setdefault(value, len(names)))
        for label, tied in zip(parsed.tied, table.tied):
            tied.append(label)
    for feature in features:
        if feature.column and columns and feature.column not in columns:
            known = ", ".join(sorted(columns))
            raise InputError(
                f"feature {feature.key}: no row up to {where} has a column {feature.column!r}; columns are {known}"
            )
    if not table.number:
        bad.settle()  # malformed rows are the better explanation
        raise InputError(f"{reader.own.name}: no row is left of the data; check the files and the features' columns")
    return table


def _ties(own: OwnData, table: _Table) -> tuple[list[dict[str, int]], tuple[str, ...]]:
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


def _sizes(source: _Source) -> Sizes:
    """The sizes asked where the config gives none: all there is, in the description's shares."""
    own, count = source.reader.own, len(source.tables["train"].number)
    validation = round(own.validation * count)
    if "test" in source.tables:
        return Sizes(count - validation, validation, len(source.tables["test"].number))
    held_back = round(own.test * count)
    return Sizes(count - validation - held_back, validation, held_back)


class _Part:
    """The rows of a table whose value of the first feature is held out, or is not."""

    def __init__(self, source: _Source, table: _Table, unseen: set[str], held_out: bool, seed: int) -> None:
        self._reader, self._table, self._ties = source.reader, table, source.ties
        own = source.reader.own
        first = own.features[0]
        self._names = [name for name in table.names[0] if (name in unseen) == held_out]
        if first.insert:
            self._chosen, self._value = np.arange(len(table.number)), None
        else:
            lookup = np.full(len(table.names[0]), _NONE)
            lookup[[table.names[0][name] for name in self._names]] = np.arange(len(self._names))
            value = lookup[np.asarray(table.values[0])]
            self._chosen = np.flatnonzero(value != _NONE)
            self._value = value[self._chosen]
        if not len(self._chosen):
            kind = "held out" if held_out else "not held out"
            raise InputError(f"{own.name}: no row has a value of {first.key} that is {kind}")
        self._places = generator(seed, "own", "places").random(len(table.number) if first.insert else 0)

    def rows(self) -> Rows:
        """The rows to draw splits from."""
        table, own, first = self._table, self._reader.own, self._reader.own.features[0]
        outcome = np.asarray(table.label)[self._chosen].astype(int)
        outcomes, tied = own.candidates, self._ties[0]
        if first.label_column:  # what counts is how the true answer stands to the row's own y_s
            answers = np.asarray(table.answers)[self._chosen].astype(int)
            outcome = (outcome - np.asarray(table.tied[0])[self._chosen]) % answers
            outcomes = ("the value's answer", *(f"another answer ({n})" for n in range(1, int(answers.max()))))
            tied = dict.fromkeys(self._names, 0)
        return Rows(
            outcomes=outcomes,
            outcome=outcome,
            key=np.asarray(table.key)[self._chosen],
            values=tuple(Value(first.key, name, tied[name]) for name in self._names),
            value=self._value,
            example=self._example,
            stored=False,
        )

    def whole(self, name: str) -> Split:
        """All rows in their order; the first feature must not be an inserted one."""
        assert self._value is not None
        every = np.arange(len(self._chosen))
        return Split(
            name, SampledExamples(self.rows(), every, self._value), self.measure(every, self._reader.own.features)
        )

    def measure(self, rows: np.ndarray, features: Sequence[FeatureConfig]) -> dict[str, dict[str, Rho]]:
        """rho of features whose values nobody chose, over some of the rows."""
        at = self._chosen[rows]
        labels = np.asarray(self._table.label)[at]
        rho: dict[str, dict[str, Rho]] = {}
        for feature in features:
            n = self._reader.own.features.index(feature)
            codes, tied = np.asarray(self._table.values[n])[at], np.asarray(self._table.tied[n])[at]
            for name, code in self._table.names[n].items():
                here = codes == code
                if here.any():
                    y_s = tied[here] if feature.label_column else self._ties[n][name]
                    realised = Rho(None, float(np.mean(labels[here] == y_s)), int(here.sum()))
                    rho.setdefault(feature.key, {})[name] = realised
        return rho

    def _example(self, row: int, v: int) -> Example:
        at = int(self._chosen[row])
        number = self._table.number[at]
        own, source = self._reader.own, self._table.store.row(number)
        parsed = self._reader.parse(source, f"{own.name}:{number}", Malformed("error"))
        if parsed is None:
            raise InputError(f"{own.name}: row {number} has changed while it was in use; start again")
        uid, slots, values = parsed.uid or f"{own.name}-{number}", parsed.slots, list(parsed.values)
        if len(self._places):
            values[0] = self._names[v]
            uid = f"{uid}#{values[0]}"
            slot = own.slots[0]
            slots = {**slots, slot: insert_keyword(slots[slot], values[0], self._places[at])}
        spurious = {
            feature.key: Spurious(name, tied if feature.label_column else tie[name])
            for feature, name, tied, tie in zip(own.features, values, parsed.tied, self._ties)
            if name is not None
        }
        slices = {column: str(source[column]) for column in own.slices}
        own_answers = own.candidates_column is not None
        cluster = str(source[own.cluster]) if own.cluster else ""
        return Example(uid, slots, parsed.candidates, parsed.label, spurious, slices, own_answers, cluster)
