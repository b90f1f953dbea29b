"""What one example is to focus instruction tuning: texts, an answer set, and the label each feature points to."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import NamedTuple

CORE = "core"


class Spurious(NamedTuple):
    """The value s that a spurious feature takes in one example, and the label y_s associated with it."""

    value: str
    label: int


class Turn(NamedTuple):
    """A question that was asked before in the same conversation: its focus instruction, and what was answered."""

    instruction: str
    answer: str


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
        own_answers: Whether the candidates are this row's own (multiple choice), so that the number of a label says
            nothing across rows.
        cluster: What the example shares with others, such as a template or a context: examples of one cluster tend to
            be right together, which intervals have to know. Empty where only the same source text makes them alike.
        part: The task of a mixture that it is of; empty where there is one task.
        earlier: What has been asked about it before in the same conversation. A prompt shows it where an instruction
            follows, which then holds in the place of all before it.
    """

    uid: str
    slots: Mapping[str, str]
    candidates: tuple[str, ...]
    label: int
    spurious: Mapping[str, Spurious]
    slices: Mapping[str, str] = field(default_factory=dict)
    own_answers: bool = False
    cluster: str = ""
    part: str = ""
    earlier: tuple[Turn, ...] = ()

    @property
    def named(self) -> str:
        """What messages call it: its uid, which is the task's own, and of a mixture the task."""
        return f"example {self.uid} of task {self.part}" if self.part else f"example {self.uid}"

    @property
    def source(self) -> str:
        """The uid of the source text, which variants of it share."""
        return self.uid.partition("#")[0]


# By spurious feature, its value and the answer's part of the pair.
Group = tuple[tuple[str, str], ...]


def group_of(example: Example) -> Group:
    """The group of an example in worst-group accuracy and in group DRO (Sagawa et al., 2020).

    Where a label means the same in every row the groups are the pairs (s, y). Where each row has answers of its own
    (multiple choice), they are (s, whether y = y_s): by the number of y, rows in which the stereotype is right and rows
    in which it is wrong would share a group, and a model that always follows s would have no group at 0.

    Returns:
        By feature in alphabetical order, the value s and the answer's part of the pair, as text; ("", y) where the
        example has no spurious feature.
    """
    pairs = ((s, group_answer(example, y_s)) for _, (s, y_s) in sorted(example.spurious.items()))
    return tuple(pairs) or (("", group_answer(example, example.label)),)


def group_answer(example: Example, spurious_label: int) -> str:
    """The answer's part of a group: y itself, or whether y = y_s where each row has answers of its own."""
    if example.own_answers:
        return "y = y_s" if example.label == spurious_label else "y != y_s"
    return example.candidates[example.label]


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
        other_names: What else features may be called, by feature key or `core`; training never shows these names.
        free: The answer is to be written freely, and is matched to the candidates afterwards.
        biased: Slots that a model reads which is to answer by the bias alone; without any, it is given the values of
            the spurious features.
        parts: Of a mixture, the words of each task by its name; its own are empty.
    """

    name: str
    instruction: str
    input_template: str
    cue: str
    core: str
    spurious: Mapping[str, str]
    other_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    free: bool = False
    biased: tuple[str, ...] = ()
    parts: Mapping[str, "TaskText"] = field(default_factory=dict)

    @property
    def each(self) -> tuple["TaskText", ...]:
        """The words of the tasks of a mixture, or these themselves."""
        return tuple(self.parts.values()) or (self,)

    def of(self, example: Example) -> "TaskText":
        """The words of the example's task: those of its part of a mixture, or these themselves."""
        return self.parts[example.part] if self.parts else self

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the texts that make an input."""
        return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.input_template) if name))


def with_features(text: TaskText, features: Collection[str]) -> TaskText:
    """The words of a task without those for features that are not among `features`."""
    names = {feature: name for feature, name in text.spurious.items() if feature in features}
    others = {feature: words for feature, words in text.other_names.items() if feature in (CORE, *features)}
    return replace(text, spurious=names, other_names=others)
