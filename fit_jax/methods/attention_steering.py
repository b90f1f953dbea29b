"""Attention steered towards the focus instruction, in the way of PASTA (Zhang et al., 2024) and Spotlight."""

from dataclasses import replace
from math import log

import jax.numpy as jnp
import numpy as np

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Prompts, Subject
from fit_jax.evaluation.queries import Group
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.methods.intervention import INSTRUCTION, mark
from fit_jax.methods.steering import best_intervention, nothing
from fit_jax.methods.training_free import Base, TrainingFree

BIASES = tuple(log(factor) for factor in (2, 5, 20, 100))  # how much more an instruction token is attended to


def attention_steering(base: Base, task: Task, config: Config, shots: int) -> tuple[Subject, str]:
    """A bias is added to the attention scores of the instruction's tokens, in every layer and head.

    Returns:
        Who to evaluate, and the bias that was chosen.
    """
    unbiased = nothing(base)
    options = {
        f"instruction tokens weigh {np.exp(bias):.0f} times as much": unbiased._replace(
            instruction_bias=jnp.float32(bias)
        )
        for bias in BIASES
    }
    return best_intervention(base, task, config.seed, options, _InstructionMarks(base.encoder))


class _InstructionMarks:
    """Marks the tokens in which a prompt differs from the same prompt without an instruction."""

    def __init__(self, encoder: PromptEncoder) -> None:
        self._encoder = encoder

    def __call__(self, group: Group, prompts: Prompts) -> Prompts:
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


METHOD = TrainingFree(attention_steering, steers=True)
