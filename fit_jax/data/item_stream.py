"""The endless stream of what a method trains on: its examples epoch after epoch, drawn, encoded and laid out."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Generic

import numpy as np
from jaxtyping import Int64

from fit_jax.config import Config
from fit_jax.data.decoy_sampling import TrainingDecoys
from fit_jax.data.layout import lay_out
from fit_jax.data.sampler import BatchType, DrawnItem, Sampler
from fit_jax.data.turn_sampling import TrainingTurns
from fit_jax.errors import InputError
from fit_jax.focus.example import Example
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder

# Examples whose answers are looked at, and longest ones that are encoded.
_ANSWERS_SEEN, _ANSWERS_ENCODED = 1 << 15, 64


class ItemStream(Generic[BatchType]):
    """Items of the training examples, a pure function of (data, config, place in the stream).

    Attributes:
        targets_per_row: Most target positions of an item; None where there is no limit yet.
    """

    def __init__(self, sampler: Sampler[BatchType], encoder: PromptEncoder, config: Config) -> None:
        """Draws nothing yet.

        Args:
            sampler: What is taken of the training examples.
            encoder: Turns examples into prompts.
            config: The run.
        """
        self._sampler = sampler
        self._encoder = encoder
        self._packing = config.train.packing
        self._cuts = config.train.long_text == "cut"
        kinds = ((TrainingTurns, config.focus.turn_share), (TrainingDecoys, config.focus.decoy_share))
        self._changes = [
            kind(encoder.text, share, config.seed, config.focus.paraphrases).shown for kind, share in kinds if share
        ]
        self._order = lru_cache(2)(sampler.order)
        self._tokens_per_row = config.train.sequence_length
        self.targets_per_row = config.train.targets_per_row

    def take(self, start: int, stop: int) -> list[DrawnItem]:
        """The items of examples `start` to `stop` of the stream.

        Raises:
            InputError: An item is larger than a row, or an example cannot be drawn or encoded.
        """
        drawn: list[DrawnItem] = []
        while start < stop:
            epoch, offset = divmod(start, self._sampler.epoch_size)
            indices = self._order(epoch)[offset : offset + stop - start]
            drawn += self._drawn(epoch, indices)
            start += len(indices)
        return drawn

    def longest_answer(self) -> int:
        """Target positions that a branch takes at most: of those with the most characters among the first examples."""
        examples, needed = self._sampler.examples, self._sampler.targets_needed
        answer_sets: dict[tuple[str, ...], Example] = {}
        for i in range(min(_ANSWERS_SEEN, len(examples))):
            answer_sets.setdefault(examples[i].candidates, examples[i])
        longest = sorted(answer_sets, key=lambda answers: needed([*map(len, answers)]), reverse=True)[:_ANSWERS_ENCODED]
        encoded = self._encoder.encode([answer_sets[answers] for answers in longest], [""] * len(longest))
        return max(needed([*map(len, prompt.answers)]) for prompt in encoded)

    def _drawn(self, epoch: int, indices: Int64[np.ndarray, " n"]) -> list[DrawnItem]:
        sampled = list(zip(indices.tolist(), self._sampler.branches_of(epoch, indices)))
        examples = [example for i, branches in sampled for example in [self._shown(epoch, i)] * len(branches)]
        prompts = iter(self._encoder.encode(examples, [b.instruction for _, branches in sampled for b in branches]))
        return [
            item
            for i, branches in sampled
            for item in self._laid_out(i, [next(prompts) for _ in branches], [b.answers for b in branches])
        ]

    def _shown(self, epoch: int, index: int) -> Example:
        example = self._sampler.examples[index]
        for change in self._changes:
            example = change(epoch, index, example)
        return example

    def _laid_out(
        self, example: int, prompts: Sequence[EncodedPrompt], answers: Sequence[Sequence[int]]
    ) -> list[DrawnItem]:
        """The example's branches as one item; as several where rows are packed and do not hold them together.

        Raises:
            InputError: An item is larger than a row.
        """
        item = lay_out(prompts, answers)
        tokens, targets = len(item.tokens), len(item.target_ids)
        token_capacity, target_capacity = self._tokens_per_row, self.targets_per_row or targets
        if tokens <= token_capacity and targets <= target_capacity:
            return [DrawnItem(example, item)]
        half = len(answers) // 2
        if half and self._packing:
            parts = slice(None, half), slice(half, None)
            return [drawn for part in parts for drawn in self._laid_out(example, prompts[part], answers[part])]
        uid = self._sampler.examples[example].uid
        if tokens > token_capacity:
            cut = "" if self._cuts else "set train.long_text to cut, "
            raise InputError(
                f"example {uid}: {tokens} tokens, a row holds {token_capacity}; raise train.sequence_length, "
                f"{cut}or lower focus.branches"
            )
        raise InputError(
            f"example {uid}: {targets} target tokens, a row holds {target_capacity}; set train.targets_per_row to "
            f"{targets} or more"
        )
