"""Task `bbq` (paper, section 4.3): multiple choice, with the group that a social bias is about as spurious feature.

y is the correct answer and y_s the stereotyped one; both are answers of the row itself, so what splits control is
whether they agree. Each bias feature is a feature of its own; features that training never shows make the shifted
splits. Intersectional categories have two features, and both point to the same answer.

Besides the splits of a chosen rho there are the paper's: `natural` (features seen in training) and `shifted_natural`
(features never seen), where rows stand as BBQ has them, four to an item. Half of these are ambiguous, and of the others
as many agree with the stereotype as not, so that there alone bias scores speak of the model and not of the split. What
never stands on both sides of a split is a template or, with `--task.split_by context`, a context with its two people.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.malformed import Malformed
from fit_jax.data.partition import partition, partition_unequal
from fit_jax.data.rho_sampling import Rows, Value
from fit_jax.data.splits import Sizes, build_splits
from fit_jax.data.task import Task
from fit_jax.data.tasks.bbq_sides import context_keys, template_keys
from fit_jax.data.tasks.bbq_source import CATEGORIES, BBQQuestion, read_category, read_metadata
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious, TaskText

SIZES = Sizes(16700, 1590, 2352)
OUTCOMES = ("the stereotyped answer", "the other person", "the unknown answer")
HELD_OUT = ("nationality", "religion", "physical_appearance")
SIDES = {
    "template": "split by template: training shows no question and no context of the test splits, whoever is in them",
    "context": "split by context: the rows of an item and those about the same two people, in either order, stay on "
    "one side; but training asks most questions of the test splits about other people, so a model that learns "
    "questions by heart is not found out",
}
TEXT = TaskText(
    name="bbq",
    instruction="Answer the question with one of the three answers.",
    input_template="Context: {context}\nQuestion: {question}\nAnswers: {ans0}; {ans1}; {ans2}",
    cue="Answer:",
    core="the context",
    spurious={
        "age": "age",
        "disability_status": "disability status",
        "gender_identity": "gender identity",
        "nationality": "nationality",
        "physical_appearance": "physical appearance",
        "race_ethnicity": "race or ethnicity",
        "religion": "religion",
        "ses": "socio-economic status",
        "sexual_orientation": "sexual orientation",
    },
    biased=("question",),
    other_names={
        "core": ("what the text says", "the passage"),
        "age": ("how old people are", "the number of their years"),
        "disability_status": ("whether people are disabled", "disabilities"),
        "gender_identity": ("whether people are men or women", "the gender of the people"),
        "nationality": ("what country people are from", "citizenship"),
        "physical_appearance": ("what people look like", "looks"),
        "race_ethnicity": ("the ethnic group people belong to", "ethnic background"),
        "religion": ("what people believe in", "faith"),
        "ses": ("how rich or poor people are", "wealth and class"),
        "sexual_orientation": ("whom people love", "sexuality"),
    },
)

# A group with fewer rows has too few for its own rho in every split, and one of fewer templates cannot stand in all of
# training, validation and testing; such groups of a feature are taken together.
_RARE = 150
_FEW_TEMPLATES = 3
_OTHER = "other groups"
_JOIN = " & "


def build(config: TaskConfig, seed: int, text: TaskText = TEXT) -> Task:
    """The task of the official files or of the hub's copy; `text` are the words around an example."""
    single = tuple(category for category, features in CATEGORIES.items() if len(features) == 1)
    unknown = [category for category in config.categories if category not in CATEGORIES]
    if unknown:
        raise InputError(f"task.categories: no BBQ category {unknown[0]!r}; known are {', '.join(CATEGORIES)}")
    bad = Malformed(config.malformed)
    dropped: Counter[str] = Counter()
    metadata = read_metadata(config)
    items: list[BBQQuestion] = []
    for category in config.categories or single:
        items += read_category(config, category, metadata, bad, dropped)
    notes = bad.settle() + tuple(f"{count} rows dropped: {reason}" for reason, count in dropped.items())
    doubtful = sum("target" in item.slices for item in items)
    if doubtful:
        notes += (
            f"SES question 8: the stereotyped answer is doubtful in half of its {doubtful} rows; a slice marks them, "
            "and bias scores leave them out",
        )
    unseen = np.array([any(feature in HELD_OUT for feature in item.groups) for item in items], bool)
    if unseen.all():
        raise InputError(f"task.categories: all of them hold unseen features ({', '.join(HELD_OUT)}); add another")
    templates = template_keys(items)
    by_context = config.split_by == "context"
    keys = context_keys(items) if by_context else templates

    def rows(chosen: np.ndarray) -> Rows:
        at = np.flatnonzero(chosen)
        return _rows([items[i] for i in at], keys[at], templates[at])

    shifted = rows(unseen) if unseen.any() else None
    part = partition if by_context else partition_unequal
    splits, more = build_splits(config, seed, SIZES, rows(~unseen), shifted=shifted, part=part)
    notes += (SIDES[config.split_by],)
    used = {feature for item in items for feature in item.groups}
    features = {key: name for key, name in text.spurious.items() if key in used}
    return Task(text=replace(text, spurious=features), splits=splits, notes=notes + more, dropped=dict(dropped))


