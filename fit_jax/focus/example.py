"""What one example is to focus instruction tuning: texts, an answer set, and the label each feature points to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

CORE = "core"


class Spurious(NamedTuple):
    """The value s that a spurious feature takes in one example, and the label y_s associated with it."""

    value: str
    label: int


@dataclass(frozen=True, slots=True)
class Example:
    """One example of any task.

    Attributes:
        uid: Unique and stable within the task; the same source text has the same uid prefix before `#` in every split.
        slots: The input x, by slot name, as the task's `input_template` uses them.
        candidates: The answers to choose from, in the order in which labels count them.
        label: Index of the true answer y in `candidates`.
        spurious: Per spurious feature, its value and the index of its associated label y_s.
        slices: Named properties to break results down by (BBQ polarity, ambiguity, ...).
    """

    uid: str
    slots: Mapping[str, str]
    candidates: tuple[str, ...]
    label: int
    spurious: Mapping[str, Spurious]
    slices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TaskText:
    """The words that turn an example of a task into a prompt.

    Attributes:
        name: The task's registry name; selects the paraphrases of focus instructions.
        instruction: The task instruction I.
        input_template: The input x as a format string over the example's slots.
        cue: Ends the prompt where no chat template does; the answer follows after one space.
        core: What the core feature is called in an instruction ("the sentiment").
        spurious: What each spurious feature is called in an instruction, by feature key ("gender" -> "gender").
        free: The answer is to be written freely, and is matched to the candidates afterwards.
    """

    name: str
    instruction: str
    input_template: str
    cue: str
    core: str
    spurious: Mapping[str, str]
    free: bool = False
