"""The tasks: each builds its splits from a config and a seed; one registry names them."""

import difflib
import importlib

from fit_jax.config import MIXTURE, TaskConfig
from fit_jax.data.array_record import load_task
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.foreign import quoted, shown
from fit_jax.plugins import build_plugin, plugin_names

TASKS = ("demo", "ss", "smnli", "shans", "bbq", "bbq_nlg", "jsonl")


def build_task(config: TaskConfig, seed: int) -> Task:
    """The task `config.name`; the same config and seed give the same examples in the same order.

    Args:
        config: Names the data; its own seed, where it has one, comes before the run's.
        seed: The run's.

    Raises:
        InputError: Unknown task, a broken one of another package, missing or malformed files, or a split that the data
            cannot give.
    """
    known = (*TASKS, MIXTURE)
    own = () if config.name in known else plugin_names("tasks")
    if config.name not in (*known, *own):
        near = difflib.get_close_matches(config.name, (*known, *own), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the tasks are {', '.join((*known, *own))}"
        raise InputError(f"task.name: there is no task {quoted(config.name)}; {hint}")
    if odd := [
        feature for feature in config.rho_train_of if len(config.features) < 2 or feature not in config.features
    ]:
        raise InputError(
            f"task.rho_train_of: {quoted(odd[0])} is none of several task.features; add it there, or set task.rho_train"
        )
    seed = config.drawn_by(seed)
    if config.source == "array_record":
        task = load_task(config, seed)
    elif config.name in own:
        task = build_plugin("tasks", config.name, Task, config, seed)
    else:
        task = importlib.import_module(f"fit_jax.data.tasks.{config.name}").build(config, seed)
    if config.features and {*config.features} != {*task.features}:
        raise InputError(
            f"task.features: task {config.name} leaves no choice: its features are "
            f"{', '.join(map(shown, task.features))}; leave task.features empty"
        )
    return task
