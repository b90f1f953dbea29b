"""Few-shot prompting: solved examples with their focus instructions before the question (paper, section 4)."""

from dataclasses import replace

from fit_jax.data.keyed_generator import generator
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.queries import ask
from fit_jax.focus.example import TaskText
from fit_jax.focus.prompts import PromptEncoder


def few_shot_encoder(
    encoder: PromptEncoder, task: Task, place: str, template: str, shots: int, seed: int
) -> PromptEncoder:
    """An encoder whose prompts begin with `shots` solved training examples, the same for every question of a seed.

    The examples and the focus type of each are drawn from the seed; no type recurs before all have been shown. Rows
    grow with the shots, so the encoder has no length limit of its own.

    Args:
        encoder: Gives the tokenizer.
        task: Gives the training examples and the words around them.
        place: Where focus instructions stand, as in the config.
        template: Prompt form, as in the config.
        shots: Number of examples.
        seed: Draws them.

    Raises:
        InputError: More shots than training examples.
    """
    text = replace(task.text, instruction=f"{task.text.instruction}\n\n{_solved(task, place, shots, seed)}\n")
    return PromptEncoder(encoder.tokenizer, text, place=place, template=template)


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


def _shot(text: TaskText, slots: dict[str, str], instruction: str, place: str, answer: str) -> str:
    lines = [text.input_template.format_map(slots), instruction]
    if place == "before":
        lines.reverse()
    return "\n".join([line for line in lines if line] + [f"{text.cue} {answer}"])
