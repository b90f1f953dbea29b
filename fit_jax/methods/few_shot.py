"""Few-shot prompting: solved examples with their focus instructions before the question (paper, section 4)."""

from dataclasses import dataclass, replace

from fit_jax.config import Config
from fit_jax.data.keyed_generator import generator
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Prompts, Subject
from fit_jax.evaluation.metrics import group_by
from fit_jax.evaluation.queries import Group, Query, ask
from fit_jax.focus.example import TaskText
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.methods.training_free import Base, TrainingFree


def few_shot(base: Base, task: Task, config: Config, shots: int) -> tuple[Subject, str]:
    """The base model, whose prompts begin with `shots` solved training examples, drawn afresh for every text.

    The examples and the focus type of each are a pure function of the seed and the text that is asked about; its
    questions under different instructions share them. No type recurs before all have been shown. Rows grow with the
    shots, so the prompts have no length limit of their own.

    Raises:
        InputError: More shots than training examples.
    """
    count = len(task.splits["train"].examples)
    if shots > count:
        raise InputError(f"shots: {shots}, but the training split holds {count} examples; take fewer")
    unlimited = PromptEncoder(base.encoder.tokenizer, task.text, config.focus.place, config.tokenizer.template)
    return replace(base.plain(unlimited), prepare=_Shots(task, config, shots, unlimited)), ""


@dataclass(frozen=True)
class _Shots:
    """Puts solved examples before the prompts of a group."""

    task: Task
    config: Config
    shots: int
    encoder: PromptEncoder

    def __call__(self, group: Group, prompts: Prompts) -> Prompts:
        """The prompts of the group, rebuilt with the shots of its text."""
        text, example = self.task.text, group.queries[0].example
        # A rule on a line of its own, since the prompt code keeps no empty line between the instruction and the input.
        instruction = "\n---\n".join([text.instruction, *self._solved(example.uid), ""])
        place, template = self.config.focus.place, self.config.tokenizer.template
        encoder = PromptEncoder(self.encoder.tokenizer, replace(text, instruction=instruction), place, template)
        return tuple(encoder.encode([example] * len(group.instructions), group.instructions))

    def _solved(self, uid: str) -> list[str]:
        seed, examples = self.config.seed, self.task.splits["train"].examples
        rng = generator(seed, "few_shot", uid)
        waiting: list[str] = []  # focus types that have not been shown since all were
        solved = []
        for index in rng.choice(len(examples), self.shots, replace=False).tolist():
            asked = ask(self.task.text, "train", examples[index], ("train",), seed).queries
            queries = group_by(asked, lambda q: q.focus)
            if not any(focus in queries for focus in waiting):
                waiting = rng.permutation(list(queries)).tolist()
            focus = next(focus for focus in waiting if focus in queries)
            waiting.remove(focus)
            features = queries[focus]
            solved.append(_shot(self.task.text, features[rng.integers(len(features))], self.config.focus.place))
        return solved


def _shot(text: TaskText, query: Query, place: str) -> str:
    example = query.example
    lines = [text.input_template.format_map(example.slots), query.instruction]
    if place != "after":
        lines.reverse()
    return "\n".join([line for line in lines if line] + [f"{text.cue} {example.candidates[query.label]}"])


METHOD = TrainingFree(few_shot)
