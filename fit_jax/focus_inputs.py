"""What a tuned model is asked from Python, checked before anything is computed; every error is one line."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fit_jax.errors import InputError
from fit_jax.evaluation.interactive import FocusQuestions
from fit_jax.focus.example import Turn
from fit_jax.foreign import quoted, shown

if TYPE_CHECKING:
    import pandas

    from fit_jax.data.task import Task

Features = str | Sequence[str] | None
Text = str | Mapping[str, str]


def option_list(*settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as the command line gives them, the last of each name; paths are texts.

    Raises:
        InputError: They are no mapping, one is a section, or a value is of a kind that no field has.
    """
    values: dict[str, Any] = {}
    for given in settings:
        if not (given is None or isinstance(given, Mapping)):
            raise InputError(f'settings: {shown(given)} is no mapping; give fields by name, as {{"train.steps": 100}}')
        values |= given or {}
    for name, value in values.items():
        if isinstance(value, Mapping) and "." not in name:
            raise InputError(f"settings: {name}: is a section; give its fields by dotted name, as in '{name}.field'")
    return [part for name, value in values.items() for part in (f"--{name}", _written(value))]


def _written(value: Any) -> str:
    try:
        return os.fspath(value) if isinstance(value, str | os.PathLike) else json.dumps(value, default=_plain)
    except (TypeError, ValueError) as error:
        raise InputError(f"settings: {shown(value)} is no value of a field; give text, numbers and lists") from error


def _plain(value: object) -> bool | int | float:
    """The Python value that a NumPy scalar is."""
    if isinstance(value, np.generic) and isinstance(plain := value.item(), bool | int | float):
        return plain
    raise TypeError


def feature_list(features: Any, name: str) -> str:
    """Features as `--focus` and `--ignore` take them; `name` is that of the argument."""
    if not (features is None or isinstance(features, str) or _are_texts(features)):
        raise InputError(f"{name}: {shown(features)} names no feature; give a name, or a list of names")
    return features if isinstance(features, str) else ",".join(features or ())


def questions_of(
    task: "Task",
    focus: Features,
    ignore: Features,
    candidates: Sequence[str],
    instruction: str | None,
    earlier: Sequence[Turn] = (),
) -> FocusQuestions:
    """What is asked about each text; the arguments are those of `FocusModel.ask`, the errors, too."""
    if not (instruction is None or isinstance(instruction, str)):
        raise InputError(f"instruction: {shown(instruction)} is no text; give the words of a focus instruction")
    focused, ignored = feature_list(focus, "focus"), feature_list(ignore, "ignore")
    return FocusQuestions(task, focused, ignored, answer_list(candidates), instruction, earlier)


def answer_list(candidates: Any) -> Sequence[str]:
    """The answers to choose from, which are a list and not one text."""
    if isinstance(candidates, str) or not _are_texts(candidates):
        raise InputError(f"candidates: {shown(candidates)} is no list of texts; give a list of answers")
    return list(candidates)


def _are_texts(values: Any) -> bool:
    return isinstance(values, Iterable) and all(isinstance(value, str) for value in values)


def filled(questions: FocusQuestions, text: object) -> dict[str, str]:
    """The input's texts by their slots."""
    if isinstance(text, str):
        return questions.fill(text)
    if not isinstance(text, Mapping):
        raise InputError(f"ask: {shown(text)} is no text; give a text, or each text of the input by its name")
    for name, value in text.items():
        if not isinstance(value, str):
            raise InputError(f"ask: {shown(name)}: {shown(value)} is no text; give a text")
    return questions.fill({str(name): value for name, value in text.items()})


def text_list(texts: object) -> list[Any]:
    """The texts of a batch, none of which is checked yet."""
    if hasattr(texts, "columns"):
        raise InputError("ask_batch: a table is no list of texts; ask_frame takes a pandas DataFrame")
    if isinstance(texts, str | Mapping):
        raise InputError(f"ask_batch: {shown(texts)} is one text; give a list of texts, or use ask")
    if not isinstance(texts, Iterable):
        raise InputError(f"ask_batch: {shown(texts)} is no list of texts; give one")
    return list(texts)


def frame_rows(frame: "pandas.DataFrame", slots: Sequence[str], candidates: Sequence[str]) -> list[dict[str, str]]:
    """The texts of each row of a table, to which answers are to be added.

    Args:
        frame: The table.
        slots: The columns with the texts.
        candidates: The answers to choose from.

    Raises:
        InputError: It is no table, or lacks a column, has one twice, or one that the answers would take the place of.
    """
    if not hasattr(frame, "assign"):
        raise InputError(f"ask_frame: a {type(frame).__name__} is no pandas DataFrame; ask_batch takes a list of texts")
    names = list(frame.columns)
    for name in slots:
        if name not in names:
            raise InputError(f"the table has no column {name!r}; its columns must include {', '.join(slots)}")
        if names.count(name) > 1:
            raise InputError(f"the table has {names.count(name)} columns {name!r}; rename all but one")
    for name in ("answer", *map(probability_column, candidates)):
        if name in names:
            remedy = f"rename it, as in frame.rename(columns={{{name!r}: 'own {name}'}})"
            if name in slots:
                remedy = f'use ask_batch(frame[{list(slots)}].to_dict("records"))'
            raise InputError(f"the table has a column {quoted(name)}, whose place the model's would take; {remedy}")
    rows = [dict(zip(slots, row)) for row in zip(*(frame[name] for name in slots))]
    for number, row in enumerate(rows):
        if empty := [name for name, value in row.items() if not isinstance(value, str)]:
            raise InputError(f"row {number} of the table holds no text in {empty[0]!r}; fill it, or drop the row")
    return rows


def probability_column(candidate: str) -> str:
    """The column with the probability of an answer."""
    return f"p({candidate})"
