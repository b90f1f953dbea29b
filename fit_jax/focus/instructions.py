"""Paraphrases of focus instructions: for each focus type a set for training and a disjoint held-out one.

A paraphrase is a sentence with the slots `{focus}` and `{ignore}`, composed from a table of phrases and frames.
Held-out paraphrases are combinations that training never shows, of words that training does show with the same
meaning; a model that learnt its language from the training prompts alone can therefore be asked to follow them.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Literal, NamedTuple

from fit_jax.errors import InputError
from fit_jax.focus.example import CORE, TaskText
from fit_jax.focus.spec import FocusSpec, check_spec

ParaphraseSet = Literal["train", "heldout"]


class _Setting(NamedTuple):
    """What a task calls its input and the act of answering."""

    item: str
    act: str


_SETTINGS = {
    "demo": _Setting("review", "rate the review"),
    "ss": _Setting("sentence", "judge the sentence"),
    "smnli": _Setting("pair", "decide whether text 2 follows"),
    "shans": _Setting("pair", "decide whether sentence 2 follows"),
    "bbq": _Setting("question", "choose an answer"),
    "bbq_nlg": _Setting("question", "write the answer"),
}
_OWN_DATA = _Setting("input", "give an answer")

_FOCUS = (
    "focus on {focus}",
    "attend to {focus}",
    "rely on {focus}",
    "base your answer on {focus}",
    "look at {focus}",
    "use {focus}",
    "go by {focus}",
    "concentrate on {focus}",
)
# After a negation several names are joined by "or".
_IGNORE = (
    "ignore {ignore}",
    "disregard {ignore}",
    "pay no attention to {ignore:or}",
    "leave {ignore} aside",
    "do not use {ignore:or}",
    "do not rely on {ignore:or}",
    "forget about {ignore}",
    "do not look at {ignore:or}",
)
_FRAMES = (
    "{clause}.",
    "please {clause}.",
    "when you {act}, {clause}.",
    "{clause} when you {act}.",
    "for this {item}, {clause}.",
    "{clause} for this {item}.",
    "here, {clause}.",
    "{clause} this time.",
)
# Both orders, so that no position tells the focused feature from the ignored one.
_PAIR_FRAMES = (
    "{focusing} and {ignoring}.",
    "{ignoring}; {focusing}.",
    "{focusing}, but {ignoring}.",
    "please {ignoring}. {focusing}.",
    "{focusing}; {ignoring}.",
    "when you {act}, {ignoring}; {focusing}.",
    "when you {act}, {focusing} and {ignoring}.",
    "for this {item}, {ignoring}. {focusing}.",
)
_CONTRAST_FRAMES = (
    "{focusing}, not {ignore:or}.",
    "instead of {ignore:or}, {focusing}.",
    "{focusing} rather than {ignore:or}.",
)
# Ignoring phrases that each focusing phrase meets in each frame of a pair.
_IGNORES_EACH = 3
# One cell in so many of a table is held out, along its diagonals: every phrase and every frame stays in training too.
_HELDOUT_EVERY = 4


class _Names(tuple[str, ...]):
    """Names that print as a list in a sentence; the format `or` chooses the conjunction."""

    def __format__(self, conjunction: str) -> str:
        *first, last = self
        return f"{', '.join(first)} {conjunction or 'and'} {last}" if first else last


def paraphrases_of(task: str, focus_type: str | FocusSpec, paraphrase_set: ParaphraseSet) -> tuple[str, ...]:
    """The paraphrases of a focus type for a task, in a fixed order.

    Args:
        task: Task registry name; under any other name the paraphrases speak of an "input", as for own data.
        focus_type: Any specification, or a general type such as `focus(core) & ignore(spurious)`.
        paraphrase_set: `train`, or `heldout` for paraphrases that never occur in training.

    Returns:
        Sentences to be filled in by `instruction`; of the type `none` a single empty one.
    """
    spec = FocusSpec.parse(focus_type) if isinstance(focus_type, str) else focus_type
    return _sentences(_SETTINGS.get(task, _OWN_DATA), bool(spec.focus), bool(spec.ignore))[paraphrase_set]


def instruction(text: TaskText, spec: FocusSpec, paraphrase: str) -> str:
    """The focus instruction: a paraphrase of the specification's type, with the task's names for the features.

    Raises:
        InputError: The specification names a feature that the task lacks, or the paraphrase has no such slot.
    """
    check_spec(spec, text.spurious)
    name_of = {CORE: text.core, **text.spurious}
    names = {
        slot: _Names(name_of[feature] for feature in features)
        for slot, features in (("focus", spec.focus), ("ignore", spec.ignore))
        if features
    }
    try:
        sentence = paraphrase.format_map(names)
    except KeyError as error:
        raise InputError(
            f"paraphrase {paraphrase!r} is not one of '{spec}': it has a slot {error}; take it from `paraphrases_of`"
        ) from error
    return ". ".join(part[:1].upper() + part[1:] for part in sentence.split(". "))


def first_instruction(text: TaskText, spec: FocusSpec) -> str:
    """The focus instruction in the first training paraphrase of the specification's type."""
    return instruction(text, spec, paraphrases_of(text.name, spec, "train")[0])


@cache
def _sentences(setting: _Setting, focusing: bool, ignoring: bool) -> dict[ParaphraseSet, tuple[str, ...]]:
    train, heldout = [], []
    for diagonal, sentence in _cells(focusing, ignoring):
        paraphrases = train if diagonal % _HELDOUT_EVERY else heldout
        paraphrases.append(sentence.replace("{act}", setting.act).replace("{item}", setting.item))
    if not (focusing or ignoring):
        train = heldout
    return {"train": tuple(train), "heldout": tuple(heldout)}


def _cells(focusing: bool, ignoring: bool) -> Iterator[tuple[int, str]]:
    """The cells of the table for a kind of specification, each with its diagonal."""
    if focusing and ignoring:
        for row, focus in enumerate(_FOCUS):
            for (column, frame), turn in product(enumerate(_PAIR_FRAMES), range(_IGNORES_EACH)):
                # Strides under which the held-out diagonals still run through every phrase.
                ignore = _IGNORE[(row + 2 * column + 3 * turn) % len(_IGNORE)]
                yield row - column + turn, frame.replace("{focusing}", focus).replace("{ignoring}", ignore)
            for column, frame in enumerate(_CONTRAST_FRAMES):
                yield row - column, frame.replace("{focusing}", focus)
    elif focusing or ignoring:
        for row, phrase in enumerate(_FOCUS if focusing else _IGNORE):
            for column, frame in enumerate(_FRAMES):
                yield row - column, frame.replace("{clause}", phrase)
    else:
        yield 0, ""
