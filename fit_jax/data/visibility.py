"""Whether a model can see in its input what an instruction asks it to focus on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fit_jax.data.malformed import Malformed
from fit_jax.data.own_data import FeatureConfig
from fit_jax.data.own_features import ValueOf
from fit_jax.data.own_rows import OwnReader
from fit_jax.errors import InputError
from fit_jax.foreign import shown

# Rows to look at.
LOOKED_AT = 300
# Where fewer of them show the value, the feature cannot be seen.
_ENOUGH = 0.95


def unseen(reader: OwnReader, rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """One line for each feature whose value the rendered input does not show, with what to do.

    A value is seen where the columns of the input alone give the same value, as with keywords, or where the input
    holds it word by word.

    Args:
        reader: The description.
        rows: Some rows of the data; those that are malformed are passed over.
    """
    own, notes = reader.own, []
    inputs = [(row, own.input.format_map(parsed.slots)) for row in rows if (parsed := _parsed(reader, row))]
    for feature, find in zip(own.features, reader.finders):
        if find is None or feature.keywords or feature.column in own.slots:
            continue
        found = [(value, row, text) for row, text in inputs if (value := find(row)) is not None]
        seen = sum(_shows(value, text) or _value(find, row, own.slots) == value for value, row, text in found)
        if found and seen < _ENOUGH * len(found):
            notes.append(f"feature {feature.key} is hidden from the model: {_why(feature, seen, len(found))}")
    return tuple(notes)


def _why(feature: FeatureConfig, seen: int, rows: int) -> str:
    shown_in = f"the input shows its value in {seen} of {rows} rows looked at"
    asked = f"{shown_in}, so that no instruction about {feature.name or feature.key} can be followed; "
    if feature.column:
        column = shown(feature.column)
        return f"{asked}put the column into `input`, as in '{column}: {{{column}}}'"
    return f"{asked}put the columns that {shown(feature.function)} reads into `input`"


def _parsed(reader: OwnReader, row: Mapping[str, object]) -> Any:
    return reader.parse(row, "row:0", Malformed("skip"))


def _shows(value: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value.casefold())}(?!\w)", text.casefold()) is not None


def _value(find: ValueOf, row: Mapping[str, object], slots: Sequence[str]) -> str | None:
    """The value that the columns of the input alone give; None where they do not suffice."""
    try:
        return find({slot: row[slot] for slot in slots})
    except InputError:  # the function reads another column
        return None
