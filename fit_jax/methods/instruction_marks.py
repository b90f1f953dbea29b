"""Marks on the tokens of a prompt's focus instruction, for what steers attention towards it."""

from dataclasses import replace

import numpy as np

from fit_jax.evaluation.evaluator import Prompts
from fit_jax.evaluation.queries import Group
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.methods.intervention import INSTRUCTION, mark


class InstructionMarks:
    """Marks the tokens in which a prompt differs from the same prompt without an instruction."""

    def __init__(self, encoder: PromptEncoder) -> None:
        """`encoder` made the prompts."""
        self._encoder = encoder

    def __call__(self, group: Group, prompts: Prompts) -> Prompts:
        """The marked prompts of a group."""
        (plain,) = self._encoder.encode([group.queries[0].example], [""])
        return tuple(self._marked(p, plain.prompt) for p in prompts)

    @staticmethod
    def _marked(prompt: EncodedPrompt, plain: np.ndarray) -> EncodedPrompt:
        tokens = prompt.prompt
        shorter = min(len(tokens), len(plain))
        start = _agreement(tokens[:shorter], plain[:shorter])
        stop = len(tokens) - min(_agreement(tokens[::-1][:shorter], plain[::-1][:shorter]), shorter - start)
        return replace(
            prompt, prompt=np.concatenate([tokens[:start], mark(tokens[start:stop], INSTRUCTION), tokens[stop:]])
        )


def _agreement(a: np.ndarray, b: np.ndarray) -> int:
    differs = a != b
    return int(differs.argmax()) if differs.any() else len(a)
