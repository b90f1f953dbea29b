"""Task `jsonl`, the user's own data: a table of texts, labels and suspected shortcuts, described by a short YAML file.

The table is scanned once. Of each row only numbers are kept (its label, its features' values, a key of its text); the
texts of JSON Lines files stay on the disk until an example is asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.joint_sampling import chosen_features
from fit_jax.data.keyed_generator import generator
from fit_jax.data.lazy_examples import LazyExamples
from fit_jax.data.malformed import Malformed
from fit_jax.data.own_data import FeatureConfig, OwnData, check_description, read_description
from fit_jax.data.own_table import NONE, ParsedTable, Source, read_tables
from fit_jax.data.rho_sampling import Rows, SampledExamples, Value
from fit_jax.data.row_readers import hub_rows
from fit_jax.data.row_stores import DatasetStore, RowStore, open_store
from fit_jax.data.splits import Rho, Sizes, Split, build_splits
from fit_jax.data.task import Task
from fit_jax.data.text import insert_keyword
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious, TaskText
from fit_jax.foreign import shown


def build(config: TaskConfig, seed: int) -> Task:
    """The task that the YAML file `config.file` describes."""
    return build_own(*_opened(config), config, seed)


class RawTable(NamedTuple):
    """Rows as they came, as a task and as the table has them.

    Attributes:
        task: Its splits are `train` (the files) and, where there are test files, `test`; nothing is inserted and
            nothing left out.
        row: The row of the table that a training example, given by its number, was made from.
        described: Columns that are the input, the answers, or a feature.
    """

    task: Task
    row: Callable[[int], Mapping[str, Any]]
    described: frozenset[str]


def raw_table(config: TaskConfig) -> RawTable:
    """All rows of the described data: what an audit should look at."""
    own, store, test, folder = _opened(config)
    annotated = replace(own, features=tuple(feature for feature in own.features if not feature.insert))
    source = read_tables(annotated, store, test, config, folder)
    parts = {name: _Part(source, table, set(), held_out=False, seed=0) for name, table in source.tables.items()}
    splits = {name: part.whole(name) for name, part in parts.items()}
    task = Task(text=_text(annotated), splits=splits, notes=source.notes, dropped=source.dropped)
    columns = {*own.slots, own.label, own.candidates_column, own.uid}
    columns |= {column for feature in own.features for column in (feature.column, feature.label_column)}
    return RawTable(task, parts["train"].raw, frozenset(column for column in columns if column))


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
    own = _with_features(own, config)
    source = read_tables(own, store, test, config, folder)
    unseen = set(own.features[0].held_out)
    joint = len(config.features) > 1
    parts = {name: _Part(source, table, unseen, False, seed, joint) for name, table in source.tables.items()}
    if unseen:
        shifted = source.tables.get("test", source.tables["train"])
        parts["shifted"] = _Part(source, shifted, unseen, True, seed, joint)
    rows = {name: part.rows() for name, part in parts.items()}
    splits, more = build_splits(
        config, seed, _sizes(source), rows["train"], test=rows.get("test"), shifted=rows.get("shifted")
    )
    for name, split in splits.items() if not joint else ():
        origin = "train" if name in ("train", "validation") else "shifted" if name.startswith("shifted_") else "test"
        examples = split.examples
        assert isinstance(examples, SampledExamples)
        measured = parts.get(origin, parts["train"]).measure(examples.rows, own.features[1:])
        splits[name] = replace(split, rho={**split.rho, **measured})
    dropped = dict(source.dropped)
    for part in parts.values() if joint else ():
        for feature, count in part.lacking.items():
            dropped[f"no value of {feature}"] = dropped.get(f"no value of {feature}", 0) + count
    return Task(text=_text(own), splits=splits, notes=source.notes + more, dropped=dropped)


def _with_features(own: OwnData, config: TaskConfig) -> OwnData:
    """The description with the features of `task.features` alone."""
    named = chosen_features(config, [feature.key for feature in own.features], own.name)
    if not config.features:
        return own
    features = tuple(feature for feature in own.features if feature.key in named)
    for feature in features if len(features) > 1 else ():
        if feature.insert or feature.label_column:
            kind = "is inserted" if feature.insert else "has a `label_column`"
            raise InputError(
                f"task.features: {own.name}: feature {shown(feature.key)} {kind}, and cannot be drawn together with "
                "others; leave it out"
            )
    return replace(own, features=features)


def _opened(config: TaskConfig) -> tuple[OwnData, RowStore, RowStore | None, Path]:
    if not config.file:
        raise InputError("task jsonl: needs a description of your data; set task.file to its YAML file")
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


def _sizes(source: Source) -> Sizes:
    """The sizes asked where the config gives none: all there is, in the description's shares."""
    own, count = source.reader.own, len(source.tables["train"].number)
    validation = round(own.validation * count)
    if "test" in source.tables:
        return Sizes(count - validation, validation, len(source.tables["test"].number))
    held_back = round(own.test * count)
    return Sizes(count - validation - held_back, validation, held_back)


