"""The column of a table that is the label, and the answers that it gives."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fit_jax.data.association import bag_of_words, information
from fit_jax.data.column_names import listed
from fit_jax.data.columns import Column, Profile, is_missing
from fit_jax.data.spelling import WAYS, fold, near
from fit_jax.errors import InputError
from fit_jax.foreign import is_text, quoted, shown
from fit_jax.options import nearest

_NAMES = ("label", "labels", "gold_label", "target", "class", "y", "category", "sentiment", "answer", "outcome")
# Rows that compare columns as labels; rows of the rarest answer, as a number and as a share; most answers.
_COMPARED, _FEWEST_ROWS, _FEWEST_SHARE, _MOST_ANSWERS = 3000, 5, 0.005, 20


class Spelled(NamedTuple):
    """The values of a category, each in one spelling.

    Attributes:
        rows: By value, most frequent first.
        ways: Those of `WAYS` by which the other spellings are the same.
    """

    rows: dict[str, int]
    ways: frozenset[str]


class Labelled(NamedTuple):
    """The sampled rows that have a label.

    Attributes:
        rows: The rows.
        texts: The texts of each, joined.
        y: (N,) the number of each row's answer.
        answers: The answers.
    """

    rows: list[Mapping[str, Any]]
    texts: list[str]
    y: np.ndarray
    answers: list[str]


def choose_label(table: Profile, texts: Sequence[str], asked: str | None) -> tuple[str, Spelled, str]:
    """The column with the label, its answers, and why it was chosen.

    Args:
        table: The table.
        texts: The columns that a model reads.
        asked: The column that is to be the label; None takes the one that the texts predict best, or that has a label's
            name.

    Raises:
        InputError: There is none, or the one asked for cannot be it.
    """
    if asked is not None and asked not in table.columns:
        raise InputError(f"--label {shown(asked)}: there is no such column; {nearest(asked, table.columns)}")
    options = {}
    for column in table.columns.values():
        answers = _answers(column, table.rows)
        usable = column.name and is_text(column.name)  # a description cannot name it otherwise
        if column.name not in texts and usable and 2 <= len(answers.rows) <= _MOST_ANSWERS:
            options[column.name] = answers
    if asked is not None and asked not in options:
        raise InputError(f"--label {shown(asked)}: has no 2 to {_MOST_ANSWERS} answers of enough rows; name another")
    if not options:
        raise InputError(f"no column has 2 to {_MOST_ANSWERS} answers that could be a label; add a column of labels")
    if asked is not None:
        return asked, options[asked], f"{asked}: as --label asked"
    predicted = {name: _predicted_by_words(table, texts, name, answers) for name, answers in options.items()}
    named = {name: _is_label_name(name) for name in options}
    best = max(options, key=lambda name: (named[name] + predicted[name], name == list(table.columns)[-1]))
    reason = f"{best}: the words of the texts tell {predicted[best]:.0%} of it"
    reason += ", and its name is that of a label" if named[best] == 1 else ""
    others = [f"{name} ({predicted[name]:.0%})" for name in options if name != best]
    reason += f". Others that could be the label: {listed(others)}" if others else ""
    if lost := [n for n in table.columns if _is_label_name(n) == 1 and n not in (*options, *texts)]:
        reason += f". No label, for want of 2 to {_MOST_ANSWERS} answers of enough rows: {listed(lost)}"
    return best, options[best], reason


def _is_label_name(name: str) -> float:
    plain = name.strip().casefold()
    return 1.0 if plain in _NAMES else 0.5 if "label" in plain or "class" in plain else 0.0


def _predicted_by_words(table: Profile, texts: Sequence[str], name: str, answers: Spelled) -> float:
    """The share of a column's entropy that the words of the texts tell."""
    few = table._replace(sample=table.sample[:_COMPARED])
    _, joined, y, _ = labelled_rows(few, name, answers, texts)
    entropy = information(y, y)
    return max(information(bag_of_words(joined, y), y), 0.0) / entropy if entropy else 0.0


def spelled_values(counts: Mapping[str, int]) -> Spelled:
    """Values in one spelling, which is the most frequent one without outer white space."""
    groups: dict[str, Counter[str]] = {}
    for value, rows in counts.items():
        if is_text(value) and "\ufffd" not in value and not is_missing(value):
            groups.setdefault(fold(value, WAYS), Counter())[value] += rows
    rows, ways = {}, set()
    for group in sorted(groups.values(), key=lambda group: -group.total()):
        spelling = fold(group.most_common(1)[0][0], ("trim",))
        rows[spelling] = group.total()
        ways |= {
            way for value in group if value != spelling and (same := near(value, (spelling,))) for way in same.ways
        }
    return Spelled(rows, frozenset(ways))


def _answers(column: Column, total: int) -> Spelled:
    """The answers that a column could give as a label, in alphabetical order: those of enough rows."""
    if column.kind not in ("category", "many values"):
        return Spelled({}, frozenset())
    spelled = spelled_values(column.counts)
    fewest = max(_FEWEST_ROWS, _FEWEST_SHARE * total)
    return Spelled({value: n for value, n in sorted(spelled.rows.items()) if n >= fewest}, spelled.ways)


def labelled_rows(table: Profile, label: str, answers: Spelled, texts: Sequence[str]) -> Labelled:
    """The sampled rows that have one of the answers."""
    numbers = {fold(answer, WAYS): n for n, answer in enumerate(answers.rows)}
    found = [(row, numbers.get(fold(str(row.get(label)), WAYS))) for row in table.sample]
    kept = [(row, y) for row, y in found if y is not None]
    joined = [" ".join(str(row.get(column) or "") for column in texts) for row, _ in kept]
    return Labelled([row for row, _ in kept], joined, np.array([y for _, y in kept], int), list(answers.rows))


def why_answers(column: Column, answers: Spelled) -> str:
    """How many rows have each answer, and which values are none."""
    numbers = ", ".join(f"{shown(answer)} {n}" for answer, n in answers.rows.items())
    every = spelled_values(column.counts)
    left = {value: n for value, n in every.rows.items() if value not in answers.rows}
    typos = [f"{quoted(v)} ({n}{_meant(v, answers)})" for v, n in left.items()]
    return f"rows of each: {numbers}" + (f". Too rare to be answers: {listed(typos)}" if typos else "")


def _meant(value: str, answers: Spelled) -> str:
    found = near(value, tuple(answers.rows))
    return f", perhaps {shown(found.known)}" if found else ""
