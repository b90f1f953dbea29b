"""Focus instruction tuning: the focus label under a focus instruction drawn at random (paper, section 3)."""

from fit_jax.config import Config
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.methods.method import TrainingMethod, as_instructed
from fit_jax.training.objective import CROSS_ENTROPY


def build(task: Task, config: Config) -> TrainingMethod[Batch]:
    """Instructions and labels by the weights and branches of `focus`."""
    sampler = FocusSampler(task.splits["train"].examples, task.text, config.focus, shown=True, seed=config.seed)
    return TrainingMethod(sampler=sampler, objective=CROSS_ENTROPY, validated=as_instructed)
