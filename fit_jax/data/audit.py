"""Audit of a task's data: how strong each shortcut is, shortcuts that nobody named, leakage, lengths, truncation.

Token correlations follow the competency problems of Gardner et al. 2021: where no single token tells the label, the
share of a label among the examples that hold a token is binomial around the label's share in all; the z-score of that
share says how far the data are from it. Tokens whose z-score is too large to be chance, over all tokens tested, are
proposed as spurious keywords.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from fit_jax.data.near_duplicates import NearDuplicate, near_duplicates
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.data.text import text_key
from fit_jax.focus.example import Example

# Family-wise error rate: the probability that any token of data without shortcuts is proposed.
LEVEL = 0.01
# A token in fewer examples has no z-score that means much.
FEWEST = 20
_WORD = re.compile(r"\w+(?:['’]\w+)*")
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
class TokenRow:
    """A token that tells the label: in how many examples, the label's share among them and in all, the z-score."""

    split: str
    token: str
    label: str
    count: int
    share: float
    base: float
    z: float


@dataclass(frozen=True)
class Leak:
    """Examples whose input stands in two parts, or twice in one, but for case, spacing and punctuation."""

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
        tokens: Proposed spurious keywords, strongest first.
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
    tokens: Sequence[TokenRow]
    tested: Mapping[str, int]
    threshold: Mapping[str, float]
    leaks: Sequence[Leak]
    near: Sequence[NearDuplicate]
    lengths: Mapping[str, Sequence[tuple[int, int]]]
    unit: str
    truncated: Mapping[str, float]
    notes: Sequence[str]


def audit_task(
    task: Task, length: Callable[[Sequence[Example]], Sequence[int]] | None = None, sequence_length: int | None = None
) -> Audit:
    """Audits every split of a task.

    Args:
        task: The task.
        length: Lengths of examples in tokens, prompt and answers together; None counts the words of the input.
        sequence_length: Tokens of a row; with `length`, the share of longer examples is measured.
    """
    features: list[FeatureRow] = []
    associations: list[Association] = []
    tokens: list[TokenRow] = []
    tested, threshold, lengths, truncated, labels, sizes = {}, {}, {}, {}, {}, {}
    for name, split in task.splits.items():
        examples = list(split.examples)
        sizes[name] = len(examples)
        labels[name] = dict(sorted(Counter(map(_label_name, examples)).items()))
        features += feature_rows(split, examples)
        associations += [_association(name, feature, examples) for feature in task.features if _has(feature, examples)]
        rows, tested[name], threshold[name] = token_rows(name, examples)
        tokens += rows
        counts = [len(_words(e)) for e in examples] if length is None else list(length(examples))
        lengths[name] = _histogram(counts)
        if length is not None and sequence_length is not None:
            truncated[name] = float(np.mean(np.array(counts) > sequence_length))
    return Audit(
        task=task.text.name,
        sizes=sizes,
        labels=labels,
        features=features,
        associations=associations,
        tokens=sorted(tokens, key=lambda row: -row.z),
        tested=tested,
        threshold=threshold,
        leaks=leaks(task),
        near=near_duplicates(task),
        lengths=lengths,
        unit="words" if length is None else "tokens",
        truncated=truncated,
        notes=task.notes,
    )


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


def token_rows(name: str, examples: Sequence[Example]) -> tuple[list[TokenRow], int, float]:
    """Tokens over-represented with some label by more than chance.

    Returns:
        The tokens, how many (token, label) pairs were tested, and the z-score beyond which one is reported
        (two-sided, Bonferroni at `LEVEL`).
    """
    base: Counter[str] = Counter()
    holds: Counter[str] = Counter()
    with_label: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        label = _label_name(example)
        base[label] += 1
        for word in set(_words(example)):
            holds[word] += 1
            with_label[word][label] += 1
    total = base.total()
    frequent = [word for word, n in holds.items() if n >= FEWEST]
    tested = len(frequent) * len(base)
    threshold = NormalDist().inv_cdf(1 - LEVEL / max(tested, 1) / 2)
    rows = []
    for word in frequent:
        n = holds[word]
        for label, m in base.items():
            # Without a shortcut the examples that hold the token are a draw without replacement of all examples.
            p = m / total
            spread = math.sqrt(p * (1 - p) / n * (total - n) / max(total - 1, 1))
            share = with_label[word][label] / n
            # Half a count towards the mean: the share moves in steps, and the normal curve does not.
            gap = max(abs(share - p) - 0.5 / n, 0)
            z = math.copysign(gap / spread, share - p) if spread else 0.0
            if z > threshold:
                rows.append(TokenRow(name, word, label, n, share, p, z))
    return rows, tested, threshold


def leaks(task: Task) -> list[Leak]:
    """Inputs that stand twice in a split, or in two of train, validation and test."""
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
    information = sum(n / total * math.log2(n * total / (values[v] * labels[y])) for (v, y), n in pairs.items())
    bias = (len(values) - 1) * (len(labels) - 1) / (2 * total * math.log(2))
    return Association(name, feature, information, bias)


def _has(feature: str, examples: Sequence[Example]) -> bool:
    return any(feature in example.spurious for example in examples)


def _label_name(example: Example) -> str:
    """The true answer; where each row has answers of its own, its number."""
    return f"answer {example.label}" if example.own_answers else example.candidates[example.label]


def _words(example: Example) -> list[str]:
    return [word.lower() for text in example.slots.values() for word in _WORD.findall(text)]


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
