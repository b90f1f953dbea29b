"""PASTA, post-hoc attention steering (Zhang et al., 2024, "Tell your model where to attend", equation (2), algorithm
1).

In some heads, what is not the highlighted part of the prompt is attended to less: the weights of all other tokens are
multiplied by alpha = 0.01 and each row is renormalised. That is the same as log(1 / alpha) added to the scores of
the highlighted tokens before the softmax. Highlighted is the focus instruction.

The heads come from profiling (section 3.3): each head of the model is steered alone, on training examples, and heads
are ranked by how well answers then follow the focus. How many of the first are steered together is chosen on
validation.

Differences: the paper profiles on several tasks and takes the heads that stand in the first k of all; here it is one
task, the one that is evaluated. In models that cap their scores by a tanh the bias goes through the cap. Layers that
keep a state have no attention to steer, so that heads are those of the others.
"""

from math import log

import jax.numpy as jnp
import numpy as np
from flax import nnx

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Subject
from fit_jax.methods.instruction_marks import InstructionMarks
from fit_jax.methods.intervention import Intervention
from fit_jax.methods.steering import best_intervention, following, nothing, opposed
from fit_jax.methods.training_free import Base, TrainingFree

ALPHA = 0.01  # what the weights of other tokens are multiplied by
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the heads, best first, that are steered together


def pasta(base: Base, task: Task, config: Config, shots: int) -> tuple[Subject, str]:
    """Steers the attention of the heads that profiling puts first.

    Returns:
        Who to evaluate, and how many heads are steered.

    Raises:
        InputError: No example's spurious label differs from its true one, or no layer attends.
    """
    marks, unchanged = InstructionMarks(base.encoder), nothing(base)
    shape = nnx.merge(base.graphdef, *base.states).config
    L, H = shape.layers, shape.heads
    heads = [layer * H + head for layer in range(L) if not shape.linear.has(layer) for head in range(H)]
    if not heads:
        raise InputError(
            "pasta: no layer of this model attends, so that there is nothing to steer; take another method"
        )

    def steered(heads: list[int]) -> Intervention:
        chosen = np.zeros(L * H, np.float32)
        chosen[heads] = log(1 / ALPHA)
        return unchanged._replace(head_bias=jnp.asarray(chosen.reshape(L, H)))

    alone = {str(head): steered([head]) for head in heads}
    profile = following(base, opposed(task, "train", config.seed), alone, marks)
    ranked = sorted(heads, key=lambda head: -profile[str(head)])
    counts = sorted({max(round(share * len(heads)), 1) for share in SHARES})
    options = {f"{count} of {len(heads)} heads": steered(ranked[:count]) for count in counts}
    return best_intervention(base, opposed(task, "validation", config.seed), options, marks)


METHOD = TrainingFree(pasta, steers=True)
