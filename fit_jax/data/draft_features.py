"""The columns of a table that may be shortcuts, ranked by what they tell about the label, as features."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.association import Evidence, bag_of_words, evidence, information, quarters
from fit_jax.data.column_names import can_be_slot, listed, plain_words, slot
from fit_jax.data.columns import Column, column_codes
from fit_jax.data.draft_label import Labelled, spelled_values
from fit_jax.data.label_words import telling_words
from fit_jax.data.own_data import FeatureConfig, OwnData
from fit_jax.data.own_rows import OwnReader
from fit_jax.data.row_stores import DatasetStore
from fit_jax.data.spelling import WAYS, fold
from fit_jax.data.tasks.jsonl import build_own
from fit_jax.data.visibility import LOOKED_AT, unseen
from fit_jax.errors import InputError
from fit_jax.foreign import is_text

# Rows of a feature's value with the tied label, and without it, that are tried.
_ENOUGH = (30, 10)
_MOST_FEATURES, _MOST_WORDS = 3, 5
# Shares of the rows to hold back for testing that are tried where the usual one is too few for any column.
_TEST_SHARES = (0.2, 0.3, 0.4)
# A column that tells this share of the label's entropy is the label in other words.
_SAME = 0.95
_INSERTED = ("Lynx", "Otter", "Heron", "Bison", "Tundra", "Marlin")


class Shortcut(NamedTuple):
    """A column that may be a feature: what it tells, and the feature; None with the reason where it cannot be one."""

    found: Evidence
    feature: FeatureConfig | None
    why: str


def property_evidence(labelled: Labelled, columns: Mapping[str, Column], used: Sequence[str]) -> list[Evidence]:
    """What columns, the length of the texts, all words and the most telling ones say about the label.

    Args:
        labelled: Rows to look at.
        columns: All columns.
        used: Those that are text or label.
    """
    rows, texts, y, answers = labelled
    words = bag_of_words(texts, y)
    properties = {"all words together": words, "length of the texts": quarters([len(text.split()) for text in texts])}
    for column in columns.values():
        if column.name not in used:
            found = column_codes(column.kind, [row.get(column.name) for row in rows])
            if found is not None:
                properties[f"column {column.name}"] = found
    words_found, _, _ = telling_words("", zip(texts, (answers[n] for n in y)), ())
    for row in sorted(words_found, key=lambda row: (-row.z, row.token))[:_MOST_WORDS]:
        holds = re.compile(rf"(?<!\w){re.escape(row.token)}(?!\w)", re.IGNORECASE)
        properties[f"word {row.token}"] = np.array([holds.search(text) is not None for text in texts], int)
    return evidence(properties, y, words)


def find_shortcuts(labelled: Labelled, columns: Mapping[str, Column], found: Sequence[Evidence]) -> list[Shortcut]:
    """The columns that tell the label, strongest first, each as a feature where it can be one."""
    y = labelled.y
    entropy, shortcuts, keys = information(y, y), [], set()
    for row in found:
        column = columns.get(row.name.removeprefix("column "))
        if column is None or not row.name.startswith("column "):
            continue
        measured = f"{row.bits:.3f} bits about the label, {row.chance:.3f} by chance, "
        measured += f"{row.beyond_words:.3f} beyond the words"
        key = re.sub(r"[()&∧,\s]+", "_", column.name).strip("_")
        if column.kind != "category":
            holds = column.kind.removesuffix("s") + "s"
            reason = f"holds {holds}: write a `function` that makes a few values of them"
        elif row.bits >= _SAME * entropy:
            reason = "says the same as the label, so there is nothing to tell apart"
        elif not is_text(column.name) or not key or key == "core" or key in keys:
            reason = "its name is none that an instruction could use: rename the column"
        else:
            keys.add(key)
            ties = _ties(column, labelled)
            feature = FeatureConfig(key=key, name=f"the {plain_words(column.name)}", column=column.name, labels=ties)
            shortcuts.append(Shortcut(row, feature, measured))
            continue
        shortcuts.append(Shortcut(row, None, f"{measured}; {reason}"))
    return shortcuts


def _rows_by_label(column: Column, labelled: Labelled) -> dict[str, np.ndarray]:
    """(L,) rows by label, for each value of a category."""
    values = spelled_values(column.counts).rows
    table = {fold(value, WAYS): np.zeros(len(labelled.answers), int) for value in values}
    for row, label in zip(labelled.rows, labelled.y):
        counts = table.get(fold(str(row.get(column.name)), WAYS))
        if counts is not None:
            counts[label] += 1
    return {value: table[fold(value, WAYS)] for value in values}


def _ties(column: Column, labelled: Labelled) -> dict[str, str]:
    """The answer with which each value is most over-represented."""
    every = np.maximum(np.bincount(labelled.y, minlength=len(labelled.answers)), 1)
    tables = _rows_by_label(column, labelled)
    return {value: labelled.answers[int(np.argmax(rows / every))] for value, rows in tables.items()}


def with_features(
    base: OwnData,
    ways: frozenset[str],
    shortcuts: Sequence[Shortcut],
    labelled: Labelled,
    columns: Mapping[str, Column],
    total: int,
) -> tuple[OwnData, dict[str, str], list[Shortcut]]:
    """The description with its features: the strongest of which splits can be drawn comes first.

    Args:
        base: The description without features.
        ways: By which the spellings of the label are the same.
        shortcuts: What may be features.
        labelled: Rows to try splits on.
        columns: All columns.
        total: Rows of the table.

    Returns:
        The description, the reason of each choice, and the shortcuts that are not used.

    Raises:
        InputError: No splits can be drawn from the rows, whatever the feature.
    """
    telling = [(s, share) for share in (base.test, *_TEST_SHARES) for s in shortcuts if s.found.passes]
    for first, share in telling + [(s, base.test) for s in shortcuts if not s.found.passes]:
        if first.feature is None:
            continue
        tables = _rows_by_label(columns[str(first.feature.column)], labelled)
        for enough in _ENOUGH:
            kept = [v for v, rows in tables.items() if _is_balanced(rows, base, first.feature.labels[v], enough)]
            if len(kept) < 2:
                continue
            values = tuple(kept) if len(kept) < len(tables) else ()
            feature = replace(first.feature, labels={v: first.feature.labels[v] for v in kept}, values=values)
            full = [s for s in shortcuts if s.feature and columns[str(s.feature.column)].filled == total]
            others = [s for s in full if s is not first and s.found.passes][: _MOST_FEATURES - 1]
            own = replace(base, test=share, features=(feature, *(s.feature for s in others if s.feature)))
            own = _seen(_spelt(own, ways, columns), labelled.rows)
            if _can_be_drawn(own, labelled.rows):
                why = {f"feature {s.feature.key}": s.why for s in (first, *others) if s.feature}
                if not first.found.passes:
                    why[f"feature {feature.key}"] += "; no more than chance, for want of one that tells more"
                if values:
                    left = listed(f"{value} ({rows.sum()})" for value, rows in tables.items() if value not in kept)
                    why["values"] = f"without those of too few rows to be balanced: {left}"
                if share != base.test:
                    why["test"] = (
                        f"share of the rows held back for testing: of {base.test:.0%} no test split could be drawn in "
                        f"which {feature.name} goes with the other labels"
                    )
                unused = [s for s in shortcuts if s is not first and s not in others]
                return own, why, [_with_reason(s, own, labelled, columns, total) for s in unused]
    words = [word for word in _INSERTED if not any(word.casefold() in text.casefold() for text in labelled.texts)][:2]
    frequent = [labelled.answers[n] for n, _ in Counter(labelled.y.tolist()).most_common(2)]
    ties = dict(zip(words, frequent))
    feature = FeatureConfig(key="word", name="the inserted word", insert=tuple(words), labels=ties)
    own = _spelt(replace(base, features=(feature,)), ways, columns)
    if len(words) < 2 or not _can_be_drawn(own, labelled.rows):
        count, texts = len(labelled.rows), len(set(labelled.texts))
        few = f", which hold only {texts} different texts (one text stands in one split)" if texts < count else ""
        more = "rows of other texts" if few else "more rows"
        raise InputError(f"no splits can be drawn from the {count} rows with an answer{few}; give {more}")
    why = "no column can be balanced against the label, so a word is put into the text as a shortcut to be measured"
    return own, {"feature word": why}, [_with_reason(s, own, labelled, columns, total) for s in shortcuts]


def _with_reason(
    shortcut: Shortcut, own: OwnData, labelled: Labelled, columns: Mapping[str, Column], total: int
) -> Shortcut:
    """A shortcut that the description does not use, with what kept it from being the feature that it could be."""
    if shortcut.feature is None:  # the reason is given already
        return shortcut
    column, fewest, short = columns[str(shortcut.feature.column)], min(_ENOUGH), []
    for value, rows in _rows_by_label(column, labelled).items():
        tied = shortcut.feature.labels[value]
        if not _is_balanced(rows, own, tied, fewest):
            short.append(f"{value} ({rows[own.candidates.index(tied)]} of {rows.sum()} rows {tied})")
    first = bool(own.features[0].insert)  # for want of one that could be the first
    if first and len(shortcut.feature.labels) - len(short) < 2:
        reason = (
            f"no two values can be balanced, which takes {fewest} rows with the label that the value goes with and "
            f"{fewest} with others: {listed(short)}"
        )
    elif not shortcut.found.passes:
        reason = "no more than chance"
    elif first:
        reason = "no splits can be drawn by it"
    elif column.filled < total:
        reason = f"empty in {total - column.filled} rows, which only the first feature may be"
    else:
        reason = f"there are {len(own.features)} features already"
    return shortcut._replace(why=f"{shortcut.why}; {reason}")


def _is_balanced(rows: np.ndarray, own: OwnData, tied: str, enough: int) -> bool:
    """Whether a value has rows both with the label that it is tied to and with others."""
    return enough <= rows[own.candidates.index(tied)] <= rows.sum() - enough


def _spelt(own: OwnData, ways: frozenset[str], columns: Mapping[str, Column]) -> OwnData:
    """The description with the fields by which the spellings of its labels and values are the same."""
    needed = ways.union(*(spelled_values(columns[f.column].counts).ways for f in own.features if f.column))
    return replace(own, **{way: way in needed for way in WAYS})


def _seen(own: OwnData, rows: Sequence[Mapping[str, object]]) -> OwnData:
    """The description whose input shows the columns that a model would otherwise not see."""
    for feature in own.features:
        alone = replace(own, features=(feature,))
        column = str(feature.column)
        if can_be_slot(column) and unseen(OwnReader(alone, Path()), rows[:LOOKED_AT]):
            own = replace(own, input=f"{slot(column)}\n{own.input}")
    return own


def _can_be_drawn(own: OwnData, rows: Sequence[Mapping[str, object]]) -> bool:
    config = TaskConfig(name="jsonl", malformed="skip")
    try:
        task = build_own(own, DatasetStore(list(rows), own.name), None, Path(), config, 0)
    except InputError:
        return False
    return all(len(split.examples) for split in task.splits.values())
