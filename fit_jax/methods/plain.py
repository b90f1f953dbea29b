"""Cross-entropy on true labels without focus instructions: SFT(y), and what other methods change in it."""

from collections.abc import Sequence
from dataclasses import replace

from fit_jax.config import Config
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.orders import Order
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.focus.example import Example
from fit_jax.methods.method import TrainingMethod, true_label
from fit_jax.training.objective import CROSS_ENTROPY


def plain(
    task: Task, config: Config, examples: Sequence[Example] | None = None, order: Order | None = None
) -> TrainingMethod[Batch]:
    """Training on the true labels of prompts that hold no focus instruction.

    Args:
        task: The data.
        config: The run.
        examples: Trained on; by default the training split.
        order: How often an epoch takes each of them; by default once.
    """
    focus = replace(config.focus, weights={"none": 1.0}, branches=1)  # under no focus the focus label is the true one
    chosen = task.splits["train"].examples if examples is None else examples
    sampler = FocusSampler(chosen, task.text, focus, shown=False, seed=config.seed, order=order)
    return TrainingMethod(sampler=sampler, objective=CROSS_ENTROPY, validated=true_label)
