"""Group DRO (Sagawa et al., 2020, "Distributionally robust neural networks for group shifts", algorithm 1).

The worst group's loss is minimised, by weights of groups. The groups are those of `focus.example.group_of`: the pairs
(s, y), or with multiple choice (s, whether y = y_s). With q the groups' weights, l_g the mean loss of the batch's
examples of group g and eta the step size (`train.group_step`), one optimizer step minimises sum_g q_g l_g and then sets

    q_g <- q_g exp(eta l_g) / sum_h q_h exp(eta l_h);

l_g is 0 for a group that the batch lacks. As in the paper batches are balanced between the groups, weight decay is
strong (`train.group_decay`, or that of the run where it is stronger; section 3.2: without strong regularisation or
early stopping every group's training loss vanishes, and with it what tells DRO from cross-entropy), and the checkpoint
is chosen by the worst group on validation where `train.best` is `worst_group`, which the shipped experiments set for
every method alike.

Differences: the algorithm updates q before it takes the gradient, on the same examples. Here the gradient takes the q
from before, as in stochastic mirror descent, so that no microbatch has to wait for the losses of the others. The decay
is AdamW's, decoupled from the gradient, where the paper adds an l2 penalty to SGD. Groups are drawn in passes and not
with replacement. The loss is over the example's candidates (`methods.candidates`). The adjustment of section 3.3, C /
sqrt(n_g), is left out (C = 0).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fit_jax.config import Config
from fit_jax.data.orders import Balanced
from fit_jax.data.task import Task
from fit_jax.focus.example import group_of
from fit_jax.methods.candidates import CandidateBatch, CandidateLoss, CandidateSampler
from fit_jax.methods.groups import group_numbers, groups_of
from fit_jax.methods.method import TrainingMethod, true_label

ALL_CANDIDATES = True


def build(task: Task, config: Config) -> TrainingMethod[CandidateBatch]:
    """Groups are those of the training examples."""
    examples = task.splits["train"].examples
    numbers = group_numbers(examples)
    order = Balanced(groups_of(examples))
    sampler = CandidateSampler(examples, config.seed, group=lambda example: numbers[group_of(example)], order=order)
    objective = GroupDro(len(numbers), config.train.group_step)
    decay = max(config.train.group_decay, config.optimizer.weight_decay)
    return TrainingMethod(sampler=sampler, objective=objective, validated=true_label, weight_decay=decay)


class GroupDro(CandidateLoss):
    """The objective above; its own state is log q."""

    def __init__(self, groups: int, step: float) -> None:
        """`groups` groups, whose weights take steps of size `step`."""
        self._groups = groups
        self._step = step

    def start(self) -> Float[np.ndarray, " groups"]:
        """Equal weights."""
        return np.full(self._groups, -np.log(self._groups), np.float32)

    def weights(self, batch: CandidateBatch, own: Float[Array, " groups"]) -> Float[Array, "B C"]:
        """q of an example's group, shared by the examples of that group in the global batch."""
        shares = jnp.exp(own) / jnp.maximum(self._by_group(batch.chosen, batch), 1.0)
        return batch.chosen * shares[batch.group]

    def update(
        self, own: Float[Array, " groups"], batch: CandidateBatch, loss: Float[Array, "B C"]
    ) -> Float[Array, " groups"]:
        """Once a step, by the groups' mean losses over the global batch."""
        count = jnp.maximum(self._by_group(batch.chosen, batch), 1.0)
        return jax.nn.log_softmax(own + self._step * self._by_group(loss, batch) / count)

    def _by_group(self, values: Float[Array, "B C"], batch: CandidateBatch) -> Float[Array, " groups"]:
        return jnp.zeros(self._groups, values.dtype).at[batch.group].add(values * batch.chosen)
