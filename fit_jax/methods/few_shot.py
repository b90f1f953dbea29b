"""Few-shot prompting: solved examples with their focus instructions before the question (paper, section 4)."""

from dataclasses import replace

from fit_jax.config import Config
from fit_jax.data.keyed_generator import generator
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.metrics import group_by
from fit_jax.evaluation.queries import Query, ask
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
    solved = _solved(task, place, shots, config.seed)
    # A rule on a line of its own, since the prompt code keeps no empty line between the instruction and the input.
    text = replace(task.text, instruction="\n---\n".join([task.text.instruction, *solved, ""]))
    return base.plain(PromptEncoder(base.encoder.tokenizer, text, place, config.tokenizer.template)), ""


def _solved(task: Task, place: str, shots: int, seed: int) -> list[str]:
    examples = task.splits["train"].examples
    if shots > len(examples):
        raise InputError(f"shots: {shots}, but the training split holds {len(examples)} examples; take fewer")
    rng = generator(seed, "few_shot")
    waiting: list[str] = []  # focus types that have not been shown since all were
    solved = []
    for index in rng.permutation(len(examples))[:shots].tolist():
        queries = group_by(ask(task.text, "train", examples[index], ("train",), seed).queries, lambda q: q.focus)
        if not any(focus in queries for focus in waiting):
            waiting = rng.permutation(list(queries)).tolist()
        focus = next(focus for focus in waiting if focus in queries)
        waiting.remove(focus)
        features = queries[focus]
        solved.append(_shot(task.text, features[rng.integers(len(features))], place))
    return solved


def _shot(text: TaskText, query: Query, place: str) -> str:
    example = query.example
    lines = [text.input_template.format_map(example.slots), query.instruction]
    if place == "before":
        lines.reverse()
    return "\n".join([line for line in lines if line] + [f"{text.cue} {example.candidates[query.label]}"])


METHOD = TrainingFree(few_shot)
