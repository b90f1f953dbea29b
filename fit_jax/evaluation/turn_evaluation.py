"""Whether the last focus instruction of a conversation holds: what is asked after earlier turns, and the answers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fit_jax.data.keyed_generator import generator
from fit_jax.evaluation.asked_again import asked_once, pulled_by, pulled_cells
from fit_jax.evaluation.decoy_evaluation import CONTRARY
from fit_jax.evaluation.metrics import ordered
from fit_jax.evaluation.queries import Group, Prediction, Query, plain_record
from fit_jax.focus.example import TaskText, Turn
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import focus_label, spec_for
from fit_jax.tables import Table

# By kind, whether each earlier turn's instruction contradicts the last one, or is of its type.
KINDS = {"same": (False,), "contradicting": (True,), "three turns": (True, False, True)}


class Earlier(NamedTuple):
    """What was asked before a question.

    Attributes:
        kind: One of `KINDS`.
        turns: The turns, each answered as its instruction asks.
        label: Index of the last turn's answer.
    """

    kind: str
    turns: tuple[Turn, ...]
    label: int


class Turned(NamedTuple):
    """The answers to a question after earlier turns and as the first."""

    earlier: Earlier
    answer: Prediction
    plain: Prediction


def turn_queries(text: TaskText, groups: Sequence[Group], seed: int) -> list[tuple[Query, Query, Earlier]]:
    """The questions of `asked_once` that have an instruction, after earlier turns.

    Kind and paraphrases of the earlier turns, which are held-out ones, are a pure function of (seed, uid, feature,
    focus type).

    Returns:
        The question as the first, which is one of the groups', that after the turns, and these.
    """
    found = []
    for query in asked_once(groups):
        if query.instruction:
            earlier = _earlier(text, query, seed)
            found.append((query, replace(query, example=replace(query.example, earlier=earlier.turns)), earlier))
    return found


def _earlier(text: TaskText, query: Query, seed: int) -> Earlier:
    choice, *places = generator(seed, "turns", query.example.uid, query.feature, query.focus).random(4).tolist()
    kind = list(KINDS)[int(choice * len(KINDS))]
    turns, label = [], query.label
    for contrary, place in zip(KINDS[kind], places):
        focus = CONTRARY[query.focus] if contrary else query.focus
        spec, sentences = spec_for(focus, query.feature), paraphrases_of(text.name, focus, "heldout")
        label = focus_label(query.example, spec)
        words = instruction(text, spec, sentences[int(place * len(sentences))])
        turns.append(Turn(words, query.example.candidates[label]))
    return Earlier(kind, tuple(turns), label)


def persistence(turned: Sequence[Turned], method: str, seed: int, task: str) -> list[dict[str, Any]]:
    """Rows of `turns.jsonl`: over all questions after earlier turns, and by split, focus type and kind.

    The columns are those of `asked_again.pulled_by`; `persistence` is the share of examples, of those whose last
    earlier answer is not what the last instruction asks for, in which the model gives that earlier answer again.
    """
    parts: dict[str, Callable[[Turned], str]] = {
        "all": lambda t: "all",
        "split": lambda t: t.answer.split,
        "focus": lambda t: t.answer.focus,
        "kind": lambda t: t.earlier.kind,
    }
    order = {"focus": ordered(t.answer.focus for t in turned), "kind": tuple(KINDS)}
    of = {"method": method, "seed": seed, "task": task}
    return [of | row for row in pulled_by(turned, parts, order, lambda t: t.earlier.label, "persistence")]


def turn_records(turned: Iterable[Turned]) -> Iterator[dict[str, Any]]:
    """The lines of `turn_predictions.jsonl`: the answer after the turns, these, and the answer given without."""
    for earlier, answer, plain in turned:
        turns = [turn._asdict() for turn in earlier.turns]
        yield {
            **plain_record(answer),
            "earlier": earlier._asdict() | {"turns": turns},
            "prediction_plain": plain.prediction,
        }


def turn_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table of `persistence`'s rows."""
    caption = (
        "Questions of the main paraphrase set, asked again after earlier turns of the same conversation: the text was "
        "asked about before under another focus instruction, and answered as that asks. One turn of the same focus "
        "type (same), one of the contrary (contradicting), or three in turn, the last of them contrary; their "
        "paraphrases are ones never seen in training. The last instruction is to hold. Persistence is the share of "
        "examples, of those whose last earlier answer is another one than the last instruction asks for, in which "
        "the model gives that earlier answer again, with its 95 % interval over clusters of examples; 0 is best. "
        "Beside it stands how often the same examples get that answer without earlier turns."
    )
    header = (
        "questions",
        "examples (n)",
        "accuracy as the first question",
        "accuracy after earlier turns",
        "last earlier answer is another (n)",
        "that answer as the first question",
        "persistence",
    )
    lines = tuple(pulled_cells(row, "persistence") for row in rows)
    return Table("Several instructions in one conversation", caption, header, lines)
