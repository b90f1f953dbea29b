"""SFT(y): supervised fine-tuning on the true labels, without focus instructions (paper, section 4)."""

from fit_jax.config import Config
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.methods.method import TrainingMethod
from fit_jax.methods.plain import plain


def build(task: Task, config: Config) -> TrainingMethod[Batch]:
    """Every example once an epoch."""
    return plain(task, config)
