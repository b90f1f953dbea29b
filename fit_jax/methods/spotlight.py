"""Spotlight (Venkateswaran and Contractor, 2025, "Spotlight your instructions"): a target share of attention.

In every head of every layer and at every token, the share of attention that goes to the emphasised part of the prompt
is measured. Where it is below a target, a bias is added to the scores of that part before the softmax, so that it
reaches the target; where it is above, nothing is changed. Emphasised is the focus instruction, and the target is chosen
on validation.

Differences: the bias is the one that brings the share s to the target t exactly, log(t / (1 - t)) - log(s / (1 - s)).
It acts on the tokens of the prompt behind the instruction too, in whose keys and values later layers read, as in a
prompt that is processed under steering from its beginning. In models that cap their scores by a tanh the bias goes
through the cap. Layers that keep a state have no attention, and stay as they are.
"""

import jax.numpy as jnp

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Subject
from fit_jax.methods.instruction_marks import InstructionMarks
from fit_jax.methods.steering import best_intervention, nothing, opposed
from fit_jax.methods.training_free import Base, TrainingFree

TARGETS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # shares of attention


def spotlight(base: Base, task: Task, config: Config, shots: int) -> tuple[Subject, str]:
    """Steers the attention of all heads towards a target share.

    Returns:
        Who to evaluate, and the target that was chosen.

    Raises:
        InputError: No validation example's spurious label differs from its true one.
    """
    unchanged = nothing(base)
    options = {f"target share {t:g}": unchanged._replace(target_share=jnp.float32(t)) for t in TARGETS}
    groups = opposed(task, "validation", config.seed)
    return best_intervention(base, groups, options, InstructionMarks(base.encoder))


METHOD = TrainingFree(spotlight, steers=True)
