"""Group DRO (Sagawa et al., 2020, algorithm 1): the worst group's loss is minimised, by weights of groups.

The groups are those of `focus.example.group_of`: the pairs (s, y), or with multiple choice (s, whether y = y_s). With q
the groups' weights, l_g the mean loss of the batch's examples of group g and e the step size, one optimizer step
minimises sum_g q_g l_g and then sets q_g to q_g exp(e l_g) / sum_h q_h exp(e l_h); l_g is 0 for a group that the batch
lacks.

Differences: the algorithm updates q before it takes the gradient, on the same examples. Here the gradient takes the q
from before, as in stochastic mirror descent, so that no microbatch has to wait for the losses of the others. Examples
are not drawn evenly from the groups.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.focus.example import Example, Group, group_of
from fit_jax.methods.candidates import CandidateBatch, CandidateLoss, CandidateSampler
from fit_jax.methods.method import TrainingMethod, true_label


def build(task: Task, config: Config) -> TrainingMethod[CandidateBatch]:
    """Groups are those of the training examples; the step size is `train.group_step`."""
    examples = task.splits["train"].examples
    numbers = group_numbers(examples)
    sampler = CandidateSampler(examples, config.seed, group=lambda example: numbers[group_of(example)])
    return TrainingMethod(sampler, GroupDro(len(numbers), config.train.group_step), true_label)


def group_numbers(examples: Sequence[Example]) -> dict[Group, int]:
    """The groups of these examples, numbered as they first come."""
    return {group: number for number, group in enumerate(dict.fromkeys(map(group_of, examples)))}


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
