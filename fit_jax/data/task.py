"""The record of a task: what every data set comes to, whatever its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fit_jax.data.splits import Split
from fit_jax.focus.example import TaskText


@dataclass(frozen=True, kw_only=True)
class Task:
    """A data set ready for focus instruction tuning.

    Attributes:
        text: The words around an example in a prompt.
        splits: By name: `train`, `validation`, then the test splits.
        notes: One line for each thing a user should know about how the data came out.
        dropped: Source rows left out, counted by reason.
        parts: Of a mixture, its tasks by name; its own splits are those for training and validation.
        weights: Of a mixture, the weight of each part in training; 0 where it is held out.
    """

    text: TaskText
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, "Task"] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def each(self) -> Mapping[str, "Task"]:
        """The tasks of a mixture by name, or the task itself: what is evaluated one by one."""
        return self.parts or {self.text.name: self}

    @property
    def features(self) -> tuple[str, ...]:
        """Keys of the spurious features."""
        return tuple(self.text.spurious)

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Names of the splits that are evaluated."""
        return tuple(name for name in self.splits if name not in ("train", "validation"))