def _rows(items: Sequence[BBQQuestion], keys: np.ndarray, templates: np.ndarray) -> Rows:
    """Rows for splits; rows with equal `keys` stay on one side, `templates` tells the template of each."""
    groups = [_group(item) for item in items]
    merged = _merged(Counter(groups), Counter(group for group, _ in set(zip(groups, templates.tolist()))))
    names = [(group[0], _OTHER) if group in merged else group for group in groups]
    values = tuple(Value(feature, name, 0) for feature, name in dict.fromkeys(names))
    position = {(value.feature, value.name): v for v, value in enumerate(values)}

    def example(row: int, value: int) -> Example:
        item = items[row]
        named = item.groups if len(item.groups) > 1 else dict([names[row]])
        spurious = {feature: Spurious(group, item.target) for feature, group in named.items()}
        answers = (item.slots["ans0"], item.slots["ans1"], item.slots["ans2"])
        cluster = f"template {templates[row]}"
        return Example(item.uid, item.slots, answers, item.label, spurious, item.slices, True, cluster)

    return Rows(
        outcomes=OUTCOMES,
        outcome=np.array([_outcome(item) for item in items]),
        key=keys,
        values=values,
        value=np.array([position[name] for name in names]),
        example=example,
        item=_whole(items),
    )


def _group(item: BBQQuestion) -> tuple[str, str]:
    """Feature and stereotyped group of a row; of an intersectional one, those of both features joined."""
    return _JOIN.join(item.groups), _JOIN.join(item.groups.values())


def _merged(rows: Counter[tuple[str, str]], templates: Counter[tuple[str, str]]) -> set[tuple[str, str]]:
    """The groups of each feature that are taken together: the rare ones, and the next until they are not rare."""
    merged: set[tuple[str, str]] = set()
    for feature in {feature for feature, _ in rows}:
        together = 0
        common = {group: rows[group] >= _RARE and templates[group] >= _FEW_TEMPLATES for group in rows}
        for group in sorted((group for group in rows if group[0] == feature), key=lambda g: (common[g], rows[g])):
            if common[group] and (not together or together >= _RARE):
                break
            merged.add(group)
            together += rows[group]
    return merged


def _whole(items: Sequence[BBQQuestion]) -> np.ndarray:
    """(N,) number of the item of each row; -1 where one of its four rows is missing."""
    rows = Counter(item.number for item in items)
    numbers = {name: n if count == 4 else -1 for n, (name, count) in enumerate(rows.items())}
    return np.array([numbers[item.number] for item in items])


def _outcome(item: BBQQuestion) -> int:
    if item.label == item.target:
        return 0
    return 2 if item.label == item.unknown else 1
