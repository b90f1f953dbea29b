"""SFT(y_focus): the focus labels of focus tuning, without the instruction that explains them (paper, section 4)."""

from fit_jax.config import Config
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.methods.method import TrainingMethod, uninstructed
from fit_jax.training.objective import CROSS_ENTROPY


def build(task: Task, config: Config) -> TrainingMethod[Batch]:
    """Labels by the weights and branches of `focus`."""
    sampler = FocusSampler(task.splits["train"].examples, task.text, config.focus, shown=False, seed=config.seed)
    return TrainingMethod(sampler=sampler, objective=CROSS_ENTROPY, validated=uninstructed)
