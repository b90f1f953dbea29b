"""Audit of a task's data: how strong each shortcut is, shortcuts that nobody named, leakage, lengths, truncation."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fit_jax.data.association import MOST_ROWS, Evidence, bag_of_words, codes, evidence, quarters, words_of
from fit_jax.data.balance import Balance, balances_of
from fit_jax.data.columns import column_codes, kind_of
from fit_jax.data.label_words import TokenRow, label_name, token_rows
from fit_jax.data.near_duplicates import NearDuplicate, near_duplicates
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.data.text import text_key
from fit_jax.focus.example import Example

_EDGES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class FeatureRow:
    """A feature value in a split: how often, P(Y = y_s | S = s), what rho was asked."""

    split: str
    feature: str
    value: str
    count: int
    agree: float
    asked: float | None


@dataclass(frozen=True)
class Association:
    """How much a feature says about the label in a split, in bits; `bias` is what it would say by chance alone."""

    split: str
    feature: str
    information: float
    bias: float


@dataclass(frozen=True)
class Leak:
    """Examples whose input stands in two parts, or twice in one, except for case, spacing and punctuation."""

    first: str
    second: str
    count: int
    example: str


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        task: Registry name.
        sizes: Examples by split.
        labels: By split, examples by true answer; where answers differ by example, by the answer's number.
        features: rho per feature value and split.
        associations: Mutual information of feature and label.
        evidence: What features, columns that the description does not use, the length of the texts and all words
            together tell about the label; of the training split.
        balance: What setting rho leaves out, by split; empty where rows stand as they came.
        tokens: Words that tell the label, strongest first.
        tested: Tokens tested, by split.
        threshold: The z-score beyond which a token is proposed, by split.
        leaks: Duplicates and texts shared between parts.
        near: Near-duplicates of training examples, by split.
        lengths: Number of examples up to each length, by split: ((upper edge, count), ...).
        unit: What lengths count: tokens of the tokenizer, or words.
        truncated: By split, the share of examples longer than a row; empty where no sequence length was given.
        notes: The task's own notes.
    """

    task: str
    sizes: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    features: Sequence[FeatureRow]
    associations: Sequence[Association]
    evidence: Sequence[Evidence]
    balance: Sequence[Balance]
    tokens: Sequence[TokenRow]
    tested: Mapping[str, int]
    threshold: Mapping[str, float]
    leaks: Sequence[Leak]
    near: Sequence[NearDuplicate]
    lengths: Mapping[str, Sequence[tuple[int, int]]]
    unit: str
    truncated: Mapping[str, float]
    notes: Sequence[str]


class SourceTable(NamedTuple):
    """The table that a task was made from, whose other columns may be shortcuts too.

    Attributes:
        row: The row of the table that a training example, given by its number, was made from.
        described: Columns that are the input, the answers, or a feature.
    """

    row: Callable[[int], Mapping[str, Any]]
    described: Collection[str]


def audit_task(
    task: Task,
    length: Callable[[Sequence[Example]], Sequence[int]] | None = None,
    sequence_length: int | None = None,
    source: SourceTable | None = None,
) -> Audit:
    """Audits every split of a task.

    Args:
        task: The task.
        length: Lengths of examples in tokens, prompt and answers together; None counts the words of the input.
        sequence_length: Tokens of a row; with `length`, the share of longer examples is measured.
        source: The table that the task was made from.
    """
    features: list[FeatureRow] = []
    associations: list[Association] = []
    tokens: list[TokenRow] = []
    tested, threshold, lengths, truncated, labels, sizes = {}, {}, {}, {}, {}, {}
    for name, split in task.splits.items():
        examples = list(split.examples)
        sizes[name] = len(examples)
        labels[name] = dict(sorted(Counter(map(label_name, examples)).items()))
        features += feature_rows(split, examples)
        associations += [_association(name, feature, examples) for feature in task.features if _has(feature, examples)]
        rows, tested[name], threshold[name] = token_rows(name, examples)
        tokens += rows
        counts = (
            [len(words_of(" ".join(e.slots.values()))) for e in examples] if length is None else list(length(examples))
        )
        lengths[name] = _histogram(counts)
        if length is not None and sequence_length is not None:
            truncated[name] = float(np.mean(np.array(counts) > sequence_length))
    return Audit(
        task=task.text.name,
        sizes=sizes,
        labels=labels,
        features=features,
        associations=associations,
        evidence=label_evidence(task.splits["train"].examples, source),
        balance=balances_of(task),
        tokens=sorted(tokens, key=lambda row: (-row.z, row.token)),
        tested=tested,
        threshold=threshold,
        leaks=leaks(task),
        near=near_duplicates(task),
        lengths=lengths,
        unit="words" if length is None else "tokens",
        truncated=truncated,
        notes=task.notes,
    )


