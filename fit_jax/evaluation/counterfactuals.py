"""Whether an answer changes with a spurious feature alone: questions whose texts have another value of it, and answers.

Only a value that stands in the text can be exchanged there (a keyword, a name); of other features nothing is asked.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fit_jax.data.keyed_generator import generator
from fit_jax.evaluation.metrics import group_by, ordered
from fit_jax.evaluation.queries import Group, Prediction, Query
from fit_jax.evaluation.statistics import Mean, share_over_seeds
from fit_jax.focus.example import Example, Spurious
from fit_jax.focus.spec import focus_label, spec_for


class Exchanged(NamedTuple):
    """A question, and the same question about the text with another value of the feature that it speaks of."""

    plain: Query
    other: Query


class Changes(NamedTuple):
    """How often answers change with a feature's value alone.

    Attributes:
        feature: Its key.
        focus: The focus type.
        ought: Share of questions whose focus label changes too.
        changed: Share of questions whose answer changes.
    """

    feature: str
    focus: str
    ought: float
    changed: Mean


def label_of_values(examples: Iterable[Example]) -> dict[str, dict[str, int]]:
    """The label y_s of each value, by feature, without features whose values have one label here and another there."""
    labels: dict[str, dict[str, set[int]]] = {}
    for example in examples:
        for feature, (value, label) in example.spurious.items():
            labels.setdefault(feature, {}).setdefault(value, set()).add(-1 if example.own_answers else label)
    return {
        feature: {value: next(iter(found)) for value, found in of.items()}
        for feature, of in labels.items()
        if len(of) > 1 and all(len(found) == 1 and -1 not in found for found in of.values())
    }


def exchanged(example: Example, feature: str, other: Spurious) -> Example | None:
    """The example with another value of a feature, in its text too; None where its own value does not stand there."""
    value = example.spurious[feature].value
    stands = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)", re.IGNORECASE)

    def inserted(found: re.Match[str]) -> str:
        if found[0] == value or found[0].lower() != found[0]:
            return other.value
        return other.value.lower()

    slots = {name: stands.sub(inserted, text) for name, text in example.slots.items()}
    if slots == dict(example.slots):
        return None
    return replace(example, slots=slots, spurious={**example.spurious, feature: other})


def counterfactuals(groups: Sequence[Group], examples: Iterable[Example], seed: int) -> list[Exchanged]:
    """Each question of the groups that speaks of a feature, beside that with another value in its text.

    The other value is drawn, by (seed, uid, feature), among those of the examples that have another label.
    """
    labels, found = label_of_values(examples), []
    for query in (query for group in groups for query in group.queries):
        example, values = query.example, labels.get(query.feature, {})
        own = example.spurious.get(query.feature)
        others = sorted(value for value, label in values.items() if own is not None and label != own.label)
        if not others:
            continue
        drawn = generator(seed, "counterfactual", example.uid, query.feature).integers(len(others))
        other = Spurious(others[int(drawn)], values[others[int(drawn)]])
        if (changed := exchanged(example, query.feature, other)) is not None:
            label = focus_label(changed, spec_for(query.focus, query.feature))
            found.append(Exchanged(query, replace(query, example=changed, label=label)))
    return found


def changes(asked: Sequence[Exchanged], plain: Mapping[int, Prediction], others: Sequence[Prediction]) -> list[Changes]:
    """How often answers change, by feature and focus type.

    Args:
        asked: The questions.
        plain: The answers to those without an exchange, by the identity (`id`) of their query.
        others: The answers to those with one, in order.
    """
    cells = group_by(zip(asked, others), lambda pair: (pair[0].plain.feature, pair[0].plain.focus))
    found = []
    for feature in dict.fromkeys(feature for feature, _ in cells):
        for focus in ordered(focus for of, focus in cells if of == feature):
            cell = cells[feature, focus]
            changed = [plain[id(one.plain)].prediction != other.prediction for one, other in cell]
            by_text = group_by(zip(cell, changed), lambda pair: (pair[0][1].uid, pair[0][1].cluster))
            shares = np.array([np.mean([each for _, each in of]) for of in by_text.values()])
            mean = share_over_seeds(shares[:, None], [cluster for _, cluster in by_text])
            ought = float(np.mean([one.plain.label != one.other.label for one, _ in cell]))
            found.append(Changes(feature, focus, ought, mean))
    return found
