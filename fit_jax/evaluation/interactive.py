"""One text under several focus instructions: what the model answers to each, and how sure it is."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.metrics import probabilities
from fit_jax.focus.example import CORE, Example, Turn
from fit_jax.focus.instructions import first_instruction
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES, FocusSpec, check_spec, spec_for
from fit_jax.foreign import quoted, shown

if TYPE_CHECKING:
    from rich.table import Table

# How the command line gives answers to choose from.
_CANDIDATES = '--candidate "one answer" --candidate "another"'
# Examples of each split that tell whether a slot holds a few values or free texts, rows that each of a few values has
# on average at least, and values that a line names.
_LOOKED_AT, _ROWS_EACH, _SHOWN = 500, 20, 6


@dataclass(frozen=True)
class FocusAnswer:
    """The model's answer under one focus instruction.

    Attributes:
        spec: What is focused on and ignored; None where the instruction is the user's own.
        instruction: The focus instruction.
        candidates: The answers to choose from.
        probabilities: Of each candidate, given that the answer is one of them.
    """

    spec: FocusSpec | None
    instruction: str
    candidates: tuple[str, ...]
    probabilities: Float[np.ndarray, " candidates"]

    @property
    def answer(self) -> str:
        """The most probable candidate."""
        return self.candidates[int(self.probabilities.argmax())]


class FocusQuestions:
    """What is asked about each text: the focus specifications and the answers to choose from.

    Attributes:
        slots: Names of the texts that make up an input.
        candidates: The answers to choose from.
    """

    def __init__(
        self,
        task: Task,
        focus: str | None,
        ignore: str | None,
        candidates: Sequence[str],
        instruction: str | None = None,
        earlier: Sequence[Turn] = (),
    ) -> None:
        """Reads the options of the command `steer`.

        Args:
            task: The task the model was tuned on.
            focus: Comma-separated features to focus on, `core` included; with `ignore` None, all focus types are asked.
            ignore: Comma-separated features to ignore.
            candidates: The answers to choose from; none means the task's own.
            instruction: A focus instruction in the user's own words, in place of `focus` and `ignore`.
            earlier: What was asked about each text before, in the same conversation.

        Raises:
            InputError: A feature that the task lacks or that stands on both sides, answers that differ from example to
                example and are not given, or given without a choice among them, or turns before and no instruction.
        """
        self.slots = task.text.slots
        self._text = task.text
        # A run keeps what is evaluated alone.
        self._splits = tuple(split for name, split in task.splits.items() if name != "train")
        self._asked: list[tuple[FocusSpec | None, str]]
        if instruction is not None:
            if focus or ignore:
                raise InputError("instruction: takes the place of focus and ignore; give the one or the others")
            self._asked = [(None, " ".join(instruction.split()))]
        else:
            every = focus is None and ignore is None
            specs = all_specs(task) if every else [asked_spec(task, focus or "", ignore or "")]
            self._asked = [(spec, first_instruction(task.text, spec)) for spec in specs]
        self._earlier = tuple(earlier)
        if earlier and not self._asked[0][1]:
            raise InputError("earlier: a later turn is a focus instruction; give focus, ignore or instruction")
        self.candidates = tuple(candidates) or common_candidates(task)
        if candidates and (len(set(candidates)) < max(len(candidates), 2) or not all(c.strip() for c in candidates)):
            raise InputError("candidates: give two different answers or more, none of them empty", _CANDIDATES)
        if not self.candidates:
            raise InputError(f"task {task.text.name} has other answers in each example; give candidates", _CANDIDATES)

    def fill(self, text: str | Mapping[str, str]) -> dict[str, str]:
        """The input's slots from its one text, or from each text by the name of its slot.

        Raises:
            InputError: A slot is unknown or missing.
        """
        usage = " ".join(f"--slot {shlex.quote(f'{name}=the text')}" for name in self.slots)
        if isinstance(text, str):
            if len(self.slots) != 1:
                several = ", ".join(map(shown, self.slots))
                raise InputError(f"task {self._text.name} has several texts ({several}); give each by its name", usage)
            text = {self.slots[0]: text}
        if unknown := [name for name in text if name not in self.slots]:
            near = get_close_matches(unknown[0], self.slots, 1)
            hint = f"did you mean {quoted(near[0])}?" if near else f"give {', '.join(map(quoted, self.slots))}"
            raise InputError(f"{quoted(unknown[0])} is no text of the input; {hint}", usage)
        if missing := [name for name in self.slots if not text.get(name, "").strip()]:
            raise InputError(f"no text for {', '.join(map(shown, missing))}; give it", usage)
        return dict(text)

    def unknown(self, slots: Mapping[str, str]) -> Iterator[str]:
        """A line for each text that should be one of a few values, as those of the data are, and is none of them."""
        for name, value in slots.items():
            known = self._few_values[name]
            if known and value not in known:
                near = get_close_matches(value.casefold(), [v.casefold() for v in known], 1)
                like = [v for v in known if near and v.casefold() == near[0]]
                few = ", ".join(map(quoted, known[:_SHOWN]))
                hint = f"did you mean {quoted(like[0])}?" if like else f"the data have {few}"
                yield f"{shown(name)}: {quoted(value)} is in no row of the data that the run keeps; {hint}"

    @cached_property
    def _few_values(self) -> dict[str, list[str]]:
        """The values of each slot, frequent ones first, where the task's examples have few; none of free texts."""
        examples = [example for split in self._splits for example in split.examples[:_LOOKED_AT]]
        counts = {name: Counter(example.slots[name] for example in examples) for name in self.slots}
        texts = {name: [text for text, _ in count.most_common()] for name, count in counts.items()}
        return {name: found if len(found) * _ROWS_EACH <= len(examples) else [] for name, found in texts.items()}

    def answers(self, subject: Subject, inputs: Sequence[Mapping[str, str]]) -> Iterator[list[FocusAnswer]]:
        """The answers to each input, by its slots, under each specification in its first training paraphrase."""
        prompts = [self.prompts(subject.encoder, slots) for slots in inputs]
        for scores in subject.scorer.score(subject.params, prompts):
            yield [
                FocusAnswer(spec, instruction, self.candidates, probabilities(score.log_prob))
                for (spec, instruction), score in zip(self._asked, scores)
            ]

    def prompts(self, encoder: PromptEncoder, slots: Mapping[str, str]) -> list[EncodedPrompt]:
        """The prompt that asks about an input under each specification."""
        example = Example("input", slots, self.candidates, 0, {}, earlier=self._earlier)
        return encoder.encode([example] * len(self._asked), [words for _, words in self._asked])

    def table(self, subject: Subject, slots: Mapping[str, str]) -> "Table":
        """The answers side by side, for `rich` to print."""
        from rich.table import Table

        table = Table()
        table.add_column("focus", no_wrap=True)
        table.add_column("instruction")
        table.add_column("answer", style="bold")
        for candidate in self.candidates:
            table.add_column(f"p({candidate})", justify="right")
        (answers,) = self.answers(subject, [slots])
        for a in answers:
            table.add_row(str(a.spec), a.instruction, a.answer, *(f"{p:.3f}" for p in a.probabilities))
        return table


