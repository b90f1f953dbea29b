"""A knob between core and spurious features (Minder et al., 2025, "Controllable context sensitivity and the knob behind
it").

The model is one that follows focus instructions: the one that FIT trains. It is given none. Instead, the component of
its residual stream along one direction u of one layer is set, h + u (c - u . h) in the place of h, to a value c that
stands for the core or for the spurious feature (section 6 of the paper); u is the direction of that layer along which
models switch (`fit_jax.methods.switch`).

The values are as far from the middle between the mean components under core and under spurious instructions as these
are, times a strength. Layer and strength are chosen on validation, by whether answers follow.

Differences: the paper sets both values by hand, at every token from the end of the question on; so it is here, from the
prompt's last token on. Layers whose whole residual stream does not carry the switch are not tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from fit_jax.config import Config
from fit_jax.data.layout import Item, lay_out
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Prompts, Subject
from fit_jax.evaluation.queries import Group, Query
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.methods.intervention import Intervention, Knob, intervened
from fit_jax.methods.steering import best_intervention, nothing, opposed, towards_or_away
from fit_jax.methods.switch import exchanges, learnt_directions, opposite_pairs, switched
from fit_jax.methods.training_free import Base, TrainingFree, one_a_row
from fit_jax.models.decoder import Params

STRENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)  # multiples of half the distance between the mean components
TRIED = 6  # most layers that directions are learnt for
CARRIES = 0.5  # of what the best layer's whole residual stream carries; layers below are not tried


class Direction(NamedTuple):
    """A direction after a layer, and the mean components along it.

    Attributes:
        layer: The layer, from 0 on.
        vector: The unit vector.
        core: The mean component at the end of prompts that ask for the core feature.
        spurious: The same of those that ask for the spurious feature.
    """

    layer: int
    vector: Float[np.ndarray, " D"]
    core: float
    spurious: float


def knob(base: Base, task: Task, config: Config, shots: int) -> tuple[Subject, str]:
    """The model steered by a knob in the place of focus instructions.

    Returns:
        Who to evaluate, and the layer and strength that were chosen.

    Raises:
        InputError: No example's spurious label differs from its true one, or the model has a single layer.
    """
    pairs = opposite_pairs(task, "train", "train", config.seed)
    directions = found_directions(base, pairs, layers_that_carry(base, pairs), config.seed)
    return best_knob(base, task, directions, config.seed)


def best_knob(base: Base, task: Task, directions: Sequence[Direction], seed: int) -> tuple[Subject, str]:
    """The model under the knob, of these directions and `STRENGTHS`, that validation answers follow best."""
    L = len(nothing(base).vectors)
    options = {
        f"layer {d.layer + 1} of {L}, strength {strength:g}": _turned(base, d, strength)
        for d in directions
        for strength in STRENGTHS
    }
    return best_intervention(base, opposed(task, "validation", seed), options, _WithoutInstruction(base.encoder))


def layers_that_carry(base: Base, pairs: Sequence[Group]) -> list[int]:
    """The layers after which exchanging the residual stream switches answers, at most `TRIED`, spread evenly.

    Raises:
        InputError: The model has a single layer.
    """
    L = len(nothing(base).vectors)
    if L == 1:
        raise InputError("knob: a model of one layer has none after which anything could be set; leave the method out")
    answers = switched(base, pairs, {str(layer): exchanges(base, whole=[layer]) for layer in range(L - 1)})
    shares = [np.mean([p.correct for p in given]) for given in answers.values()]
    layers = np.flatnonzero(np.array(shares) >= CARRIES * max(shares)).tolist()
    return [layers[i] for i in np.unique(np.linspace(0, len(layers) - 1, TRIED).round().astype(int))]


def found_directions(base: Base, pairs: Sequence[Group], layers: Sequence[int], seed: int) -> list[Direction]:
    """The directions of these layers, learnt from these pairs."""
    vectors = learnt_directions(base, pairs, layers, seed)
    core, spurious = (
        _mean_components(base, [p.queries[side] for p in pairs], list(zip(layers, vectors))) for side in (0, 1)
    )
    return [Direction(*found) for found in zip(layers, vectors, core, spurious)]


def _turned(base: Base, direction: Direction, strength: float) -> Intervention:
    unchanged = nothing(base)
    middle, half = (direction.spurious + direction.core) / 2, (direction.spurious - direction.core) / 2
    along = unchanged.vectors.at[direction.layer].set(direction.vector)
    towards, away = (jnp.float32(middle + sign * strength * half) for sign in (1, -1))
    return unchanged._replace(knob=Knob(along, towards, away))


@dataclass(frozen=True)
class _WithoutInstruction:
    """Takes the instructions out of a group's prompts; what they ask for is marked from the prompts' ends on."""

    encoder: PromptEncoder

    def __call__(self, group: Group, prompts: Prompts) -> Prompts:
        """The prompts of the group, all without an instruction."""
        (plain,) = self.encoder.encode([group.queries[0].example], [""])
        return towards_or_away(group, [plain] * len(group.instructions))


def _mean_components(
    base: Base, queries: Sequence[Query], directions: Sequence[tuple[int, Float[np.ndarray, " D"]]]
) -> list[float]:
    """The mean component along each of (layer, unit vector) at the last token of these questions' prompts."""
    prompts = base.encoder.encode([q.example for q in queries], [q.instruction for q in queries])
    unchanged = nothing(base)

    layers, vectors = zip(*directions)

    @jax.jit
    def components(states: Params, batch: Batch) -> Float[Array, " n"]:
        _, residuals = intervened(nnx.merge(base.graphdef, *states), batch, jnp.zeros_like(batch.tokens), unchanged)
        after = residuals[jnp.array(layers)].astype(jnp.float32)
        return jnp.einsum("nbcd,nd,bc->n", after, jnp.array(vectors), batch.target_weight)

    def first(item: Item) -> Float[np.ndarray, " m"]:
        return (np.arange(len(item.target_ids)) == 0).astype(np.float32)  # it is predicted at the prompt's end

    total = jnp.zeros(len(directions))
    with jax.set_mesh(base.mesh):
        for batch in one_a_row(base, [lay_out([p], [(q.label,)]) for p, q in zip(prompts, queries)], first):
            total = total + components(base.states, batch)
    return (np.asarray(total) / len(queries)).tolist()


METHOD = TrainingFree(knob, steers=True, model_of="fit")
