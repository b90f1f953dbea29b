"""What is asked on the page: texts, a focus instruction and a decoy; as a link holds it and as a model is asked it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

from fit_jax.api import PLACES, Answer, Attribution, FocusModel, insert_decoy

# Characters of a field of a link; more is no link that anybody shares.
_LONGEST = 20_000


class Task(Protocol):
    """What a question depends on of a model."""

    @property
    def slots(self) -> Sequence[str]:
        """Names of the texts."""
        ...

    @property
    def features(self) -> Sequence[str]:
        """What can be focused on and ignored."""
        ...


@dataclass(frozen=True)
class Question:
    """A question to one or two models.

    Attributes:
        texts: The texts of the input, by slot.
        focus: Features to focus on.
        ignore: Features to ignore.
        words: A focus instruction in one's own words; where there is one, it stands in place of `focus` and `ignore`.
        decoy: A sentence to insert in a text, where it tries to pass for an instruction; none where it is empty.
        place: Where it is inserted: one of `PLACES`.
        into: The slot that it is inserted into.
        candidates: The answers to choose from, where the task has none of its own.
    """

    texts: Mapping[str, str]
    focus: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    words: str = ""
    decoy: str = ""
    place: str = "end"
    into: str = ""
    candidates: tuple[str, ...] = ()

    def with_decoy(self) -> dict[str, str]:
        """The texts with the decoy in its place."""
        slot = self.into or next(iter(self.texts))
        return {**self.texts, slot: insert_decoy(self.texts[slot], " ".join(self.decoy.split()), self.place)}

    def options(self) -> dict[str, Any]:
        """The focus instruction and the candidates, as `FocusModel.ask` takes them."""
        if self.words.strip():
            return {"instruction": self.words, "candidates": self.candidates}
        return {"focus": self.focus, "ignore": self.ignore, "candidates": self.candidates}


class ModelAnswers(NamedTuple):
    """What one model answers.

    Attributes:
        model: What the model is called.
        decoy: Whether the text held the decoy.
        asked: The answer to the question itself.
        all: The answers under every focus type.
    """

    model: str
    decoy: bool
    asked: Answer
    all: list[Answer]


def ask(models: Mapping[str, FocusModel], question: Question) -> list[ModelAnswers]:
    """Each model's answers without the decoy and, where there is one, with it.

    Raises:
        InputError: As `FocusModel.ask`.
    """
    return [
        ModelAnswers(
            name,
            decoy,
            model.ask(texts, **question.options()),
            model.ask_all(texts, question.candidates),
        )
        for name, model in models.items()
        for decoy, texts in _texts(question)
    ]


def attribute(models: Mapping[str, FocusModel], question: Question) -> list[tuple[str, Attribution]]:
    """What each model's answer to the question rests on, with the decoy where there is one; errors as `ask`."""
    _, texts = _texts(question)[-1]
    return [(name, model.attribute(texts, **question.options())) for name, model in models.items()]


def contradiction(
    features: Sequence[str], focus: Sequence[str], ignore: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to focus on and what to ignore to ask for the contrary of an instruction.

    >>> contradiction(("core", "genre"), ("core",), ())
    (('genre',), ('core',))
    """
    others = [name for name in features if name not in focus and name != "core"] or [features[0]]
    towards = tuple(ignore) or tuple(others[:1])
    return towards, tuple(name for name in focus if name not in towards)


def to_query(question: Question) -> str:
    """The part of a link that restores the question."""
    fields = [(f"text.{slot}", text) for slot, text in question.texts.items()]
    fields += [("focus", name) for name in question.focus] + [("ignore", name) for name in question.ignore]
    fields += [("words", question.words), ("decoy", question.decoy)]
    if question.decoy:
        fields += [("place", question.place), ("into", question.into)]
    fields += [("candidate", candidate) for candidate in question.candidates]
    return urlencode([(name, value) for name, value in fields if value])


def from_query(fields: Mapping[str, Sequence[str]], task: Task) -> Question | None:
    """The question of a link; None where it holds no text of the task. What does not fit the task is left out.

    Args:
        fields: The values of each field of the link, as `urllib.parse.parse_qs` gives them.
        task: The model's task.
    """

    def first(name: str) -> str:
        return next(iter(fields.get(name, ())), "")[:_LONGEST]

    def known(name: str) -> tuple[str, ...]:
        return tuple(feature for feature in task.features if feature in fields.get(name, ()))

    texts = {slot: first(f"text.{slot}") for slot in task.slots}
    if not any(texts.values()):
        return None
    place, into = first("place"), first("into")
    return Question(
        texts=texts,
        focus=known("focus"),
        ignore=tuple(name for name in known("ignore") if name not in known("focus")),
        words=first("words"),
        decoy=first("decoy"),
        place=place if place in PLACES else "end",
        into=into if into in task.slots else task.slots[0],
        candidates=tuple(candidate[:_LONGEST] for candidate in fields.get("candidate", ())),
    )


def _texts(question: Question) -> list[tuple[bool, Mapping[str, str]]]:
    """The texts to ask about, and whether they hold the decoy."""
    return [(False, question.texts), *([(True, question.with_decoy())] if question.decoy.strip() else [])]
