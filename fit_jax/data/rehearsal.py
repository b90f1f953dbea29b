"""Rehearsal: rows of texts and conversations beside those of the task, a pure function of (files, seed, step).

What a model was not asked during tuning it forgets. Rehearsal goes on training on such texts in the same steps (Robins,
1995, "Catastrophic forgetting, rehearsal and pseudorehearsal"). Nearly every token of them is a target, where a row of
the task has a handful, so they stand in rows of their own: each is cut into pieces of at most a row's tokens, whose
targets follow from the tokens before them in the piece, and pieces are packed. Rows follow one another in one endless
stream, an order of the texts for every epoch, of which step s takes rows s R to (s + 1) R.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from fit_jax.data.keyed_generator import generator
from fit_jax.data.layout import Item
from fit_jax.data.packing import Batch, first_fit, stack
from fit_jax.data.rehearsal_texts import RehearsalTexts
from fit_jax.data.row_stream import Row, RowStream
from fit_jax.data.sampler import DrawnItem
from fit_jax.errors import InputError
from fit_jax.focus.conversations import EncodedText

# Texts that are encoded and packed together.
_WINDOW = 64


class WithRehearsal(NamedTuple):
    """A batch of a training method (`TrainBatch`) and the rows of rehearsal of the same step."""

    task: Any
    rehearsal: Batch

    @property
    def rows(self) -> Batch:
        """The task's rows."""
        return self.task.rows

    @property
    def examples(self) -> Any:
        """How many examples of the task the batch trains on."""
        return self.task.examples

    @property
    def axes(self) -> "WithRehearsal":
        """The dimensions of each array, by letter."""
        return WithRehearsal(self.task.axes, self.rehearsal.axes)


class RehearsalRows:
    """The rows of rehearsal of every step.

    Attributes:
        texts: What is rehearsed.
        rows: R, the rows of a step.
        stream: All rows, numbered.
    """

    def __init__(self, texts: RehearsalTexts, rows: int, sequence_length: int, seed: int) -> None:
        """Encodes nothing yet; rows hold `sequence_length` tokens, and as many targets."""
        self.texts = texts
        self.rows = rows
        self.stream = RowStream(self._packed)
        self._sequence_length = sequence_length
        self._seed = seed
        self._order = lru_cache(2)(self._drawn_order)

    def batch(self, step: int, start: int, stop: int) -> Batch:
        """Rows `start` to `stop` of a step's."""
        rows = self.stream.rows(step * self.rows + start, step * self.rows + stop)
        return stack([[d.item for d in row] for row in rows], self._sequence_length, self._sequence_length)[0]

    def empty(self) -> Batch:
        """Empty rows: the shapes of those to come."""
        return stack([[]] * self.rows, self._sequence_length, self._sequence_length)[0]

    def _packed(self, window: int) -> list[Row]:
        """Rows of a window of texts, in random order: first fit leaves the worst filled ones last."""
        T, count = self._sequence_length, len(self.texts)
        places = [divmod(place, count) for place in range(window * _WINDOW, (window + 1) * _WINDOW)]
        numbers = [int(self._order(epoch)[at]) for epoch, at in places]
        drawn = [
            DrawnItem(number, item)
            for number, text in zip(numbers, self.texts.encoded(numbers))
            for item in pieces(text, T)
        ]
        if not drawn:
            raise InputError("rehearsal.files: the tokenizer makes no tokens of their texts; give other texts")
        rows = first_fit([d.item for d in drawn], T, T)
        order = generator(self._seed, "rehearsal rows", window).permutation(len(rows))
        return [[drawn[i] for i in rows[r]] for r in order]

    def _drawn_order(self, epoch: int) -> Int64[np.ndarray, " texts"]:
        return generator(self._seed, "rehearsal", epoch).permutation(len(self.texts))


def pieces(text: EncodedText, sequence_length: int) -> Iterator[Item]:
    """A text in pieces of at most so many tokens, each token read once; pieces without a token to learn are left out.

    The tokens that a piece predicts are those that follow its own, so that the next piece begins with the last of them.
    """
    ids, learnt = text
    for start in range(0, len(ids) - 1, sequence_length):
        stop = min(start + sequence_length, len(ids) - 1)
        at = np.flatnonzero(learnt[start + 1 : stop + 1]).astype(np.int32)
        length = stop - start
        if len(at):
            yield Item(
                tokens=ids[start:stop],
                positions=np.arange(length, dtype=np.int32),
                visible_until=np.full(length, length, np.int32),
                target_index=at,
                target_ids=ids[start + 1 : stop + 1][at],
                target_slot=np.zeros(len(at), np.int32),
                slots=1,
            )


def measured_items(texts: RehearsalTexts, sequence_length: int, tokens: int) -> list[Item]:
    """Pieces of texts drawn from all of them, the same ones every time, until they have about so many tokens."""
    items: list[Item] = []
    found = 0
    for number in generator(0, "measured").permutation(len(texts)).tolist():
        if found >= tokens:
            break
        (text,) = texts.encoded([number])
        items += pieces(text, sequence_length)
        found += len(text.ids) - 1
    return items
