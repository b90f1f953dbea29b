"""What a tuned model gives back when it is asked from Python: answers, attributions and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fit_jax.evaluation.metrics import focus_accuracy
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.result_summary import summary
from fit_jax.runs.run import Run

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Answer:
    """What a model answers to one text under one focus instruction.

    Attributes:
        answer: The most probable candidate.
        probabilities: Of each candidate, given that the answer is one of them.
        instruction: The words of the focus instruction; empty where there is none.
        focus: What is focused on and ignored, as in `focus(core) & ignore(keyword)`; empty under an instruction of
            one's own.
    """

    answer: str
    probabilities: Mapping[str, float]
    instruction: str
    focus: str


@dataclass(frozen=True)
class Attribution:
    """How much the log-odds of an answer depend on each part of its prompt: gradient x input, in nats.

    Attributes:
        answer: The answer that is explained, against all other candidates.
        pieces: The prompt, cut where its tokens begin; together they are its text.
        weights: Of each piece, 0 or more.
    """

    answer: str
    pieces: tuple[str, ...]
    weights: tuple[float, ...]


class Scores:
    """The focus accuracies of an evaluation.

    Attributes:
        rows: One mapping for each split, focus type, feature and paraphrase set, as in `focus_accuracy.jsonl`.
        predictions: Every answer.
    """

    def __init__(self, run: Run, predictions: Sequence[Prediction]) -> None:
        """Counts an evaluation's answers."""
        self._run = run
        self.predictions = predictions
        self.rows: list[dict[str, Any]] = focus_accuracy(
            predictions, run.config.train.method, run.config.seed, run.task.text.name
        )

    def __repr__(self) -> str:
        """How many answers there are to how many cells."""
        return f"Scores({len(self.predictions)} answers, {len(self.rows)} rows)"

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a table."""
        import pandas

        return pandas.DataFrame(self.rows)

    def to_markdown(self) -> str:
        """The report's tables."""
        return summary("Focus accuracy", self.predictions, self._run.task)
