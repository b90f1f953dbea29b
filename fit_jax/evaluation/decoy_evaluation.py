"""Whether a model obeys decoys, focus instructions in the text of an input: what is asked, and what it comes to."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fit_jax.data.keyed_generator import generator
from fit_jax.evaluation.asked_again import asked_once, pulled_by, pulled_cells
from fit_jax.evaluation.metrics import ordered
from fit_jax.evaluation.queries import Group, Prediction, Query, plain_record
from fit_jax.focus.decoy_text import PLACES, quoted_decoy, with_decoy
from fit_jax.focus.example import TaskText
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import focus_label, spec_for
from fit_jax.tables import Table

# The instruction once more; one that contradicts it, in the same words where both have a form in common; one in other
# words; and one in other words and quotation marks.
KINDS = ("same", "contradicting", "reworded", "quoted")
# The type of the decoys that contradict an instruction: a focus on what it does not go by.
CONTRARY = {
    "none": "focus(spurious)",
    "focus(core)": "focus(spurious)",
    "ignore(spurious)": "focus(spurious)",
    "focus(core) & ignore(spurious)": "focus(spurious) & ignore(core)",
    "focus(spurious)": "focus(core)",
    "focus(spurious) & ignore(core)": "focus(core) & ignore(spurious)",
}


class Decoy(NamedTuple):
    """A decoy in a question.

    Attributes:
        kind: One of `KINDS`.
        place: Where in the text it stands, one of `PLACES`.
        words: Its sentence.
        label: Index of the answer that it asks for.
    """

    kind: str
    place: str
    words: str
    label: int


class Decoyed(NamedTuple):
    """The answers to a question with a decoy in its text and without."""

    decoy: Decoy
    answer: Prediction
    plain: Prediction


def decoy_queries(text: TaskText, groups: Sequence[Group], seed: int) -> list[tuple[Query, Query, Decoy]]:
    """The questions of `asked_once` with decoys.

    Kind, place and paraphrase of the decoy, which is a held-out one, are a pure function of (seed, uid, feature, focus
    type).

    Returns:
        The question without the decoy, which is one of the groups', that with it, and the decoy.
    """
    chosen = asked_once(groups)
    decoys = [_decoy(text, query, seed) for query in chosen]
    return [
        (query, replace(query, example=with_decoy(query.example, decoy.words, decoy.place)), decoy)
        for query, decoy in zip(chosen, decoys)
    ]


def _decoy(text: TaskText, query: Query, seed: int) -> Decoy:
    choice = generator(seed, "decoys", query.example.uid, query.feature, query.focus).random(3).tolist()
    kind, place = (options[int(x * len(options))] for options, x in zip((KINDS, PLACES), choice))
    # Without an instruction, the one that asks for the same answer.
    focus = CONTRARY[query.focus] if kind != "same" else query.focus if query.instruction else "focus(core)"
    spec, sentences = spec_for(focus, query.feature), paraphrases_of(text.name, focus, "heldout")
    number = query.paraphrase if query.instruction else int(choice[2] * len(sentences))
    if kind in ("reworded", "quoted"):
        number += 1 + int(choice[2] * (len(sentences) - 1))
    words = instruction(text, spec, sentences[number % len(sentences)])
    if kind == "same" and query.instruction:
        words = query.instruction
    words = quoted_decoy(words) if kind == "quoted" else words
    return Decoy(kind, place, words, focus_label(query.example, spec))


def obedience(decoyed: Sequence[Decoyed], method: str, seed: int, task: str) -> list[dict[str, Any]]:
    """Rows of `decoys.jsonl`: over all questions with decoys, and by split, focus type, kind and place of the decoy.

    `accuracy` and `accuracy_plain` are the focus accuracies with the decoy and without, over `count` examples.
    `obedience` is the share of the `telling` examples, those whose decoy asks for another answer than the instruction,
    in which the model gives the decoy's answer; `obedience_plain` the share in which it gives that answer to the same
    examples without the decoy. A share over no example is None.
    """
    parts: dict[str, Callable[[Decoyed], str]] = {
        "all": lambda d: "all",
        "split": lambda d: d.answer.split,
        "focus": lambda d: d.answer.focus,
        "kind": lambda d: d.decoy.kind,
        "place": lambda d: d.decoy.place,
    }
    order = {"focus": ordered(d.answer.focus for d in decoyed), "kind": KINDS, "place": PLACES}
    of = {"method": method, "seed": seed, "task": task}
    return [of | row for row in pulled_by(decoyed, parts, order, lambda d: d.decoy.label, "obedience")]


def decoy_records(decoyed: Iterable[Decoyed]) -> Iterator[dict[str, Any]]:
    """The lines of `decoy_predictions.jsonl`: the answer with the decoy, the decoy, and the answer given without."""
    for decoy, answer, plain in decoyed:
        yield {**plain_record(answer), "decoy": decoy._asdict(), "prediction_plain": plain.prediction}


def decoy_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table of `obedience`'s rows."""
    caption = (
        "Questions of the main paraphrase set, asked again with a decoy in the text: a sentence that poses as a focus "
        "instruction and must not be obeyed. It repeats the instruction (same), or asks for the contrary in the same "
        "words (contradicting), in other words (reworded), or in quotation marks (quoted); its paraphrases are ones "
        "never seen in training. Obedience is the share of examples whose decoy asks for another answer than the "
        "instruction in which the model gives the decoy's answer, with its 95 % interval over clusters of examples; 0 "
        "is best. Beside it stands how often the same examples get that answer without the decoy."
    )
    header = (
        "questions",
        "examples (n)",
        "accuracy without decoy",
        "accuracy with decoy",
        "decoy asks for another answer (n)",
        "that answer without decoy",
        "obedience",
    )
    return Table("Decoys in the text", caption, header, tuple(pulled_cells(r, "obedience") for r in rows))
