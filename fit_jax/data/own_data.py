"""The description of the user's own data: where rows lie, what their columns mean, and which features are suspected."""

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from fit_jax.config_files import read_config
from fit_jax.data.row_readers import NO_TEXT, Malformed, some_of
from fit_jax.errors import InputError
from fit_jax.foreign import check_regular, is_text, parse_json, quoted, shown

# A feature without a label column ties no label to a row.
_NO_LABEL = -1
# Answers of a row; their numbers are kept in 16 bits.
_MOST_ANSWERS = 2**15 - 1
# A feature's value in a row, or None where the row has none.
ValueOf = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """A suspected shortcut. Exactly one of column, keywords, function and insert says what its value is."""

    # Short name, as in `--focus`.
    key: str
    # What an instruction calls it, such as "the sender"; null means the key.
    name: str | None = None
    # What else it may be called; such names are tried at evaluation, in far paraphrases, and never trained with.
    other_names: tuple[str, ...] = ()
    # The value is what stands in this column.
    column: str | None = None
    # The value is the first of these words that the text holds.
    keywords: tuple[str, ...] = ()
    # The value is what this Python function of a row returns: `package.module:name` or `file.py:name`.
    function: str | None = None
    # The value is one of these words, inserted into the first text slot; for the first feature only.
    insert: tuple[str, ...] = ()
    # The label tied to each value; values not named here are tied to the label they are most over-represented with.
    labels: dict[str, str] = field(default_factory=dict)
    # The label tied to the value stands in this column, row by row (multiple choice).
    label_column: str | None = None
    # Values kept out of training, for the shifted splits; of the first feature only, and not inserted.
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """A data set of one's own."""

    # Name shown in reports.
    name: str
    # Files of rows, relative to the description: one format of .jsonl, .csv, .tsv and .parquet.
    files: tuple[str, ...] = ()
    # Files of test rows; without them test rows are held back from `files`.
    test_files: tuple[str, ...] = ()
    # Hub data set to read in place of files, and the split of it.
    hub: str | None = None
    hub_split: str = "train"
    # The task instruction: what the model is to do.
    instruction: str
    # The input as a template over columns, such as "Review: {text}".
    input: str
    # Ends the prompt where the tokenizer has no chat template.
    cue: str = "Answer:"
    # What an instruction calls the feature that ought to decide, such as "the content".
    core: str
    # What else it may be called, as with a feature.
    core_other_names: tuple[str, ...] = ()
    # Column with the true label: an answer's text, or its number counted from 0.
    label: str = "label"
    # The answers, where every row has the same.
    candidates: tuple[str, ...] = ()
    # Column with the list of a row's answers (multiple choice).
    candidates_column: str | None = None
    # Column with a unique name of the row; null means its place in the file.
    uid: str | None = None
    # Columns to break results down by.
    slices: tuple[str, ...] = ()
    # Column that tells which rows hang together (a template, a shared text), for intervals; null: every row by itself.
    cluster: str | None = None
    # Suspected features. rho is set for the first; the others are measured as they come.
    features: tuple[FeatureConfig, ...] = ()
    # Shares of the rows held back for validation and, without `test_files`, for testing.
    validation: float = 0.1
    test: float = 0.1

    @property
    def slots(self) -> tuple[str, ...]:
        """Columns that the input template uses."""
        return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.input) if name))


def read_description(path: Path) -> OwnData:
    """Reads and checks a description.

    Raises:
        InputError: It cannot be read, or does not fit together.
    """
    own = read_config(OwnData, path)
    check_description(own, str(path))
    return own


