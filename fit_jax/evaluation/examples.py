"""The examples that a report's page holds to look through."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from fit_jax.evaluation.metrics import probabilities
from fit_jax.evaluation.queries import Prediction, Query

EXAMPLES_PER_CELL = 12
EXAMPLES_IN_ALL = 4000


def choose_examples(
    queries: Sequence[Query],
    predictions: Sequence[Prediction],
    render: Callable[[Query], str],
    in_all: int = EXAMPLES_IN_ALL,
) -> tuple[list[dict[str, Any]], str]:
    """The examples to embed, and the sentence that says how many of how many they are.

    Of each cell (split, focus type, feature, paraphrases) the first few, half of them wrong where there are as many;
    about `in_all` altogether.
    """
    cells = defaultdict(list)
    for number, p in enumerate(predictions):
        cells[p.split, p.focus, p.feature, p.paraphrases].append(number)
    limit = max(2, min(EXAMPLES_PER_CELL, in_all // max(len(cells), 1)))
    records = []
    for numbers in cells.values():
        wrong = [n for n in numbers if not predictions[n].correct][: limit // 2]
        right = [n for n in numbers if predictions[n].correct][: limit - len(wrong)]
        records += [_record(queries[n], predictions[n], render) for n in sorted(wrong + right)]
    cap = (
        f"{len(records)} of {len(predictions)} examples: up to {limit} of each cell (split, focus instruction, feature "
        f"and paraphrases), up to {limit // 2} of them wrong, so mistakes are commoner here than in the tables. All "
        "answers are in predictions.jsonl."
    )
    return records, cap


def _record(query: Query, prediction: Prediction, render: Callable[[Query], str]) -> dict[str, Any]:
    return {
        "split": prediction.split,
        "focus": prediction.focus,
        "feature": prediction.feature,
        "value": prediction.value,
        "paraphrases": prediction.paraphrases,
        "uid": prediction.uid,
        "prompt": render(query),
        "candidates": list(query.example.candidates),
        "probabilities": [round(float(p), 4) for p in probabilities(prediction.log_probs)],
        "label": prediction.label,
        "core_label": prediction.core_label,
        "prediction": prediction.prediction,
        **({} if prediction.text is None else {"text": prediction.text}),
    }
