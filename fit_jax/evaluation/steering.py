"""One text under several focus instructions: what the model answers to each, and how sure it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from fit_jax.data.tasks import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.metrics import probabilities
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.example import CORE, Example, TaskText
from fit_jax.focus.instructions import instruction, wordings
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES, FocusSpec, check_spec, spec_for

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Steered:
    """The model's answer under one focus instruction.

    Attributes:
        spec: What is focused on and ignored.
        instruction: The words that said so.
        candidates: The answers to choose from.
        probabilities: Of each candidate, given that the answer is one of them.
    """

    spec: FocusSpec
    instruction: str
    candidates: tuple[str, ...]
    probabilities: Float[np.ndarray, " candidates"]

    @property
    def answer(self) -> str:
        """The most probable candidate."""
        return self.candidates[int(self.probabilities.argmax())]


def steer(
    text: TaskText,
    slots: Mapping[str, str],
    candidates: Sequence[str],
    specs: Sequence[FocusSpec],
    encoder: PromptEncoder,
    scorer: Scorer,
    params: Any,
) -> list[Steered]:
    """The answers to one input under each focus specification, in the first training wording of each.

    Raises:
        InputError: A specification names a feature that the task lacks.
    """
    example = Example("steered", slots, tuple(candidates), 0, {})
    words = [instruction(text, spec, wordings(text.name, spec, "train")[0]) for spec in specs]
    (scores,) = scorer.score(params, [encoder.encode([example] * len(specs), words)])
    return [
        Steered(spec, said, example.candidates, probabilities(score.log_prob))
        for spec, said, score in zip(specs, words, scores)
    ]


def all_specs(task: Task) -> list[FocusSpec]:
    """The six evaluated focus types for each of the task's spurious features."""
    return list(dict.fromkeys(spec_for(focus, feature) for feature in task.features for focus in FOCUS_TYPES))


def asked_spec(task: Task, focus: str, ignore: str) -> FocusSpec:
    """The specification of the comma-separated feature names to focus on and to ignore.

    Raises:
        InputError: A name is no feature of the task, or stands in both lists.
    """

    def names(text: str) -> tuple[str, ...]:
        return tuple(name.strip() for name in text.split(",") if name.strip())

    spec = FocusSpec(names(focus), names(ignore))
    check_spec(spec, (CORE, *task.features))
    return spec


def slot_names(text: TaskText) -> tuple[str, ...]:
    """Names of the texts that make up an input of the task."""
    return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(text.input_template) if name))


def fill_slots(text: TaskText, whole: str | None, named: Sequence[str]) -> dict[str, str]:
    """The input's slots from `--text` (tasks of one slot) or from `--slot name=text` pairs.

    Raises:
        InputError: A slot is unknown or missing, or a pair has no `=`.
    """
    known = slot_names(text)
    slots = {}
    if whole is not None:
        if len(known) != 1:
            raise InputError(f"--text: task {text.name} has {len(known)} texts; give each: {_slot_usage(known)}")
        slots[known[0]] = whole
    for pair in named:
        name, equals, value = pair.partition("=")
        if not equals or name not in known:
            raise InputError(f"--slot {pair!r}: write {_slot_usage(known)}")
        slots[name] = value
    missing = [name for name in known if not slots.get(name, "").strip()]
    if missing:
        raise InputError(f"--slot: no text for {', '.join(missing)}; write {_slot_usage(known)}")
    return slots


def common_candidates(task: Task) -> tuple[str, ...] | None:
    """The answers to choose from where all examples share them, else None."""
    sets = {example.candidates for example in task.splits["train"].examples[:100]}
    return next(iter(sets)) if len(sets) == 1 else None


def steered_table(answers: Sequence[Steered]) -> "Table":
    """The answers side by side, for `rich` to print."""
    from rich.table import Table

    table = Table(show_lines=False)
    table.add_column("focus", no_wrap=True)
    table.add_column("instruction")
    table.add_column("answer", style="bold")
    for candidate in answers[0].candidates:
        table.add_column(f"p({candidate})", justify="right")
    for a in answers:
        table.add_row(str(a.spec), a.instruction, a.answer, *(f"{p:.3f}" for p in a.probabilities))
    return table


def _slot_usage(known: Sequence[str]) -> str:
    return " ".join(f'--slot {name}="..."' for name in known)
