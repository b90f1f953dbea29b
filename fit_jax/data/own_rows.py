"""One row of one's own data, read as the description says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fit_jax.data.malformed import NO_TEXT, Malformed, none_of
from fit_jax.data.own_data import MOST_ANSWERS, FeatureConfig, OwnData
from fit_jax.data.own_features import ValueOf, value_of
from fit_jax.data.spelling import Spellings, fold, near
from fit_jax.foreign import is_text, parse_json, quoted, shown

# A feature without a label column ties no label to a row.
_NO_LABEL = -1


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
        """`folder` is where a feature's `file.py` is looked for."""
        self.own = own
        # For each feature, what finds its value in a row; None where it is inserted.
        self.finders: list[ValueOf | None] = [
            None if feature.insert else _spelt(feature, value_of(feature, own.slots, folder), own.ways)
            for feature in own.features
        ]

    def parse(self, row: Mapping[str, object], where: str, bad: Malformed) -> ParsedRow | None:
        """The row, or None, counted as malformed."""
        own = self.own
        texts = {slot: bad.text(row, slot, where) for slot in own.slots}
        slots = {slot: text for slot, text in texts.items() if text is not None}
        if len(slots) < len(texts):
            return None
        candidates = own.candidates or _answers(row.get(own.candidates_column or ""))
        problem = self._problem(row, candidates)
        labels: list[int] = []
        for column in (own.label, *(feature.label_column for feature in own.features)):
            label = _label(row.get(column), candidates, own.ways) if column else _NO_LABEL
            if label is None:
                value = row.get(str(column))
                wrong = none_of(str(column), value, candidates) if value not in (None, "") else None
                problem = problem or wrong or f"no answer in field {column!r}"
            labels.append(_NO_LABEL if label is None else label)
        values = () if problem else tuple(finder and finder(row) for finder in self.finders)
        for feature, value in zip(own.features, values):
            problem = problem or (value and _misspelt(feature, value))
        uid = None if own.uid is None else str(row.get(own.uid))
        strings = (uid, *candidates, *values, *(str(row.get(column)) for column in own.slices))
        if not problem and not all(text is None or is_text(text) for text in strings):
            problem = f"its uid, answers, feature values or slices hold {NO_TEXT}"
        if problem:
            bad.add(where, problem, row)
            return None
        counted = tuple(
            value if not feature.values or value in feature.values else None
            for feature, value in zip(own.features, values)
        )
        return ParsedRow(uid, slots, candidates, labels[0], counted, tuple(labels[1:]))

    def _problem(self, row: Mapping[str, object], candidates: Sequence[str]) -> str | None:
        """What keeps the row from being used, its texts, labels and features aside."""
        own = self.own
        if len(set(candidates)) < 2 or len(set(candidates)) < len(candidates):
            return f"column {shown(own.candidates_column)!r} holds no list of two or more different answers"
        if len(candidates) > MOST_ANSWERS:
            return f"column {shown(own.candidates_column)!r} holds more than {MOST_ANSWERS} answers"
        named = {"slices": own.slices, "cluster": (own.cluster,) if own.cluster else ()}
        for by, columns in named.items():
            for column in columns:
                if column not in row:
                    return f"no field {shown(column)!r}, which `{by}` names"
        if own.uid and row.get(own.uid) in (None, ""):
            return f"no uid in field {shown(own.uid)!r}"
        return None


def _spelt(feature: FeatureConfig, find: ValueOf, ways: tuple[str, ...]) -> ValueOf:
    """Finds the feature's value in one spelling, whichever the rows have."""
    spellings = Spellings(feature.named, ways)

    def value(row: Mapping[str, object]) -> str | None:
        found = find(row)
        return found and (spellings.of(found) or None)

    return value


def _misspelt(feature: FeatureConfig, value: str) -> str | None:
    """What is wrong with a value that the description does not name, and that is close to one that it names."""
    if value in feature.named or not (meant := near(value, feature.named)):
        return None
    remedy = "" if meant.ways else " Name it in `labels` if it is another value"
    return f"{feature.key} {quoted(value)}: {meant.hint}{remedy}"


def _answers(value: object) -> tuple[str, ...]:
    """A row's answers: a list, or a text that is a JSON list."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            return ()
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _label(value: Any, candidates: Sequence[str], ways: Sequence[str]) -> int | None:
    """The position of an answer given by its text or by its number."""
    if (text := str(value)) in candidates:
        return candidates.index(text)
    if ways and isinstance(value, str):
        same = [n for n, answer in enumerate(candidates) if fold(answer, ways) == fold(text, ways)]
        return same[0] if len(same) == 1 else None
    if isinstance(value, float) and value.is_integer():  # what pandas makes of numbers among which one is missing
        return _label(int(value), candidates, ways)
    number = value if isinstance(value, int) and not isinstance(value, bool) else -1
    return number if 0 <= number < len(candidates) else None
