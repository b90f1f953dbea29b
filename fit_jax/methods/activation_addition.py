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
from fit_jax.data.layout import lay_out
from fit_jax.data.packing import Batch, stack
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Prompts, Subject
from fit_jax.evaluation.metrics import group_by, kind_of
from fit_jax.evaluation.queries import Group, Query
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.methods.intervention import AWAY, TOWARDS, intervened, mark
from fit_jax.methods.steering import best_intervention, nothing, opposed
from fit_jax.methods.training_free import Base, TrainingFree
from fit_jax.models.decoder import Params
from fit_jax.parallel.processes import rows_of_this_process, to_global
from fit_jax.parallel.sharding import row_shards

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
    return best_intervention(base, opposed(task, "validation", config.seed), options, steered_answers)


def steered_answers(group: Group, prompts: Prompts) -> Prompts:
    """The last prompt token and the answers marked along or against the vector, by what the instruction asks."""
    kinds = {q.instruction: kind_of(q.focus) for q in group.queries}
    marked = []
    for instruction, prompt in zip(group.instructions, prompts):
        if instruction:
            way = TOWARDS if kinds[instruction] == "spurious" else AWAY
            end = mark(prompt.prompt[-1:], way)
            prompt = EncodedPrompt(
                np.concatenate([prompt.prompt[:-1], end]), tuple(mark(a, way) for a in prompt.answers)
            )
        marked.append(prompt)
    return tuple(marked)


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
    T, C = max(len(i.tokens) for i in items), max(len(i.target_ids) for i in items)
    rows = -(-base.rows // row_shards(base.mesh)) * row_shards(base.mesh)
    local = rows_of_this_process(rows, base.mesh)
    unchanged = nothing(base)

    @jax.jit
    def contrast(states: Params, batch: Batch) -> Float[Array, "L D"]:
        decoder = nnx.merge(base.graphdef, *states)
        _, residuals = intervened(decoder, batch, jnp.zeros_like(batch.tokens), unchanged)
        return jnp.einsum("lbcd,bc->ld", residuals.astype(jnp.float32), batch.target_weight)

    total = jnp.zeros(())
    for start in range(0, len(items), rows):
        part = items[start : start + rows]
        batch, _ = stack([[item] for item in part] + [[]] * (rows - len(part)), T, C)
        signs = np.zeros((rows, C), np.float32)
        for row, item in enumerate(part):
            # The target that ends an answer is predicted from the answer's last token.
            spurious, core = (np.flatnonzero(item.target_slot == slot)[-1] for slot in (0, 1))
            signs[row, spurious], signs[row, core] = 1, -1
        batch = batch._replace(target_weight=signs)
        total = total + contrast(base.states, to_global(Batch(*(a[local] for a in batch)), base.mesh))
    return total / len(items)


METHOD = TrainingFree(activation_addition, steers=True)
