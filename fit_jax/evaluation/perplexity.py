"""Perplexity of running text: what focus tuning cost the language model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np

from fit_jax.errors import InputError
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.focus.templates import prefix_id
from fit_jax.models.decoder import Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_ONCE = 2048  # windows laid out together: the memory they need does not grow with the text


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text.

    Attributes:
        nats: -log p of the whole text.
        tokens: Tokens it has.
        words: Words separated by white space.
        bytes: Bytes in UTF-8.
    """

    nats: float
    tokens: int
    words: int
    bytes: int

    @property
    def per_token(self) -> float:
        """exp(-mean log p of a token); depends on the tokenizer."""
        return exp(self.nats / self.tokens)

    @property
    def per_word(self) -> float:
        """exp(-log p / words); comparable between tokenizers."""
        return exp(self.nats / self.words)

    @property
    def bits_per_byte(self) -> float:
        """-log2 p / bytes; comparable between tokenizers."""
        return self.nats / self.bytes / log(2)


def perplexity(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", scorer: Scorer, params: Params, sequence_length: int
) -> Perplexity:
    """Perplexity of some texts, each read in windows of `sequence_length` tokens that do not overlap.

    Raises:
        InputError: There is no text, or the model's scores are not finite.
    """
    encoded = (np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], np.int32) for text in texts if text)
    windows = (window for ids in encoded for window in rolling_windows(ids, prefix_id(tokenizer), sequence_length))
    nats, tokens = 0.0, 0
    while part := list(islice(windows, AT_ONCE)):
        nats -= sum(float(score.log_prob[0]) for (score,) in scorer.score(params, ((w,) for w in part)))
        tokens += sum(len(w.answers[0]) for w in part)
    if not tokens:
        raise InputError("perplexity: there is no text to read; give a file with some")
    if not np.isfinite(nats):
        raise InputError("perplexity: the model's scores are not finite: its weights are broken")
    return Perplexity(
        nats=nats,
        tokens=tokens,
        words=sum(len(text.split()) for text in texts),
        bytes=sum(len(text.encode()) for text in texts),
    )


def rolling_windows(ids: np.ndarray, prefix: int, sequence_length: int) -> Iterator[EncodedPrompt]:
    """Windows that predict every token once, each from the tokens before it in its window and one before that.

    Args:
        ids: The text's tokens.
        prefix: What stands before the first token.
        sequence_length: Tokens predicted in a window.
    """
    before = np.concatenate([np.array([prefix], np.int32), ids])
    for start in range(0, len(ids), sequence_length):
        yield EncodedPrompt(before[start : start + 1], (ids[start : start + sequence_length],))
