"""The tasks: each builds its splits from a config and a seed; one registry names them."""

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from fit_jax.config import TaskConfig
from fit_jax.data.splits import Split
from fit_jax.errors import InputError
from fit_jax.focus.example import TaskText

TASKS = ("demo", "ss", "smnli", "shans", "bbq", "bbq_nlg", "jsonl")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A data set ready for focus instruction tuning.

    Attributes:
        text: The words around an example in a prompt.
        splits: By name: `train`, `validation`, then the test splits.
        notes: One line for each thing a user should know about how the data came out.
        dropped: Source rows left out, counted by reason.
    """

    text: TaskText
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def features(self) -> tuple[str, ...]:
        """Keys of the spurious features."""
        return tuple(self.text.spurious)

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Names of the splits that are evaluated."""
        return tuple(name for name in self.splits if name not in ("train", "validation"))


def build_task(config: TaskConfig, seed: int) -> Task:
    """The task `config.name`; the same config and seed give the same examples in the same order.

    Raises:
        InputError: Unknown task, missing or malformed files, or a split that the data cannot give.
    """
    if config.name not in TASKS:
        near = difflib.get_close_matches(config.name, TASKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the tasks are {', '.join(TASKS)}"
        raise InputError(f"--task.name: there is no task {config.name!r}; {hint}")
    if config.source == "array_record":
        from fit_jax.data.array_record import load_task  # imports this module

        return load_task(config, seed)
    return importlib.import_module(f"fit_jax.data.tasks.{config.name}").build(config, seed)
