"""Few-shot prompting: solved examples with their focus instructions before the question (paper, section 4)."""

from collections.abc import Mapping
from dataclasses import replace

from fit_jax.config import Config
from fit_jax.data.keyed_generator import generator
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.queries import ask
from fit_jax.focus.example import TaskText
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.methods.training_free import Base, TrainingFree


def few_shot(base: Base, task: Task, config: Config, shots: int) -> tuple[Subject, str]:
    """The base model, whose prompts begin with `shots` solved training examples, the same for every question of a seed.

    The examples and the focus type of each are drawn from the seed; no type recurs before all have been shown. Rows
    grow with the shots, so the prompts have no length limit of their own.

    Raises:
        InputError: More shots than training examples.
    """
    place = config.focus.place
    text = replace(task.text, instruction=f"{task.text.instruction}\n\n{_solved(task, place, shots, config.seed)}\n")
    return base.plain(PromptEncoder(base.encoder.tokenizer, text, place, config.tokenizer.template)), ""


def _solved(task: Task, place: str, shots: int, seed: int) -> str:
    examples = task.splits["train"].examples
    if shots > len(examples):
        raise InputError(f"shots: {shots}, but the training split holds {len(examples)} examples; take fewer")
    rng = generator(seed, "few_shot")
    order: list[int] = []
    parts = []
    for index in rng.permutation(len(examples))[:shots]:
        queries = ask(task.text, "train", examples[index], ("train",), seed).queries
        if not order:
            order = rng.permutation(len(queries)).tolist()
        query = queries[order.pop() % len(queries)]
        parts.append(
            _shot(task.text, query.example.slots, query.instruction, place, query.example.candidates[query.label])
        )
    return "\n\n".join(parts)


def _shot(text: TaskText, slots: Mapping[str, str], instruction: str, place: str, answer: str) -> str:
    lines = [text.input_template.format_map(slots), instruction]
    if place == "before":
        lines.reverse()
    return "\n".join([line for line in lines if line] + [f"{text.cue} {answer}"])


METHOD = TrainingFree(few_shot)
