"""Contrastive activation addition (Rimsky et al., 2024): a vector that is added to the residual stream.

The vector of a layer is the mean difference of the residual stream at the last token of an answer, between the prompt
answered with y_s and the same prompt answered with y, over training examples where they differ. It is added from the
end of the prompt on where the instruction focuses on the spurious feature, and subtracted where it asks for the core
feature.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from fit_jax.config import Config
from fit_jax.data.layout import lay_out
from fit_jax.data.packing import Batch, stack
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Prompts, Subject
from fit_jax.evaluation.metrics import kind_of
from fit_jax.evaluation.queries import Group
from fit_jax.focus.example import Example
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.methods.intervention import AWAY, TOWARDS, Intervention, intervened, mark, no_intervention
from fit_jax.methods.steering import best_intervention
from fit_jax.methods.training_free import Base, TrainingFree
from fit_jax.parallel.processes import rows_of_this_process, to_global
from fit_jax.parallel.sharding import row_shards

STRENGTHS = (0.5, 1.0, 2.0, 4.0)  # multiples of the mean contrast
CONTRASTS = 128  # training examples behind the vector


def activation_addition(base: Base, task: Task, config: Config, shots: int) -> tuple[Subject, str]:
    """Steers by the vector of one layer.

    Returns:
        Who to evaluate, and the layer and strength that were chosen.

    Raises:
        InputError: No training example's spurious label differs from its true one.
    """
    vectors = _contrasts(base, task)
    layers = sorted({round(share * (len(vectors) - 1)) for share in (0.25, 0.5, 0.75)})
    options = {}
    for layer in layers:
        for strength in STRENGTHS:
            chosen = jnp.zeros_like(vectors).at[layer].set(strength * vectors[layer])
            change = Intervention(chosen, jnp.zeros((), jnp.float32))
            options[f"layer {layer + 1} of {len(vectors)}, strength {strength:g}"] = change
    return best_intervention(base, task, config.seed, options, _steered_answers)


def _steered_answers(group: Group, prompts: Prompts) -> Prompts:
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


def _contrasts(base: Base, task: Task) -> Float[Array, "L D"]:
    """Mean residual difference after each layer at the last answer token: answered with y_s minus answered with y."""
    pairs = list(_opposed(task.splits["train"].examples))[:CONTRASTS]
    if not pairs:
        raise InputError("activation addition needs training examples whose true and spurious labels differ; none does")
    prompts = base.encoder.encode([example for example, _ in pairs], [""] * len(pairs))
    items = [lay_out([p], [(spurious, e.label)]) for p, (e, spurious) in zip(prompts, pairs)]
    T, C = max(len(i.tokens) for i in items), max(len(i.target_ids) for i in items)
    rows = -(-base.rows // row_shards(base.mesh)) * row_shards(base.mesh)
    local = rows_of_this_process(rows, base.mesh)

    @jax.jit
    def contrast(states: Any, batch: Batch) -> Float[Array, "L D"]:
        decoder = nnx.merge(base.graphdef, *states)
        nothing = no_intervention(decoder.config.layers, decoder.config.width)
        _, residuals = intervened(decoder, batch, jnp.zeros_like(batch.tokens), nothing)
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
        there = to_global(Batch(*(a[local] for a in batch)), base.mesh)
        with jax.set_mesh(base.mesh):  # the model's activations are constrained to the mesh in context
            total = total + contrast(base.states, there)
    return total / len(items)


def _opposed(examples: Sequence[Example]) -> Iterable[tuple[Example, int]]:
    """Examples with a spurious label that is not the true one, and that label."""
    for example in examples:
        labels = {s.label for s in example.spurious.values()} - {example.label}
        if labels:
            yield example, min(labels)


METHOD = TrainingFree(activation_addition, steers=True)
