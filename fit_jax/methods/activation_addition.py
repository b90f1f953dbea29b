"""Contrastive activation addition (Rimsky et al., 2024, "Steering Llama 2 via contrastive activation addition").

The behaviour is to answer by the spurious feature when asked to. A contrast pair is one prompt that asks to focus on
the spurious feature, answered with y_s and answered with y, of a training example where the two differ. The vector of a
layer is the mean difference of the residual stream at the answer's last token over the pairs (equation (1) of the
paper). Every label is y_s equally often, so that what tells one answer's words from another's cancels.

From the end of the prompt on, as in the paper, the vector is added where the instruction focuses on the spurious
feature, and subtracted where it asks for the core feature. Layer and strength are chosen on validation among all
layers.

Differences: the paper's answers are the letters A and B, here they are the task's own, of any number of tokens. The
paper shows a sweep of layers on held-out questions and then fixes one for each model.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from fit_jax.config import Config
from fit_jax.data.layout import Item, lay_out
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.metrics import group_by, kind_of
from fit_jax.evaluation.queries import Group, Query
from fit_jax.methods.intervention import intervened
from fit_jax.methods.steering import best_intervention, nothing, opposed, towards_or_away
from fit_jax.methods.training_free import Base, TrainingFree, one_a_row
from fit_jax.models.decoder import Params

STRENGTHS = (0.5, 1.0, 2.0, 4.0)  # multiples of the mean contrast


def activation_addition(base: Base, task: Task, config: Config, shots: int) -> tuple[Subject, str]:
    """Steers by the vector of one layer.

    Returns:
        Who to evaluate, and the layer and strength that were chosen.

    Raises:
        InputError: No example's spurious label differs from its true one.
    """
    unchanged = nothing(base)
    vectors = _contrasts(base, contrast_pairs(opposed(task, "train", config.seed)))
    L = len(vectors)
    options = {
        f"layer {layer + 1} of {L}, strength {strength:g}": unchanged._replace(
            vectors=jnp.zeros_like(vectors).at[layer].set(strength * vectors[layer])
        )
        for layer in range(L)
        for strength in STRENGTHS
    }
    return best_intervention(base, opposed(task, "validation", config.seed), options, towards_or_away)


def contrast_pairs(groups: Sequence[Group]) -> list[Query]:
    """The queries behind the pairs: those that ask to focus on the spurious feature, every y_s equally often."""
    asked = [q for group in groups for q in group.queries if kind_of(q.focus) == "spurious"]
    if asked[0].example.own_answers:
        return asked
    by_label = group_by(asked, lambda q: q.label).values()
    fewest = min(map(len, by_label))
    return [query for queries in by_label for query in queries[:fewest]]


def _contrasts(base: Base, pairs: Sequence[Query]) -> Float[Array, "L D"]:
    """Mean residual difference after each layer at the last answer token: answered with y_s minus answered with y."""
    prompts = base.encoder.encode([q.example for q in pairs], [q.instruction for q in pairs])
    items = [lay_out([p], [(q.label, q.example.label)]) for p, q in zip(prompts, pairs)]
    unchanged = nothing(base)

    @jax.jit
    def contrast(states: Params, batch: Batch) -> Float[Array, "L D"]:
        decoder = nnx.merge(base.graphdef, *states)
        _, residuals = intervened(decoder, batch, jnp.zeros_like(batch.tokens), unchanged)
        return jnp.einsum("lbcd,bc->ld", residuals.astype(jnp.float32), batch.target_weight)

    def signs(item: Item) -> Float[np.ndarray, " m"]:
        found = np.zeros(len(item.target_ids), np.float32)
        # The target that ends an answer is predicted from the answer's last token.
        spurious, core = (np.flatnonzero(item.target_slot == slot)[-1] for slot in (0, 1))
        found[spurious], found[core] = 1, -1
        return found

    total = jnp.zeros(())
    for batch in one_a_row(base, items, signs):
        total = total + contrast(base.states, batch)
    return total / len(items)


METHOD = TrainingFree(activation_addition, steers=True)
