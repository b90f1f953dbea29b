"""Which rows of BBQ must stay on one side of every split.

BBQ is written from templates: one context and question with other people put in, in either order and in both roles. A
model that has seen a row knows the row's *twin* (the same people in the other order), and one that has seen a template
knows its stereotype whoever the people are. Two levels of apartness are offered, each by keys that rows share:

- by template: no question and no context of a test row is known from training, whatever people stand in it. The
  release's templates are joined where they ask the same question or tell nearly the same story (most templates about
  people by their names repeat one about people by their groups).
- by context: the four rows of an item, twins, and all rows that ask one question about the same two people stay
  together; the same question about other people may stand on both sides.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Int

from fit_jax.data.tasks.bbq_source import BBQQuestion

# Two templates tell the same story where their contexts share more than this of the words that stand in all of each.
_SAME_STORY = 2 / 3
_ARTICLES = frozenset(("a", "an", "the"))
_WORD = re.compile(r"\w+")


def template_keys(items: Sequence[BBQQuestion]) -> Int[np.ndarray, " rows"]:
    """A number for each row; rows of the same or of nearly the same template have the same."""
    common: dict[str, frozenset[str]] = {}
    for template, story in dict.fromkeys((item.template, item.story) for item in items):
        words = frozenset(_words(story))
        common[template] = common.get(template, words) & words
    same = [(a, b) for a, b in combinations(common, 2) if _overlap(common[a], common[b]) > _SAME_STORY]
    questions = dict.fromkeys((item.template, item.slots["question"]) for item in items)
    number = components([*((template, ("question", _words(text))) for template, text in questions), *same])
    return np.array([number[item.template] for item in items], int)


def context_keys(items: Sequence[BBQQuestion]) -> Int[np.ndarray, " rows"]:
    """A number for each row; rows of one item, of twins, and of one question about the same people have the same."""
    groups = []
    for item in items:
        asked = ("asked", _words(item.slots["question"]), _people(item))
        groups.append((item.number, asked, ("story", tuple(sorted(_words(item.story))))))
    number = components(groups)
    return np.array([number[item.number] for item in items], int)


def components(groups: Iterable[Sequence[Hashable]]) -> dict[Hashable, int]:
    """Numbers the members of `groups` so that two have the same number where a chain of groups joins them."""
    parent: dict[Hashable, Hashable] = {}

    def root(member: Hashable) -> Hashable:
        while (above := parent.setdefault(member, member)) != member:
            parent[member] = parent[above]
            member = above
        return member

    for first, *others in groups:
        for other in others:
            parent[root(other)] = root(first)
        root(first)
    numbers: dict[Hashable, int] = defaultdict(lambda: len(numbers))
    return {member: numbers[root(member)] for member in list(parent)}


def _people(item: BBQQuestion) -> frozenset[tuple[str, ...]]:
    """The two people that a row asks about, in no order."""
    named = (item.slots[f"ans{number}"] for number in range(3) if number != item.unknown)
    return frozenset(tuple(sorted(_words(name))) for name in named)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in _WORD.findall(text.casefold()) if word not in _ARTICLES)


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(len(a | b), 1)