def check_description(own: OwnData, where: str) -> None:
    """Raises `InputError` where a description contradicts itself or leaves something open."""

    def demand(held: bool, problem: str) -> None:
        if not held:
            raise InputError(f"{where}: {problem}")

    try:
        plain = all(not form and not conversion for _, _, form, conversion in Formatter().parse(own.input))
    except ValueError as error:
        raise InputError(
            f"{where}: input {own.input!r} is no template ({error}); double a brace that is text"
        ) from error
    named = all(name != "" for _, name, _, _ in Formatter().parse(own.input))
    demand(named, f"input {own.input!r}: {{}} names no column; write one in it, or {{{{}}}} where braces are text")
    demand(plain, f"input {own.input!r}: a column in braces takes no format; write it alone, as in 'Review: {{text}}'")
    simple = all(re.fullmatch(r"[^.\[\]]+", name) for name in own.slots)
    demand(simple, f"input {own.input!r}: a column's name in braces holds no . [ or ]; rename the column")
    demand(bool(own.slots), f"input {own.input!r} uses no column; write one in braces, such as 'Review: {{text}}'")
    demand(bool(own.candidates) != bool(own.candidates_column), "give either `candidates` or `candidates_column`")
    demand(len(set(own.candidates)) == len(own.candidates) != 1, "`candidates` needs two different answers or more")
    demand(all(answer.strip() for answer in own.candidates), "`candidates` holds an empty answer")
    demand(
        len(own.candidates) <= _MOST_ANSWERS, f"`candidates` holds more than {_MOST_ANSWERS} answers; leave some out"
    )
    demand(bool(own.features), "`features` is empty; name at least one suspected feature")
    demand(0 < own.validation < 1 and 0 < own.test < 1, "`validation` and `test` are shares between 0 and 1")
    keys = [feature.key for feature in own.features]
    demand(len(set(keys)) == len(keys) and "core" not in keys, "feature keys must differ from each other and from core")
    demand(all(re.fullmatch(r"[^()&∧,]+", key) for key in keys), "feature keys are names without ( ) & ∧ and commas")
    for number, feature in enumerate(own.features):
        _check_feature(own, feature, first=not number, where=f"{where}: feature {feature.key}")


def _check_feature(own: OwnData, feature: FeatureConfig, first: bool, where: str) -> None:
    given = [feature.column, feature.function, feature.keywords, feature.insert]
    unknown = [label for label in feature.labels.values() if own.candidates and label not in own.candidates]
    untied = [word for word in feature.insert if word not in feature.labels]
    problem = None
    if sum(map(bool, given)) != 1:
        problem = "give exactly one of `column`, `keywords`, `function` and `insert`"
    elif not all(word.strip() for word in (*feature.keywords, *feature.insert)):
        problem = "`keywords` and `insert` hold words, none of them empty"
    elif twice := _alike(feature.keywords):
        problem = (
            f"`keywords` holds {shown(twice[0])!r} and {shown(twice[1])!r}, which differ in case alone; leave one out"
        )
    elif len(set(feature.insert)) < len(feature.insert):
        problem = "`insert` holds a word twice"
    elif feature.insert and not first:
        problem = "only the first feature can be inserted"
    elif feature.held_out and (feature.insert or not first):
        problem = "only a first feature that is not inserted can have `held_out` values"
    elif own.candidates_column and not feature.label_column:
        problem = "each row has answers of its own, so name the `label_column` that holds the feature's label"
    elif unknown:
        problem = f"label {unknown[0]!r} is none of the candidates"
    elif untied:
        problem = f"`labels` ties no label to the inserted word {untied[0]!r}"
    if problem:
        raise InputError(f"{where}: {problem}")


def _alike(words: Sequence[str]) -> tuple[str, str] | None:
    """Two of the words that a search without regard to case takes for one, such as `ſ` and `S`."""
    seen: dict[str, str] = {}
    for word in words:
        folds = [letter.casefold() for letter in word]
        folded = "".join(fold if len(fold) == 1 else letter.lower() for fold, letter in zip(folds, word))
        if (other := seen.setdefault(folded, word)) is not word:
            return other, word
    return None


def value_of(feature: FeatureConfig, slots: tuple[str, ...], folder: Path) -> ValueOf:
    """The function that finds a feature's value in a row; `folder` is where a `file.py` is looked for.

    Raises:
        InputError: The Python function cannot be found.
    """
    if feature.column:
        column = feature.column
        return lambda row: None if row.get(column) in (None, "") else str(row[column])
    if feature.keywords:
        words = feature.keywords
        # A group for each, so that the one found is known whatever the case folds to.
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(f'({re.escape(word)})' for word in words)})(?!\w)", re.IGNORECASE)

        def keyword(row: Mapping[str, Any]) -> str | None:
            found = pattern.search(" ".join(str(row.get(slot, "")) for slot in slots))
            return words[found.lastindex - 1] if found and found.lastindex else None

        return keyword
    assert feature.function
    return _function(feature, folder)


