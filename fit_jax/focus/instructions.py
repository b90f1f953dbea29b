"""Paraphrases of focus instructions: for each focus type a set for training, a held-out and a far one, all disjoint.

A paraphrase is a sentence with the slots `{focus}` and `{ignore}`. Those for training and the held-out ones are
composed from one table of phrases and frames: held-out paraphrases are combinations that training never shows, of words
that training does show with the same meaning. A model that learnt its language from the training prompts alone can
therefore be asked to follow them, but they say nothing of other words. The far ones do: `far_paraphrases` holds them.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Literal, NamedTuple

from fit_jax.errors import InputError
from fit_jax.focus import far_paraphrases
from fit_jax.focus.example import CORE, TaskText
from fit_jax.focus.spec import FocusSpec, check_spec

ParaphraseSet = Literal["train", "heldout", "far"]


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


class _Names:
    """Features that print as a list in a sentence.

    The format `or` chooses the conjunction, `,` none at all; `@2` chooses the second other name of each feature, or the
    next that there is.
    """

    def __init__(self, names: Sequence[tuple[str, ...]]) -> None:
        """`names` holds each feature's own name and its other ones."""
        self._names = names

    def __format__(self, form: str) -> str:
        conjunction, _, number = form.partition("@")
        *first, last = (_other(names, int(number)) if number else names[0] for names in self._names)
        if conjunction == ",":
            return ", ".join((*first, last))
        return f"{', '.join(first)} {conjunction or 'and'} {last}" if first else last


def _other(names: tuple[str, ...], number: int) -> str:
    own, *others = names
    return others[(number - 1) % len(others)] if others else own


def paraphrases_of(task: str, focus_type: str | FocusSpec, paraphrase_set: ParaphraseSet) -> tuple[str, ...]:
    """The paraphrases of a focus type for a task, in a fixed order.

    Args:
        task: Task registry name; under any other name the paraphrases speak of an "input", as for own data.
        focus_type: Any specification, or a general type such as `focus(core) & ignore(spurious)`.
        paraphrase_set: `train`; `heldout` for combinations of words that never occur in training; `far` for sentences
            of other words.

    Returns:
        Sentences to be filled in by `instruction`; of the type `none` a single empty one.
    """
    spec = FocusSpec.parse(focus_type) if isinstance(focus_type, str) else focus_type
    return _sentences(_SETTINGS.get(task, _OWN_DATA), bool(spec.focus), bool(spec.ignore))[paraphrase_set]


def evenly(paraphrases: Sequence[str], most: int | None) -> Sequence[str]:
    """So many of them at most, evenly from all; None is all."""
    kept = min(most or len(paraphrases), len(paraphrases))
    return [paraphrases[number * len(paraphrases) // kept] for number in range(kept)]


def instruction(text: TaskText, spec: FocusSpec, paraphrase: str) -> str:
    """The focus instruction: a paraphrase of the specification's type, with the task's names for the features.

    Raises:
        InputError: The specification names a feature that the task lacks, or the paraphrase has no such slot.
    """
    check_spec(spec, text.spurious)
    name_of = {CORE: text.core, **text.spurious}
    names = {
        slot: _Names([(name_of[feature], *text.other_names.get(feature, ())) for feature in features])
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
    if not (focusing or ignoring):
        return {"train": ("",), "heldout": ("",), "far": ("",)}
    train, heldout = [], []
    for diagonal, sentence in _cells(focusing, ignoring):
        paraphrases = train if diagonal % _HELDOUT_EVERY else heldout
        paraphrases.append(sentence)
    far = far_paraphrases.FOCUS if not ignoring else far_paraphrases.BOTH if focusing else far_paraphrases.IGNORE
    sets: dict[ParaphraseSet, Sequence[str]] = {"train": train, "heldout": heldout, "far": far}
    return {
        name: tuple(s.replace("{act}", setting.act).replace("{item}", setting.item) for s in sentences)
        for name, sentences in sets.items()
    }


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
    else:
        for row, phrase in enumerate(_FOCUS if focusing else _IGNORE):
            for column, frame in enumerate(_FRAMES):
                yield row - column, frame.replace("{clause}", phrase)
