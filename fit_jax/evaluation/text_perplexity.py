"""Perplexity of texts and conversations before and after tuning: what a report shows of forgetting."""

from collections.abc import Sequence
from math import exp
from typing import NamedTuple, TypedDict

import numpy as np

from fit_jax.data.layout import Item
from fit_jax.errors import InputError
from fit_jax.evaluation.scoring import ForwardParams, Scorer
from fit_jax.tables import Table

# Nats a token, beyond which a perplexity is written as if it were that.
_MOST_NATS = 700.0


class MeasuredTexts(NamedTuple):
    """Texts to measure.

    Attributes:
        name: What a reader knows them by.
        rehearsed: Whether the run was trained on them, too.
        items: Their pieces (`fit_jax.data.rehearsal.pieces`).
    """

    name: str
    rehearsed: bool
    items: Sequence[Item]

    @property
    def tokens(self) -> int:
        """Tokens that are predicted."""
        return sum(len(item.target_ids) for item in self.items)


class PerplexityRecord(TypedDict):
    """A line of `perplexity.jsonl`.

    Attributes:
        texts: What a reader knows them by.
        rehearsed: Whether the run was trained on them, too.
        tokens: How many are predicted.
        before: Perplexity before tuning; None where no model stands before it.
        after: Perplexity after it.
    """

    texts: str
    rehearsed: bool
    tokens: int
    before: float | None
    after: float


def text_perplexities(texts: Sequence[MeasuredTexts], scorer: Scorer, params: ForwardParams) -> list[float]:
    """exp(-mean log p of a token to learn) of each of the texts.

    Raises:
        InputError: There are no tokens, or the model's scores are not finite.
    """
    found = []
    for measured in texts:
        if not measured.tokens:
            raise InputError(f"{measured.name}: the tokenizer makes no tokens of its texts; give other texts")
        nats = -sum(float(scores.log_prob.sum()) for scores in scorer.score_items(params, measured.items))
        if not np.isfinite(nats):
            raise InputError(f"{measured.name}: the model's scores are not finite: its weights are broken")
        found.append(exp(min(nats / measured.tokens, _MOST_NATS)))
    return found


def perplexity_records(
    texts: Sequence[MeasuredTexts], after: Sequence[float], before: Sequence[float]
) -> list[PerplexityRecord]:
    """A record of each of the texts; `before` is empty where no model stands before the tuning."""
    return [
        {
            "texts": measured.name,
            "rehearsed": measured.rehearsed,
            "tokens": measured.tokens,
            "before": before[number] if before else None,
            "after": after[number],
        }
        for number, measured in enumerate(texts)
    ]


def perplexity_table(records: Sequence[PerplexityRecord]) -> Table:
    """The records as a report shows them."""
    rows = []
    for record in records:
        before, after = record["before"], record["after"]
        use = "trained on" if record["rehearsed"] else "only measured"
        ratio = "–" if before is None else f"{after / before:.3g}"
        rows.append((record["texts"], use, f"{record['tokens']:,}", _shown(before), _shown(after), ratio))
    caption = (
        "Perplexity a token, exp(-mean log p), of a part of each file; of conversations over the assistant's tokens. "
        "The ratio is after / before: above 1 the model predicts such texts worse than it did before it was tuned."
    )
    header = ("texts", "use", "tokens", "before tuning", "after tuning", "ratio")
    return Table("What tuning did to other texts", caption, header, rows, name="perplexity", texts=2)


def _shown(perplexity: float | None) -> str:
    return "–" if perplexity is None else f"{perplexity:,.2f}" if perplexity < 1e6 else f"{perplexity:.3e}"
