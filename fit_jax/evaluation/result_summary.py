"""`summary.md`: an evaluation's tables as one document that says what they show."""

from collections.abc import Sequence

from fit_jax.data.task import Task
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.reference_lines import repeated_splits
from fit_jax.evaluation.result_tables import REPEATED, result_tables
from fit_jax.evaluation.verdict import run_verdict
from fit_jax.markdown import as_code, as_text
from fit_jax.tables import Table

SPLIT_NAMES = {
    "iid": "drawn as the training examples were, with their rho",
    "high": "the spurious feature predicts its own label y_s",
    "low": "the spurious feature rarely agrees with y_s",
    "flipped": "the spurious feature predicts another label than y_s; right for the spurious types is still y_s",
    "natural": "the data's natural distribution, with no chosen rho",
}
ABOUT = (
    "Focus accuracy is the share of answers equal to the focus label: the answer that follows the focus instruction. "
    "Brackets hold 95 % Wilson intervals over clusters of examples, for this one seed; answers are the most probable "
    "of the candidates, unless they were written freely. y is the true label, y_s the label tied to the value of the "
    "spurious feature."
)


def summary(title: str, predictions: Sequence[Prediction], task: Task, tables: Sequence[Table] | None = None) -> str:
    """`summary.md`: what was measured, each table with its intervals, and what to compare it with.

    Args:
        title: First heading.
        predictions: All predictions of the evaluation.
        task: The task asked about: its splits, for the rho realised, and what it has to say about its data.
        tables: Those of `result_tables`, where they are made already.
    """
    names = list(dict.fromkeys(p.split for p in predictions))
    parts = [f"# {as_text(title)}", as_text(run_verdict(predictions)), ABOUT]
    for name, low in repeated_splits(predictions).items():
        parts.append(f"{as_code(name)} has the P(y = y_s) of {as_code(low)}: {REPEATED}")
    parts += [table.markdown() for table in tables or result_tables(predictions, task)]
    notes = [f"- {as_code(name)}: {as_text(_split_name(name))}" for name in names] + [
        f"- {as_text(note)}" for note in task.notes
    ]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def _split_name(name: str) -> str:
    plain = name.removeprefix("shifted_")
    text = SPLIT_NAMES.get(plain, plain)
    return text if plain == name else f"values of the spurious feature never seen in training; {text}"
