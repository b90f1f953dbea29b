"""Methods to train with, and to compare; one module each, found by its name.

A training method's module has `build(task, config) -> TrainingMethod`; `fit_jax.methods.method` says what that is. It
has `rows_branch(config) -> bool` too where the rows that it trains on may hold prompts that branch: several focus
instructions that share a text, or several candidate answers that share a prompt.
A training-free method's module has `METHOD`, a `fit_jax.methods.training_free.TrainingFree`.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, get_args

from fit_jax.config import Config, TrainedMethod

if TYPE_CHECKING:
    from fit_jax.data.task import Task
    from fit_jax.methods.method import TrainingMethod
    from fit_jax.methods.training_free import TrainingFree

TRAINED: tuple[str, ...] = get_args(TrainedMethod)
TRAINING_FREE = ("zero_shot", "few_shot", "activation_addition", "pasta", "spotlight")


def training_method(task: "Task", config: Config) -> "TrainingMethod":
    """The method that `train.method` names, for this task.

    Raises:
        InputError: Focus weights that make no sense, or a training split that is empty or that the method cannot use.
    """
    from fit_jax.data.focus_sampling import check_focus

    check_focus(config.focus)
    return _module(config.train.method).build(task, config)


def rows_branch(config: Config) -> bool:
    """Whether the rows that `train.method` trains on hold prompts that branch, known without the data."""
    module = _module(config.train.method)
    return hasattr(module, "rows_branch") and module.rows_branch(config)


def training_free_method(name: str) -> "TrainingFree":
    """The method of one of the names in `TRAINING_FREE`."""
    return _module(name).METHOD


def _module(method: str) -> ModuleType:
    return importlib.import_module(f"fit_jax.methods.{method}")
