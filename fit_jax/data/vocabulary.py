"""The tokenizer of a run: a given one, or one trained on the task's own prompts."""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import TYPE_CHECKING

from fit_jax.config import TokenizerConfig
from fit_jax.data.task import Task
from fit_jax.focus.example import TaskText
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, spec_for
from fit_jax.focus.tokenizers import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# More texts change a small vocabulary no more.
_MOST_EXAMPLES = 20_000


def task_tokenizer(task: Task, config: TokenizerConfig) -> "PreTrainedTokenizerFast":
    """Loads the tokenizer that the config names, or trains one on the task's training prompts.

    Raises:
        InputError: It cannot be loaded, or the vocabulary asked for is too small.
    """
    if config.path is not None:
        return load_tokenizer(config.path)
    return train_tokenizer(task_texts(task), config.vocab_size)


def task_texts(task: Task) -> Iterator[str]:
    """Training prompts with their answers, under every training paraphrase of their task in turn.

    Held-out paraphrases are left out, so that a vocabulary trained on these texts has not seen them.
    """
    instructions = {text.name: cycle(_instructions(text) or [""]) for text in task.text.each}
    for example in islice(task.splits["train"].examples, _MOST_EXAMPLES):
        text = task.text.of(example)
        focus = next(instructions[text.name])
        lines = [text.instruction, text.input_template.format_map(example.slots), focus, text.cue]
        yield "\n".join(lines) + " " + example.candidates[example.label]


def _instructions(text: TaskText) -> list[str]:
    return [
        instruction(text, spec_for(focus_type, feature), paraphrase)
        for feature in text.spurious
        for focus_type in FOCUS_TYPES
        for paraphrase in paraphrases_of(text.name, focus_type, "train")
        if paraphrase
    ]
