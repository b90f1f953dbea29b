"""How much focus accuracy depends on the wording of the instruction: each paraphrase, their spread, the worst."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

import numpy as np

from fit_jax.evaluation.metrics import group_by, is_shifted, share_of
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.reference_lines import without_repeats
from fit_jax.evaluation.statistics import Mean
from fit_jax.focus.example import TaskText
from fit_jax.focus.instructions import ParaphraseSet, instruction, paraphrases_of
from fit_jax.focus.spec import spec_for


class Spread(NamedTuple):
    """The accuracies of one focus type's paraphrases, over features and the splits of seen values.

    Attributes:
        accuracy: By the paraphrase's place in its set, the focus accuracy of the questions asked in it.
        deviation: Standard deviation between paraphrases, without what chance between their examples explains; None
            with one paraphrase.
        worst: The paraphrase with the lowest accuracy. Among many it is low by chance too; its interval tells.
    """

    accuracy: dict[int, Mean]
    deviation: float | None
    worst: int


Share = Callable[[Iterable[Prediction]], Mean]


def paraphrase_spreads(predictions: Sequence[Prediction], share: Share = share_of) -> dict[tuple[str, str], Spread]:
    """Spread over paraphrases by (paraphrase set, focus type), of the types that have an instruction.

    Args:
        predictions: The answers.
        share: The focus accuracy of some of them; by default that of one seed's.
    """
    seen = [p for p in without_repeats(predictions) if p.focus != "none" and not is_shifted(p.split)]
    cells = group_by(seen, lambda p: (p.paraphrases, p.focus))
    return {key: _spread(cell, share) for key, cell in cells.items()}


def spoken(text: TaskText, focus: str, feature: str, paraphrases: str, paraphrase: int) -> str:
    """A paraphrase's words for one feature of the task."""
    spec = spec_for(focus, feature or next(iter(text.spurious)))
    sentences = paraphrases_of(text.name, focus, cast(ParaphraseSet, paraphrases))
    return instruction(text, spec, sentences[paraphrase])


def _spread(cell: Iterable[Prediction], share: Share) -> Spread:
    asked = sorted(group_by(cell, lambda p: p.paraphrase).items())
    accuracy = {paraphrase: share(predictions) for paraphrase, predictions in asked}
    values = np.array([mean.value for mean in accuracy.values()])
    worst = min(accuracy, key=lambda paraphrase: accuracy[paraphrase].value)
    if len(values) < 2:
        return Spread(accuracy, None, worst)
    chance = np.mean([mean.value * (1 - mean.value) / max(mean.examples - 1, 1) for mean in accuracy.values()])
    return Spread(accuracy, float(np.sqrt(max(values.var(ddof=1) - chance, 0.0))), worst)
