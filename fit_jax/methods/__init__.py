"""Methods to train with, and to compare; one module each, found by the names listed here.

A training method's module has `build(task, config) -> TrainingMethod`; `fit_jax.methods.method` says what that is.
A training-free method's module has `METHOD`, a `fit_jax.methods.training_free.TrainingFree`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fit_jax.config import Config
    from fit_jax.data.task import Task
    from fit_jax.methods.method import TrainingMethod
    from fit_jax.methods.training_free import TrainingFree

# `train.method` takes these; `fit_jax.config` repeats them as its type.
TRAINED = ("fit", "sft_y", "sft_y_focus", "poe", "group_dro", "group_balanced", "jtt", "dfr")
TRAINING_FREE = ("zero_shot", "few_shot", "activation_addition", "pasta", "spotlight")


def training_method(task: "Task", config: "Config") -> "TrainingMethod":
    """The method that `train.method` names, for this task.

    Raises:
        InputError: Focus weights that make no sense, or a training split that is empty or that the method cannot use.
    """
    from fit_jax.data.focus_sampling import check_focus

    check_focus(config.focus)
    return importlib.import_module(f"fit_jax.methods.{config.train.method}").build(task, config)


def rows_branch(config: "Config") -> bool:
    """Whether the rows that `train.method` trains on hold prompts that branch, known without the data.

    Several focus instructions share a text, or several candidate answers a prompt.
    """
    return {
        "fit": config.focus.branches > 1,
        "sft_y_focus": config.focus.branches > 1,
        "poe": True,
        "group_dro": True,
    }.get(config.train.method, False)


def training_free_method(name: str) -> "TrainingFree":
    """The method of one of the names in `TRAINING_FREE`."""
    return importlib.import_module(f"fit_jax.methods.{name}").METHOD
