"""JTT, just train twice (Liu et al., 2021: improving group robustness without training group information).

A first run of cross-entropy is stopped after a few steps. The training examples that it has wrong are its error set E,
equation (3) of the paper; it leans on what is easy, so that E holds the examples that the shortcut fails on. A second
run starts afresh and minimises the cross-entropy in which every example of E counts lambda times, equation (4). No
group is known to either; groups serve the choice of the checkpoint alone (`train.best: worst_group`).

As in the paper E is upsampled: an epoch of the second run takes its examples `train.jtt_weight` = lambda times. The
first run takes the share `train.jtt_first` of the run's steps and the second the rest, with a learning-rate schedule
each.

Differences: the paper tunes the length of the first run and lambda by the worst group of validation, and gives the
second run a full budget; here both are fields of the config, and the two runs share the budget that other methods have.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from fit_jax.config import Config
from fit_jax.data.orders import Repeated
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Subject, answer
from fit_jax.evaluation.queries import Group, Query
from fit_jax.focus.example import Example
from fit_jax.methods.method import SecondStage, TrainingMethod
from fit_jax.methods.plain import plain


def build(task: Task, config: Config) -> TrainingMethod[Batch]:
    """The first run, and what follows."""

    def again(first: Subject) -> TrainingMethod[Batch]:
        examples = task.splits["train"].examples
        wrong = error_set(first, examples)
        method = plain(task, config, order=Repeated(np.where(wrong, config.train.jtt_weight, 1)))
        return replace(method, figures=_figures(examples, wrong))

    return replace(plain(task, config), second=SecondStage(1 - config.train.jtt_first, again, goes_on=False))


def error_set(model: Subject, examples: Sequence[Example]) -> Bool[np.ndarray, " examples"]:
    """Which examples the model has wrong when it is asked without a focus instruction."""
    groups = [Group.of([Query(e, "train", "none", "", "train", "", e.label)]) for e in examples]
    return np.array([not prediction.correct for (prediction,) in answer(groups, model)], bool)


def _figures(examples: Sequence[Example], wrong: Bool[np.ndarray, " examples"]) -> dict[str, float]:
    """The error set's share of the examples, and how much of it has y other than every y_s."""
    opposed = np.array([all(s.label != e.label for s in e.spurious.values()) for e in examples])
    return {"error_set": float(wrong.mean()), "error_set_opposed": float(opposed[wrong].mean()) if wrong.any() else 0.0}