def label_evidence(examples: Sequence[Example], source: SourceTable | None = None) -> list[Evidence]:
    """What each property of the examples tells about the label, strongest first; of a fair sample where there are many.

    Nothing where each row has answers of its own, for labels of two rows then have nothing in common.
    """
    at = np.unique(np.linspace(0, len(examples) - 1, MOST_ROWS).astype(int)) if len(examples) else []
    looked_at = [examples[int(n)] for n in at]
    if not looked_at or any(example.own_answers for example in looked_at):
        return []
    y = codes([example.label for example in looked_at])
    texts = [_texts(example) for example in looked_at]
    words = bag_of_words([" ".join(slots.values()) for slots in texts], y)
    properties = {"all words together": words}
    for feature in dict.fromkeys(feature for example in looked_at for feature in example.spurious):
        values = [e.spurious[feature].value if feature in e.spurious else "" for e in looked_at]
        properties[f"feature {feature}"] = codes(values)
    for slot in dict.fromkeys(slot for slots in texts for slot in slots):
        properties[f"length of {slot}"] = quarters([len(slots.get(slot, "").split()) for slots in texts])
    rows = [source.row(int(n)) for n in at] if source else []
    described = source.described if source else ()
    for name in dict.fromkeys(name for row in rows for name in row if name not in described):
        cells = [row.get(name) for row in rows]
        kind = kind_of(cells)
        if (found := column_codes(kind, cells)) is not None:
            properties[f"{'length of ' * (kind == 'text')}column {name}, not described"] = found
    return evidence(properties, y, words)


def _texts(example: Example) -> dict[str, str]:
    """The slots except those that show the value of a feature alone."""
    values = {spurious.value.casefold() for spurious in example.spurious.values()}
    return {name: text for name, text in example.slots.items() if text.casefold() not in values}


def feature_rows(split: Split, examples: Iterable[Example]) -> list[FeatureRow]:
    """P(Y = y_s | S = s) per feature value, counted from the examples."""
    count: Counter[tuple[str, str]] = Counter()
    agree: Counter[tuple[str, str]] = Counter()
    for example in examples:
        for feature, (value, y_s) in example.spurious.items():
            count[feature, value] += 1
            agree[feature, value] += example.label == y_s
    rows = []
    for (feature, value), n in sorted(count.items()):
        rho = split.rho.get(feature, {}).get(value)
        rows.append(FeatureRow(split.name, feature, value, n, agree[feature, value] / n, rho and rho.asked))
    return rows


def leaks(task: Task) -> list[Leak]:
    """Inputs that appear twice in a split, or in two of train, validation and test."""
    parts: dict[str, dict[int, Example]] = {}
    found: list[Leak] = []
    for name, split in task.splits.items():
        keys: dict[int, Example] = {}
        twice: list[Example] = []
        for example in split.examples:
            key = _input_key(example)
            if key in keys:
                twice.append(example)
            keys[key] = example
        if twice:
            found.append(Leak(name, name, len(twice), twice[0].uid))
        part = name if name in ("train", "validation") else "test"
        parts.setdefault(part, {}).update(keys)
    names = list(parts)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            common = parts[first].keys() & parts[second].keys()
            if common:
                found.append(Leak(first, second, len(common), parts[first][min(common)].uid))
    return found


def _association(name: str, feature: str, examples: Sequence[Example]) -> Association:
    """Plug-in mutual information of value and label (or, with answers per example, of value and agreement)."""
    relative = len({example.candidates for example in examples}) > 1
    pairs = Counter(
        (e.spurious[feature].value, str(e.label == e.spurious[feature].label) if relative else str(e.label))
        for e in examples
        if feature in e.spurious
    )
    total = pairs.total()
    values, labels = Counter[str](), Counter[str]()
    for (value, label), n in pairs.items():
        values[value] += n
        labels[label] += n
    bits = sum(n / total * math.log2(n * total / (values[v] * labels[y])) for (v, y), n in pairs.items())
    bias = (len(values) - 1) * (len(labels) - 1) / (2 * total * math.log(2))
    return Association(name, feature, bits, bias)


def _has(feature: str, examples: Sequence[Example]) -> bool:
    return any(feature in example.spurious for example in examples)


def _input_key(example: Example) -> int:
    """Key of the input without inserted keywords, so that one text with two keywords counts as one text."""
    values = {spurious.value.lower() for spurious in example.spurious.values()}
    texts = (
        " ".join(word for word in text.split() if word.strip(".,;:!?\"'()").lower() not in values)
        for text in example.slots.values()
    )
    return text_key(*texts)


def _histogram(counts: Sequence[int]) -> list[tuple[int, int]]:
    """(upper edge, examples of at most that length and above the edge before)."""
    longest = max(counts, default=0)
    edges = [edge for edge in _EDGES if edge < longest] + [longest]
    placed = np.searchsorted(edges, counts)
    return [(edge, int(np.sum(placed == i))) for i, edge in enumerate(edges)]