class _Part:
    """The rows of a table whose value of the first feature is held out, or is not.

    Attributes:
        lacking: Of features drawn together, how many of those rows have no value of one, and are left out.
    """

    def __init__(
        self, source: Source, table: ParsedTable, unseen: set[str], held_out: bool, seed: int, joint: bool = False
    ) -> None:
        self.lacking: dict[str, int] = {}
        self._joint = joint
        self._reader, self._table, self._ties = source.reader, table, source.ties
        own = source.reader.own
        first = own.features[0] if own.features else None
        self._names = [name for name in table.names[0] if (name in unseen) == held_out] if first else []
        inserted = first is not None and bool(first.insert)
        if first is None or inserted:
            self._chosen, self._value = np.arange(len(table.number)), None
        else:
            lookup = np.full(len(table.names[0]), NONE)
            lookup[[table.names[0][name] for name in self._names]] = np.arange(len(self._names))
            value = lookup[np.asarray(table.values[0])]
            self._chosen = np.flatnonzero(value != NONE)
            for feature, codes in zip(own.features[1:], table.values[1:]) if joint else ():
                has = np.asarray(codes)[self._chosen] != NONE
                self.lacking[feature.key] = int((~has).sum())
                self._chosen = self._chosen[has]
            self._value = value[self._chosen]
        if not len(self._chosen):
            kind = "held out" if held_out else "not held out"
            raise InputError(f"{own.name}: no row has a value of {own.features[0].key} that is {kind}")
        self._places = generator(seed, "own", "places").random(len(table.number) if inserted else 0)

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
        values = tuple(Value(first.key, name, tied[name]) for name in self._names)
        value = self._value
        if self._joint:
            values, value = self._combined(values)
        return Rows(
            outcomes=outcomes,
            outcome=outcome,
            key=np.asarray(table.key)[self._chosen],
            values=values,
            value=value,
            example=self._example,
            stored=False,
            joint=self._joint,
        )

    def _combined(self, values: tuple[Value, ...]) -> tuple[tuple[Value, ...], np.ndarray]:
        """The values of all features that these rows have, `values` being the first's; and each row's combination."""
        assert self._value is not None
        features = zip(self._reader.own.features[1:], self._table.names[1:], self._ties[1:])
        named = [values] + [tuple(Value(f.key, n, tie[n]) for n in names) for f, names, tie in features]
        codes = [self._value, *(np.asarray(codes)[self._chosen] for codes in self._table.values[1:])]
        kept, combination = [], np.zeros(len(self._chosen), int)
        for of_feature, code in zip(named, codes):
            present, at = np.unique(code, return_inverse=True)
            kept += [of_feature[v] for v in present]
            combination = combination * len(present) + at
        return tuple(kept), combination

    def whole(self, name: str) -> Split:
        """All rows in their order; the first feature must not be an inserted one."""
        every = np.arange(len(self._chosen))
        examples = LazyExamples(len(every), lambda numbers: [self._example(n, 0) for n in numbers])
        return Split(name, examples, self.measure(every, self._reader.own.features))

    def raw(self, number: int) -> Mapping[str, Any]:
        """A row as the table has it."""
        return self._table.store.row(self._table.number[int(self._chosen[number])])

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
