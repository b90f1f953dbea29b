"""Zero-shot: the model as it is, asked as any other."""

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Subject
from fit_jax.methods.training_free import Base, TrainingFree


def zero_shot(base: Base, task: Task, config: Config, shots: int) -> tuple[Subject, str]:
    """The base model."""
    return base.plain(), ""


METHOD = TrainingFree(zero_shot)
