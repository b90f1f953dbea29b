"""The tasks: each builds its splits from a config and a seed; one registry names them."""

import difflib
import importlib

from fit_jax.config import TaskConfig
from fit_jax.data.array_record import load_task
from fit_jax.data.task import Task
from fit_jax.errors import InputError

TASKS = ("demo", "ss", "smnli", "shans", "bbq", "bbq_nlg", "jsonl")


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
        return load_task(config, seed)
    return importlib.import_module(f"fit_jax.data.tasks.{config.name}").build(config, seed)
