"""SFT(y): supervised fine-tuning on the true labels, without focus instructions (paper, section 4)."""

from dataclasses import replace

from fit_jax.config import Config
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.methods.method import TrainingMethod, true_label
from fit_jax.training.objective import CROSS_ENTROPY


def build(task: Task, config: Config) -> TrainingMethod[Batch]:
    """Every example once an epoch, under no focus: the focus label is then the true one."""
    focus = replace(config.focus, weights={"none": 1.0}, branches=1)
    sampler = FocusSampler(task.splits["train"].examples, task.text, focus, shown=False, seed=config.seed)
    return TrainingMethod(sampler, CROSS_ENTROPY, true_label)