@dataclass(frozen=True)
class LabelledText:
    """A text of a task's data and the answers that its features point to.

    Attributes:
        text: Each text of the input, by its slot.
        candidates: The answers to choose from.
        values: What each spurious feature is in this text.
        answers: What each feature points to, `core` first: the true answer, and those that the data tie to the values.
    """

    text: Mapping[str, str]
    candidates: tuple[str, ...]
    values: Mapping[str, str]
    answers: Mapping[str, str]


def labelled_texts(task: Task, split: str, count: int) -> list[LabelledText]:
    """The first texts of a split.

    Raises:
        InputError: The task has no such split, or has not kept its examples, or `count` is negative.
    """
    if count < 0:
        raise InputError(f"count {count}: is no number of texts; give 0 or more")
    if split not in task.splits:
        raise InputError(f"split {quoted(split)}: task {task.text.name} has {', '.join(task.splits)}")
    return [
        LabelledText(
            text={name: example.slots[name] for name in task.text.slots},
            candidates=example.candidates,
            values={name: feature.value for name, feature in example.spurious.items()},
            answers={CORE: example.candidates[example.label]}
            | {name: example.candidates[feature.label] for name, feature in example.spurious.items()},
        )
        for example in task.splits[split].examples[:count]
    ]


def read_slots(names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Asks for the texts of one input after another, until the end of input or an interrupt; empty lines ask again."""
    import readline  # noqa: F401  gives `input` its line editing and history

    print("One text at a time; end with Ctrl-D.", flush=True)
    while True:
        try:
            slots = {name: _read_line(name) for name in names}
        except (EOFError, KeyboardInterrupt):
            print()
            return
        yield slots


def _read_line(name: str) -> str:
    while not (text := input(f"{name}> ").strip()):
        pass
    return text


def all_specs(task: Task) -> list[FocusSpec]:
    """The six evaluated focus types for each of the task's spurious features."""
    return list(dict.fromkeys(spec_for(focus, feature) for feature in task.features for focus in FOCUS_TYPES))


def asked_spec(task: Task, focus: str, ignore: str) -> FocusSpec:
    """The specification of the comma-separated feature names to focus on and to ignore.

    Raises:
        InputError: A name is no feature of the task, or stands in both lists, or all features are to be ignored.
    """

    def names(text: str) -> tuple[str, ...]:
        return tuple(name.strip() for name in text.split(",") if name.strip())

    spec = FocusSpec(names(focus), names(ignore))
    features = (CORE, *task.features)
    check_spec(spec, features)
    if set(spec.ignore) == set(features):
        raise InputError(f"ignore {ignore}: nothing is left to answer by; leave out one of {', '.join(features)}")
    return spec


def common_candidates(task: Task) -> tuple[str, ...]:
    """The answers to choose from where all examples share them, else none."""
    sets = {example.candidates for example in task.splits["validation"].examples[:100]}
    return next(iter(sets)) if len(sets) == 1 else ()
