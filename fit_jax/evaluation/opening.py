"""What a report opens with: one text under each focus instruction, and what the models answered to it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.metrics import group_by, is_shifted, main_set, ordered, probabilities
from fit_jax.evaluation.queries import Prediction, Query
from fit_jax.focus.example import TaskText
from fit_jax.html import as_html
from fit_jax.tables import Code, Table


class Opening(NamedTuple):
    """One text, and the questions about it in the order of the focus types.

    Attributes:
        text: The input.
        queries: A question for each focus type.
        differ: Whether y and y_s differ on it.
    """

    text: str
    queries: tuple[Query, ...]
    differ: bool


def choose_opening(queries: Sequence[Query], text: TaskText) -> Opening:
    """The first text, in the order of the data and whatever the answers to it, that is asked most focus types.

    Texts on which y and y_s differ come first, since on others every instruction asks for the same answer; and splits
    of values seen in training.
    """
    paraphrases = main_set(q.paraphrases for q in queries)
    asked = (q for q in queries if q.paraphrases == paraphrases)
    found = group_by(asked, lambda q: (q.split, q.example.uid, q.feature)).values()

    def worth(same: list[Query]) -> tuple[int, bool, bool]:
        return len({q.focus for q in same}), len({q.label for q in same}) > 1, not is_shifted(same[0].split)

    chosen = max(found, key=worth)  # the first of equals
    first = {q.focus: q for q in reversed(chosen)}
    shown = text.input_template.format_map(chosen[0].example.slots).strip()
    return Opening(shown, tuple(first[focus] for focus in ordered(first)), worth(chosen)[1])


def answers_to(opening: Opening, evaluation: Evaluation) -> list[Prediction]:
    """What an evaluation that asked the opening's questions has for them."""
    wanted = {_key(q): p for q, p in zip(evaluation.queries, evaluation.predictions)}
    return [wanted[_key(q)] for q in opening.queries]


def opening_html(opening: Opening, answers: Mapping[str, Sequence[Prediction]], from_scratch: bool = False) -> str:
    """The text and the table of its answers, as markup.

    Args:
        opening: The text.
        answers: By the name of their column, the answers to its questions.
        from_scratch: Whether the weights were random before tuning, and some of the answers are of then.
    """
    first = opening.queries[0]
    example = first.example
    which = " on which y and y_s differ" if opening.differ else ""
    labels = f"The true label (y) is {example.candidates[example.label]}"
    if first.feature:
        value, label = example.spurious[first.feature]
        labels += f"; {first.feature} is {value}, which is tied to {example.candidates[label]} (y_s)"
    rows = []
    for number, query in enumerate(opening.queries):
        cells = (_answer(query, predictions[number]) for predictions in answers.values())
        rows.append((Code(query.focus), query.instruction or "(none)", example.candidates[query.label], *cells))
    header = ("focus instruction", "in words", "asks for", *answers)
    caption = (
        f"The first text of the split {first.split}{which}, whatever was answered to it. {labels}. Each answer stands "
        "with its probability among the candidates."
    )
    if from_scratch:
        caption += " Before tuning the weights were random, so those answers say nothing of the text."
    table = Table("One text, six instructions", caption, header, tuple(rows), texts=3 + len(answers))
    return table.html().replace("<table", f"<blockquote>{as_html(opening.text)}</blockquote>\n<table", 1)


def _answer(query: Query, prediction: Prediction) -> str:
    candidates = query.example.candidates
    if prediction.prediction < 0:
        return f"✗ {prediction.text}"
    sure = probabilities(prediction.log_probs)[prediction.prediction]
    return f"{'✓' if prediction.correct else '✗'} {candidates[prediction.prediction]} ({sure:.3f})"


def _key(query: Query) -> tuple[str, str, str, str, str, int]:
    return query.split, query.example.uid, query.focus, query.feature, query.paraphrases, query.paraphrase
