"""Task `jsonl`, the user's own data: a table of texts, labels and suspected shortcuts, described by a short YAML file.

The table is scanned once. Of each row only numbers are kept (its label, its features' values, a key of its text); the
texts of JSON Lines files stay on the disk until an example is asked for.
"""

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.own_data import OwnData, ValueOf, check_description, read_description, value_of
from fit_jax.data.random import generator
from fit_jax.data.records import Malformed, hub_rows
from fit_jax.data.row_stores import DatasetStore, RowStore, open_store
from fit_jax.data.splits import Drawn, Rho, Rows, Sizes, Split, Value, build_splits
from fit_jax.data.tasks import Task
from fit_jax.data.text import insert_keyword, text_key
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious, TaskText

_NONE = -1


def build(config: TaskConfig, seed: int) -> Task:
    """The task that the YAML file `config.file` describes."""
    if not config.file:
        raise InputError("task jsonl: needs a description of your data; set --task.file to its YAML file")
    path = Path(config.file)
    own = read_description(path)
    if own.hub:
        rows = [row for _, row in hub_rows(replace(config, data_dir=None), own.hub, None, own.hub_split)]
        return build_own(own, DatasetStore(rows, own.hub), None, config, seed, path.parent)
    store = open_store([path.parent / name for name in own.files])
    test = open_store([path.parent / name for name in own.test_files]) if own.test_files else None
    return build_own(own, store, test, config, seed, path.parent)


def build_own(
    own: OwnData, store: RowStore, test: RowStore | None, config: TaskConfig, seed: int, folder: Path = Path()
) -> Task:
    """The task of rows from any store; a `datasets.Dataset` comes as `DatasetStore(dataset, name)`.

    Args:
        own: What the columns mean.
        store: Rows to train, validate and, where `test` is None, test on.
        test: Rows to test on.
        config: Rhos, sizes, and what to do with malformed rows.
        seed: Chooses rows.
        folder: Where a feature's `file.py` is looked for.
    """
    check_description(own, own.name)
    bad, dropped = Malformed(config.malformed), Counter[str]()
    reader = _Reader(own, folder)
    table = _scan(reader, store, bad, dropped)
    test_table = _scan(reader, test, bad, dropped) if test is not None else None
    notes = bad.settle()
    ties, tie_notes = _ties(own, table)
    unseen = set(own.features[0].held_out)
    parts = {"train": _Part(reader, table, ties, unseen, False, seed)}
    if test_table is not None:
        parts["test"] = _Part(reader, test_table, ties, unseen, False, seed)
    if unseen:
        parts["shifted"] = _Part(reader, test_table or table, ties, unseen, True, seed)
    rows = {name: part.rows() for name, part in parts.items()}
    sizes = _sizes(own, table, test_table)
    splits, more = build_splits(config, seed, sizes, rows["train"], rows.get("test"), rows.get("shifted"))
    for name, split in splits.items():
        source = "train" if name in ("train", "validation") else "shifted" if name.startswith("shifted_") else "test"
        measured = parts.get(source, parts["train"]).as_it_came(split)
        splits[name] = replace(split, rho={**split.rho, **measured})
    text = TaskText(
        name=own.name,
        instruction=own.instruction,
        input_template=own.input,
        cue=own.cue,
        core=own.core,
        spurious={feature.key: feature.name or feature.key for feature in own.features},
    )
    return Task(text=text, splits=splits, notes=notes + tie_notes + more, dropped=dict(dropped))


class _Parsed(NamedTuple):
    """What one row says. `values` and `tied` go by feature; `tied` is the label column's, where there is one."""

    uid: str | None
    slots: dict[str, str]
    candidates: tuple[str, ...]
    label: int
    values: tuple[str | None, ...]
    tied: tuple[int, ...]


class _Reader:
    """Understands rows as the description says."""

    def __init__(self, own: OwnData, folder: Path) -> None:
        self.own = own
        annotated = [None if feature.insert else value_of(feature, own.slots, folder) for feature in own.features]
        self._finders: list[ValueOf | None] = annotated

    def parse(self, row: Mapping[str, Any], where: str, bad: Malformed) -> _Parsed | None:
        """The row, or None, counted as malformed."""
        own = self.own
        texts = {slot: bad.text(row, slot, where) for slot in own.slots}
        slots = {slot: text for slot, text in texts.items() if text is not None}
        if len(slots) < len(texts):
            return None
        candidates = own.candidates or _answers(row.get(own.candidates_column))
        if len(set(candidates)) < 2 or len(set(candidates)) < len(candidates):
            bad.add(where, f"column {own.candidates_column!r} holds no list of two or more different answers")
            return None
        columns = [own.label, *(feature.label_column or "" for feature in own.features)]
        labels = [_label(row.get(column), candidates) if column else _NONE for column in columns]
        for column, label in zip(columns, labels):
            if label is None:
                bad.add(where, f"{column} {row.get(column)!r} is none of {', '.join(candidates)}")
                return None
        uid = None if own.uid is None else row.get(own.uid)
        if own.uid and uid in (None, ""):
            bad.add(where, f"no uid in field {own.uid!r}")
            return None
        values = tuple(finder and finder(row) for finder in self._finders)
        return _Parsed(None if uid is None else str(uid), slots, candidates, labels[0], values, tuple(labels[1:]))


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


def _scan(reader: _Reader, store: RowStore, bad: Malformed, dropped: Counter[str]) -> _Table:
    features = reader.own.features
    table = _Table(store)
    table.values = [array("i") for _ in features]
    table.tied = [array("h") for _ in features]
    table.names = [{word: n for n, word in enumerate(feature.insert)} for feature in features]
    seen: set[int] = set()
    for number, (where, row) in enumerate(store.scan(bad)):
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
    if not table.number:
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


def _sizes(own: OwnData, table: _Table, test: _Table | None) -> Sizes:
    """The sizes asked where the config gives none: all there is, in the description's shares."""
    count = len(table.number)
    validation = round(own.validation * count)
    if test is not None:
        return Sizes(count - validation, validation, len(test.number))
    held_back = round(own.test * count)
    return Sizes(count - validation - held_back, validation, held_back)


class _Part:
    """The rows of a table whose value of the first feature is held out, or is not."""

    def __init__(
        self, reader: _Reader, table: _Table, ties: list[dict[str, int]], unseen: set[str], held_out: bool, seed: int
    ) -> None:
        first = reader.own.features[0]
        self._reader, self._table, self._ties = reader, table, ties
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
            raise InputError(f"{reader.own.name}: no row has a value of {first.key} that is {kind}")
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

    def as_it_came(self, split: Split) -> dict[str, dict[str, Rho]]:
        """rho in a split of the features after the first, whose values nobody chose."""
        assert isinstance(split.examples, Drawn)
        at = self._chosen[split.examples.rows]
        labels = np.asarray(self._table.label)[at]
        rho: dict[str, dict[str, Rho]] = {}
        for n, feature in enumerate(self._reader.own.features[1:], 1):
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
        slices = {column: str(source.get(column, "")) for column in own.slices}
        return Example(uid, slots, parsed.candidates, parsed.label, spurious, slices)


def _answers(value: Any) -> tuple[str, ...]:
    """A row's answers: a list, or a text that is a JSON list."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return ()
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _label(value: Any, candidates: Sequence[str]) -> int | None:
    """The position of an answer given by its text or by its number."""
    if str(value) in candidates:
        return candidates.index(str(value))
    return value if isinstance(value, int) and 0 <= value < len(candidates) else None
