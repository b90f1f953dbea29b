"""How much a property of rows tells about their label, beside what chance and the words of their texts would tell.

The measure is the plug-in mutual information I(S; Y) in bits. Two controls stand beside it:

- *permutation*: labels are shuffled many times. The mean over the shuffles is what a property of so many values shows
  by chance; a property passes where its z-score against its own shuffles is beyond the largest z-score that any
  property reached in any shuffle (the maxT procedure of Westfall and Young 1993, which holds over all properties).
- *bag of words*: labels are predicted from the words alone, by naive Bayes on the other half of the rows. I(S; Y | B),
  B being that prediction, is what the property tells beyond the words; the length of the texts and single words are
  measured against the same B. Its chance level comes from shuffles of S among rows of equal B.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Rows that are looked at; with more, a sample of so many tells as much.
MOST_ROWS = 10_000
_SHUFFLES = 200
_SHUFFLES_GIVEN_WORDS = 20
# Values of a property; the rarest beyond these count as one.
_MOST_VALUES = 50
_MOST_WORDS = 20_000
_FEWEST = 3
_WORD = re.compile(r"\w+(?:['’]\w+)*")


class Evidence(NamedTuple):
    """What one property tells about the label.

    Attributes:
        name: The property.
        bits: I(S; Y).
        chance: Its mean over shuffled labels.
        passes: Whether it is more than chance, over all properties tested together.
        beyond_words: I(S; Y | B) above its own chance level: what the words of the text do not tell.
    """

    name: str
    bits: float
    chance: float
    passes: bool
    beyond_words: float


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in their order."""
    return [word.lower() for word in _WORD.findall(text)]


def codes(values: Sequence[object]) -> np.ndarray:
    """(N,) numbers of values, the most frequent first; those beyond the 50 most frequent share one."""
    names, inverse, counts = np.unique([str(value) for value in values], return_inverse=True, return_counts=True)
    rank = np.empty(len(names), int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(names))
    return np.minimum(rank, _MOST_VALUES)[inverse]


def quarters(numbers: Sequence[float]) -> np.ndarray:
    """(N,) the quarter, by size, that each number falls into."""
    edges = np.unique(np.quantile(numbers, (0.25, 0.5, 0.75)))
    return np.searchsorted(edges, numbers, side="left")


def information(s: np.ndarray, y: np.ndarray) -> float:
    """Plug-in mutual information of two arrays of numbers from 0 up, in bits."""
    return _entropy(s) + _entropy(y) - _entropy(_joint(s, y))


def evidence(properties: Mapping[str, np.ndarray], y: np.ndarray, words: np.ndarray, seed: int = 0) -> list[Evidence]:
    """What each property tells about the label, strongest first.

    Args:
        properties: By name, (N,) the number of each row's value.
        y: (N,) the number of each row's label.
        words: (N,) the label that the words of each row predict, as of `bag_of_words`.
        seed: Of the shuffles.
    """
    if not properties:
        return []
    rng = np.random.default_rng(seed)
    bits = np.array([information(s, y) for s in properties.values()])
    shuffled = np.empty((_SHUFFLES, len(bits)))
    for row in shuffled:
        at_random = rng.permutation(y)
        row[:] = [information(s, at_random) for s in properties.values()]
    mean, spread = shuffled.mean(0), np.maximum(shuffled.std(0), 1e-12)
    passes = (bits - mean) / spread > ((shuffled - mean) / spread).max()
    rows = [
        Evidence(name, float(max(b, 0.0)), float(m), bool(p), _beyond(s, y, words, rng))
        for (name, s), b, m, p in zip(properties.items(), bits, mean, passes)
    ]
    return sorted(rows, key=lambda row: -(row.bits - row.chance))


def bag_of_words(texts: Sequence[str], y: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N,) the label that a text's words predict: naive Bayes, trained on the half of the rows that it is not in.

    Args:
        texts: The texts.
        y: (N,) numbers of their labels.
        seed: Parts the rows.
    """
    from scipy.sparse import csr_array

    found = [sorted(set(words_of(text))) for text in texts]
    names, counts = np.unique([word for words in found for word in words], return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")][:_MOST_WORDS]
    kept = {str(word): n for n, word in enumerate(kept[: int(np.sum(counts >= _FEWEST))])}
    inside = [[kept[word] for word in words if word in kept] for words in found]
    ends = np.concatenate(([0], np.cumsum([len(words) for words in inside])))
    at = np.fromiter((n for words in inside for n in words), int, int(ends[-1]))
    x_NW = csr_array((np.ones(len(at)), at, ends), shape=(len(texts), max(len(kept), 1)))
    half = np.random.default_rng(seed).permutation(len(texts)) % 2
    one_hot_NY = np.eye(int(y.max(initial=0)) + 1)[y]
    predicted = np.zeros(len(texts), int)
    for side in (0, 1):
        learn, ask = np.flatnonzero(half != side), np.flatnonzero(half == side)
        hits_WY = x_NW[learn].T @ one_hot_NY[learn]
        log_WY = np.log((hits_WY + 1) / (hits_WY.sum(0) + hits_WY.shape[0]))
        prior_Y = np.log((one_hot_NY[learn].sum(0) + 1) / (len(learn) + one_hot_NY.shape[1]))
        predicted[ask] = np.argmax(x_NW[ask] @ log_WY + prior_Y, axis=1)
    return predicted


def _beyond(s: np.ndarray, y: np.ndarray, words: np.ndarray, rng: np.random.Generator) -> float:
    """I(S; Y | B) less its mean over shuffles of S among rows of equal B; 0 where that is negative."""
    order = np.argsort(words, kind="stable")
    s, y, words = s[order], y[order], words[order]
    ends = np.cumsum(np.bincount(words))
    by_chance = []
    for _ in range(_SHUFFLES_GIVEN_WORDS):
        at_random = np.concatenate([rng.permutation(part) for part in np.split(s, ends[:-1])])
        by_chance.append(_given(at_random, y, words))
    return max(_given(s, y, words) - float(np.mean(by_chance)), 0.0)


def _given(s: np.ndarray, y: np.ndarray, words: np.ndarray) -> float:
    """I(S; Y | B)."""
    sb = _joint(s, words)
    return _entropy(sb) + _entropy(_joint(y, words)) - _entropy(_joint(sb, y)) - _entropy(words)


def _joint(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a * (int(b.max(initial=0)) + 1) + b


def _entropy(x: np.ndarray) -> float:
    counts = np.bincount(x)
    share = counts[counts > 0] / max(len(x), 1)
    return float(-np.sum(share * np.log2(share)))
