"""Methods to train with, and to compare; one module each, found by its name, here or in a package of the user's own.

A training method's module has `build(task, config) -> TrainingMethod`; `fit_jax.methods.method` says what that is. It
also has `ALL_CANDIDATES = True` where its loss compares all candidates of an example, which plans mention.
A training-free method's module has `METHOD`, a `fit_jax.methods.training_free.TrainingFree`.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, get_args

from fit_jax.config import Config
from fit_jax.errors import InputError
from fit_jax.focus_config import FocusConfig
from fit_jax.foreign import listed
from fit_jax.plugins import build_plugin, load_plugin, plugin_names
from fit_jax.train_config import TrainedMethod

if TYPE_CHECKING:
    from fit_jax.data.task import Task
    from fit_jax.methods.method import TrainingMethod
    from fit_jax.methods.training_free import TrainingFree

TRAINED: tuple[str, ...] = get_args(TrainedMethod)
# Those that take of an example nothing but its own task's words.
OF_MIXTURES = ("fit", "sft_y", "sft_y_focus")
# Those whose prompts hold no focus instruction.
UNINSTRUCTED = tuple(name for name in TRAINED if name != "fit")
TRAINING_FREE = ("zero_shot", "few_shot", "activation_addition", "pasta", "spotlight", "knob")


def training_method(task: "Task", config: Config) -> "TrainingMethod":
    """The method that `train.method` names, for this task.

    Raises:
        InputError: Focus weights that make no sense, a training split that is empty or that the method cannot use, a
            mixture with a method that knows one task, or earlier turns or combinations of features with one that shows
            no instruction.
    """
    from fit_jax.data.focus_sampling import check_focus

    check_focus(config.focus)
    if not trains(config.train.method):
        raise InputError(f"train.method: {config.train.method} trains nothing; use it in an experiment")
    if task.parts and config.train.method not in OF_MIXTURES:
        raise InputError(
            f"train.method: {config.train.method} knows one task; train a mixture with {listed(OF_MIXTURES, 3)}"
        )
    from fit_jax.methods.method import TrainingMethod, true_label, uninstructed

    if config.train.method in TRAINED:
        method = _module(config.train.method).build(task, config)
    else:
        method = build_plugin("methods", config.train.method, TrainingMethod, task, config)
    if method.validated in (true_label, uninstructed):
        check_shows_instructions(config.focus, config.train.method)
    return method


def check_shows_instructions(focus: FocusConfig, method: str, prefix: str = "") -> None:
    """Raises InputError where `focus` asks for what a method that shows no instruction cannot train on."""
    for name, remedy in (
        ("turn_share", "so that none can follow another; set it to 0"),
        ("combinations", "so that none can name several features; set it to 0, and focus.held_out asks about them"),
    ):
        if share := getattr(focus, name):
            raise InputError(f"{prefix}focus.{name}: {share}, but {method} trains without focus instructions, {remedy}")


def training_free_method(name: str) -> "TrainingFree":
    """The method of a name that does not train."""
    return _module(name).METHOD


def known_methods() -> tuple[str, ...]:
    """The names of all methods, with those of other packages."""
    return (*TRAINING_FREE, *TRAINED, *plugin_names("methods"))


def trains(name: str) -> bool:
    """Whether the method of one of the `known_methods` trains.

    Raises:
        InputError: It is a broken one of another package.
    """
    return name in TRAINED or (name not in TRAINING_FREE and hasattr(_module(name), "build"))


def compares_candidates(name: str) -> bool:
    """Whether the loss of one of the `known_methods` compares all candidates of an example, so that rows hold them all.

    Raises:
        InputError: It is a broken one of another package.
    """
    return getattr(_module(name), "ALL_CANDIDATES", False)


def _module(method: str) -> ModuleType:
    if method in (*TRAINED, *TRAINING_FREE):
        return importlib.import_module(f"fit_jax.methods.{method}")
    return load_plugin("methods", method, "build", "METHOD")
