"""The description of the user's own data: where rows lie, what their columns mean, and which features are suspected."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Literal

from fit_jax.config import TaskConfig
from fit_jax.config_files import read_config
from fit_jax.data.malformed import none_of
from fit_jax.data.row_stores import FORMATS
from fit_jax.data.spelling import WAYS, fold
from fit_jax.errors import InputError
from fit_jax.foreign import named, printable, quoted, shown

# Answers of a row; their numbers are kept in 16 bits.
MOST_ANSWERS = 2**15 - 1


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
    # The only values that count, of a column or a function: rows with others are as rows without a value. Empty: all.
    values: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """Values that the description names."""
        return tuple(dict.fromkeys((*self.labels, *self.held_out, *self.values)))


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """A data set of one's own."""

    # Name shown in reports.
    name: str
    # Files of rows, relative to the description: one format of .jsonl, .csv, .tsv and .parquet.
    files: tuple[str, ...] = ()
    # Files of test rows; without them test rows are held back from `files`.
    test_files: tuple[str, ...] = ()
    # Hub data set to read in place of files.
    hub: str | None = None
    # The split of the hub data set that is read.
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
    # Answers and values of features are the same that differ in outer white space alone.
    trim: bool = False
    # Answers and values of features are the same that differ in case alone.
    ignore_case: bool = False
    # Answers and values of features are the same that differ in Unicode form alone (NFKC): composed or decomposed
    # accents, full-width letters.
    ignore_form: bool = False
    # What to do with a malformed row of this data: `error`, which lists them all in NAME.malformed.jsonl beside the
    # description NAME.yaml, or `skip`; null leaves it to `task.malformed`.
    malformed: Literal["error", "skip"] | None = None
    # Column with a unique name of the row; null means its place in the file.
    uid: str | None = None
    # Columns to break results down by.
    slices: tuple[str, ...] = ()
    # Column that tells which rows hang together (a template, a shared text), for intervals; null: every row by itself.
    cluster: str | None = None
    # Suspected features. rho is set for the first, and the others are measured as they come, unless `task.features`
    # draws several together.
    features: tuple[FeatureConfig, ...] = ()
    # Share of the rows held back for validation.
    validation: float = 0.1
    # Share of the rows held back for testing, where there are no `test_files`.
    test: float = 0.1

    @property
    def slots(self) -> tuple[str, ...]:
        """Columns that the input template uses."""
        return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.input) if name))

    @property
    def ways(self) -> tuple[str, ...]:
        """The `fit_jax.data.spelling.WAYS` by which answers and values are the same."""
        return tuple(way for way in WAYS if getattr(self, way))


def read_description(path: Path) -> OwnData:
    """Reads and checks a description.

    Raises:
        InputError: It cannot be read, is a table, or does not fit together.
    """
    if path.suffix.lower() in FORMATS:
        remedy = f"name its description, as python -m fit_jax.data describe {printable(str(path))} writes one"
        raise InputError(f"{named(path)}: is a table and no description; {remedy}")
    own = read_config(OwnData, path)
    check_description(own, named(path))
    return own


def functions_of(task: TaskConfig) -> tuple[str, ...]:
    """The Python functions that run when a task's rows are read; none but where a description names some.

    Raises:
        InputError: As `read_description`.
    """
    if task.name != "jsonl" or task.source == "array_record" or not task.file:
        return ()
    return tuple(feature.function for feature in read_description(Path(task.file)).features if feature.function)


def check_description(own: OwnData, where: str) -> None:
    """Raises `InputError` where a description contradicts itself or leaves something open."""

    def demand(held: bool, problem: str) -> None:
        if not held:
            raise InputError(f"{where}: {problem}")

    try:
        plain = all(not form and not conversion for _, _, form, conversion in Formatter().parse(own.input))
    except ValueError as error:
        raise InputError(
            f"{where}: input {quoted(own.input)} is no template ({error}); double a brace that is text"
        ) from error
    of_columns = all(name != "" for _, name, _, _ in Formatter().parse(own.input))
    demand(
        of_columns,
        f"input {quoted(own.input)}: {{}} names no column; write one in it, or {{{{}}}} where braces are text",
    )
    demand(
        plain,
        f"input {quoted(own.input)}: a column in braces takes no format; write it alone, as in 'Review: {{text}}'",
    )
    simple = all(re.fullmatch(r"[^.\[\]]+", name) for name in own.slots)
    demand(simple, f"input {quoted(own.input)}: a column's name in braces holds no . [ or ]; rename the column")
    demand(
        bool(own.slots), f"input {quoted(own.input)} uses no column; write one in braces, such as 'Review: {{text}}'"
    )
    demand(bool(own.candidates) != bool(own.candidates_column), "give either `candidates` or `candidates_column`")
    demand(len(set(own.candidates)) == len(own.candidates) != 1, "`candidates` needs two different answers or more")
    demand(all(answer.strip() for answer in own.candidates), "`candidates` holds an empty answer")
    demand(len(own.candidates) <= MOST_ANSWERS, f"`candidates` holds more than {MOST_ANSWERS} answers; leave some out")
    twice = _same(own.candidates, own.ways)
    demand(not twice, f"`candidates` holds {' and '.join(map(quoted, twice))}, the same by {' and '.join(own.ways)}")
    demand(bool(own.features), "`features` is empty; name at least one suspected feature")
    demand(0 < own.validation < 1 and 0 < own.test < 1, "`validation` and `test` are shares between 0 and 1")
    keys = [feature.key for feature in own.features]
    demand(len(set(keys)) == len(keys) and "core" not in keys, "feature keys must differ from each other and from core")
    demand(all(re.fullmatch(r"[^()&∧,]+", key) for key in keys), "feature keys are names without ( ) & ∧ and commas")
    for number, feature in enumerate(own.features):
        _check_feature(own, feature, first=not number, where=f"{where}: feature {shown(feature.key[:24])}")


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
    elif twins := _same(feature.named, own.ways):
        problem = f"names the values {' and '.join(map(quoted, twins))}, the same by {' and '.join(own.ways)}"
    elif feature.values and not (feature.column or feature.function):
        problem = "`values` chooses among those of a column or a function; leave it out"
    elif feature.values and not {*feature.labels, *feature.held_out} <= {*feature.values}:
        problem = "`labels` and `held_out` name a value that is not among `values`; add it there"
    elif len(set(feature.insert)) < len(feature.insert):
        problem = "`insert` holds a word twice"
    elif feature.insert and not first:
        problem = "only the first feature can be inserted"
    elif feature.held_out and (feature.insert or not first):
        problem = "only a first feature that is not inserted can have `held_out` values"
    elif own.candidates_column and not feature.label_column:
        problem = "each row has answers of its own, so name the `label_column` that holds the feature's label"
    elif unknown:
        problem = none_of("label", unknown[0], own.candidates) + "; change `labels` or `candidates`"
    elif untied:
        problem = f"`labels` ties no label to the inserted word {quoted(untied[0])}"
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


def _same(values: Sequence[str], ways: Sequence[str]) -> tuple[str, ...]:
    """Two of the values that are the same by these ways; empty where none are."""
    seen: dict[str, str] = {}
    for value in values:
        if (other := seen.setdefault(fold(value, ways), value)) is not value:
            return other, value
    return ()