def _function(feature: FeatureConfig, folder: Path) -> ValueOf:
    place, _, name = str(feature.function).partition(":")
    here = f"feature {feature.key}: function {shown(feature.function)!r}"
    try:
        with _staying():
            if place.endswith(".py"):
                check_regular(folder / place, "name a file with the function")
                spec = importlib.util.spec_from_file_location(f"own_data_{feature.key}", folder / place)
                assert spec is not None, "a name in .py"
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
            else:
                module = importlib.import_module(place)
        function = getattr(module, name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's module does what it likes
        raise InputError(
            f"{here} cannot be loaded ({_reason(error)}); "
            "write package.module:name, or file.py:name relative to the description"
        ) from error

    def value(row: Mapping[str, Any]) -> str | None:
        try:
            with _staying():
                found = function(dict(row))  # which it may change
                return None if found is None else str(found)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise InputError(f"{here} failed ({_reason(error)}) on the row {shown(row)}; mend the function") from error

    return value


class _Left(BaseException):
    """The user's function tried to end the process."""


@contextmanager
def _staying() -> Iterator[None]:
    """Keeps `os._exit`, which ends the process without a word, from the user's function."""

    def refuse(status: int) -> None:
        raise _Left(f"os._exit({status}) was called")

    kept, os._exit = os._exit, refuse  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        os._exit = kept


def _reason(error: BaseException) -> str:
    return shown(" ".join(f"{type(error).__name__}: {error}".split()))


class ParsedRow(NamedTuple):
    """What one row says. `values` and `tied` go by feature; `tied` is the label column's, where there is one."""

    uid: str | None
    slots: dict[str, str]
    candidates: tuple[str, ...]
    label: int
    values: tuple[str | None, ...]
    tied: tuple[int, ...]


class OwnReader:
    """Understands rows as the description says."""

    def __init__(self, own: OwnData, folder: Path) -> None:
        self.own = own
        annotated = [None if feature.insert else value_of(feature, own.slots, folder) for feature in own.features]
        self._finders: list[ValueOf | None] = annotated

    def parse(self, row: Mapping[str, Any], where: str, bad: Malformed) -> ParsedRow | None:
        """The row, or None, counted as malformed."""
        own = self.own
        texts = {slot: bad.text(row, slot, where) for slot in own.slots}
        slots = {slot: text for slot, text in texts.items() if text is not None}
        if len(slots) < len(texts):
            return None
        candidates = own.candidates or _answers(row.get(own.candidates_column or ""))
        if len(set(candidates)) < 2 or len(set(candidates)) < len(candidates):
            bad.add(where, f"column {own.candidates_column!r} holds no list of two or more different answers")
            return None
        if len(candidates) > _MOST_ANSWERS:
            bad.add(where, f"column {own.candidates_column!r} holds more than {_MOST_ANSWERS} answers")
            return None
        labels: list[int] = []
        for column in (own.label, *(feature.label_column for feature in own.features)):
            if not column:
                labels.append(_NO_LABEL)
            elif (label := _label(row.get(column), candidates)) is not None:
                labels.append(label)
            else:
                bad.add(where, f"{column} {quoted(row.get(column))} is none of {some_of(candidates)}")
                return None
        named = {"slices": own.slices, "cluster": (own.cluster,) if own.cluster else ()}
        absent = [(column, by) for by, columns in named.items() for column in columns if column not in row]
        if absent:
            column, by = absent[0]
            bad.add(where, f"no field {column!r}, which `{by}` names")
            return None
        uid = None if own.uid is None else row.get(own.uid)
        if own.uid and uid in (None, ""):
            bad.add(where, f"no uid in field {own.uid!r}")
            return None
        values = tuple(finder and finder(row) for finder in self._finders)
        texts = (str(uid), *candidates, *values, *(str(row[column]) for column in own.slices))
        if not all(text is None or is_text(text) for text in texts):
            bad.add(where, f"its uid, answers, feature values or slices hold {NO_TEXT}")
            return None
        return ParsedRow(None if uid is None else str(uid), slots, candidates, labels[0], values, tuple(labels[1:]))


def _answers(value: Any) -> tuple[str, ...]:
    """A row's answers: a list, or a text that is a JSON list."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            return ()
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _label(value: Any, candidates: Sequence[str]) -> int | None:
    """The position of an answer given by its text or by its number."""
    if str(value) in candidates:
        return candidates.index(str(value))
    number = isinstance(value, int) and not isinstance(value, bool)
    return value if number and 0 <= value < len(candidates) else None
