"""Near-duplicates between splits: inputs that a model which learns training examples by heart already knows.

Two kinds are found in any data set. *Same words*: each slot holds the same words as in a training example, in whatever
order and with whatever articles, as where two people change places. *Other names*: the words stand in the same order
except for names and numbers, as where a template is filled with other people. Exact copies are of the first kind.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fit_jax.data.task import Task
from fit_jax.focus.example import Example

_WORD = re.compile(r"\w+")
_ARTICLES = frozenset(("a", "an", "the"))
_NAME = "·"


# The words of each slot of an input.
Slots = tuple[tuple[str, ...], ...]


class NearDuplicate(NamedTuple):
    """How many examples of a split have a near-duplicate in training, of what kind, and one pair of them by uid."""

    split: str
    kind: str
    examples: int
    share: float
    uid: str
    training: str


def near_duplicates(task: Task) -> list[NearDuplicate]:
    """What each split has in common with `train`; kinds that it has no example of are left out."""
    inputs = {name: [(e.uid, _slots(e)) for e in split.examples] for name, split in task.splits.items()}
    names = _names(slots for split in inputs.values() for _, slots in split)

    def same_words(slots: Slots) -> Slots:
        return tuple(tuple(sorted(word.casefold() for word in words)) for words in slots)

    def other_names(slots: Slots) -> Slots | None:
        masked = tuple(tuple(_NAME if word in names else word.casefold() for word in words) for words in slots)
        return masked if any(_NAME in words for words in masked) else None

    found = []
    kinds: dict[str, Callable[[Slots], Slots | None]] = {"same words": same_words, "other names": other_names}
    for kind, key in kinds.items():
        known = {k: uid for uid, slots in inputs["train"] if (k := key(slots)) is not None}
        for name, split in inputs.items():
            pairs = [(uid, known[k]) for uid, slots in split if (k := key(slots)) in known] if name != "train" else []
            if pairs:
                found.append(NearDuplicate(name, kind, len(pairs), len(pairs) / len(split), *pairs[0]))
    return found


def _names(inputs: Iterable[Slots]) -> set[str]:
    """Words that hold a digit, or begin with a capital wherever they stand in the task."""
    words = {word for slots in inputs for slot in slots for word in slot}
    return {w for w in words if any(map(str.isdigit, w)) or (len(w) > 1 and w[0].isupper() and w.lower() not in words)}


def _slots(example: Example) -> Slots:
    """The words of each slot, without articles, answers to choose from and inserted values of spurious features."""
    values = {spurious.value for spurious in example.spurious.values()}
    texts = [text for text in example.slots.values() if text not in example.candidates]
    return tuple(
        tuple(w for w in _WORD.findall(text) if w.casefold() not in _ARTICLES and w not in values) for text in texts
    )
