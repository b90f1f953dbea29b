"""Where a model switches between core and spurious features (Minder et al., 2025, "Controllable context sensitivity and
the knob behind it").

Two prompts ask about the same text, one for the core and one for the spurious feature, where the two have different
labels. After a layer the prompts' last tokens exchange their residual stream, all of it or its component along one
direction (interchange interventions; section 4 of the paper). Where answers follow the other prompt's instruction from
then on, what was exchanged holds the switch.

The direction u of a layer is learnt (section 5): the unit vector whose exchange makes the other prompt's answer
likeliest, h_a + u (u . (h_b - h_a)) in the place of h_a, by Adam on the cross-entropy of that answer.

Differences: both prompts stand in one row as branches of one prefix tree, and exchange both ways in one forward pass.
The paper learns one direction for a layer that it has chosen; here one is learnt for each of several layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from fit_jax.data.keyed_generator import generator
from fit_jax.data.layout import lay_out
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Prompts, Subject, answer
from fit_jax.evaluation.metrics import group_by
from fit_jax.evaluation.queries import Group, Prediction
from fit_jax.evaluation.scoring import Scorer
from fit_jax.methods.intervention import (
    EXCHANGED,
    Exchange,
    Intervention,
    intervened,
    intervened_forward,
    marked_end,
    unmarked,
)
from fit_jax.methods.steering import nothing, opposed
from fit_jax.methods.training_free import Base, one_a_row
from fit_jax.models.decoder import Params
from fit_jax.models.head import target_log_probs

# A core type and the spurious type that names the same features.
OPPOSITES = (
    ("focus(core)", "focus(spurious)"),
    ("focus(core) & ignore(spurious)", "focus(spurious) & ignore(core)"),
)
UPDATES = 200  # of a direction
RATE = 0.05  # of Adam, on a vector of length 1


def opposite_pairs(task: Task, split: str, paraphrases: str, seed: int) -> list[Group]:
    """The questions of a pair about the examples of `opposed`: the core type's first, the spurious type's second.

    Raises:
        InputError: As `opposed`.
    """
    pairs = []
    for group in opposed(task, split, seed, paraphrases):
        for queries in group_by(group.queries, lambda q: q.feature).values():
            by_type = {q.focus: q for q in queries}
            pairs += [Group.of([by_type[core], by_type[spurious]]) for core, spurious in OPPOSITES]
    return pairs


def exchanges(base: Base, whole: Sequence[int] = (), directions: Float[Array, "L D"] | None = None) -> Intervention:
    """The intervention that exchanges all of the residual stream after some layers, and a direction after others."""
    unchanged = nothing(base)
    everything = jnp.zeros(len(unchanged.vectors)).at[jnp.array(whole, int)].set(1.0)
    along = unchanged.vectors if directions is None else directions
    return unchanged._replace(exchange=Exchange(everything, along))


def ends_exchange(group: Group, prompts: Prompts) -> Prompts:
    """The two prompts of a pair with their last tokens marked to exchange."""
    return tuple(marked_end(prompt, EXCHANGED) for prompt in prompts)


def switched(base: Base, pairs: Sequence[Group], options: Mapping[str, Intervention]) -> dict[str, list[Prediction]]:
    """The answers under each intervention, each with the label that the pair's other instruction asks for.

    An answer is `correct` where the model follows the other instruction.
    """
    scorer = Scorer(base.graphdef, base.mesh, base.rows, intervened_forward)
    answers = {}
    for name, change in options.items():
        subject = Subject(base.encoder, scorer, (base.states, change), ends_exchange)
        given = zip(pairs, answer(pairs, subject))
        answers[name] = [
            replace(p, label=other.label) for pair, ps in given for p, other in zip(ps, reversed(pair.queries))
        ]
    return answers


def learnt_directions(
    base: Base, pairs: Sequence[Group], layers: Sequence[int], seed: int
) -> list[Float[np.ndarray, " D"]]:
    """For each layer the unit vector whose exchange after it makes each answer of a pair the other one's.

    Args:
        base: The model.
        pairs: What is learnt from.
        layers: The layers; one program is compiled for all of them.
        seed: Draws the vector that learning starts from.
    """
    unchanged = exchanges(base)
    L, D = unchanged.vectors.shape
    adam = optax.adam(RATE)

    @jax.jit
    def update(
        vector: Float[Array, " D"], memory: optax.OptState, states: Params, batch: Batch, layer: Int[Array, ""]
    ) -> tuple[Float[Array, " D"], optax.OptState]:
        def loss(vector: Float[Array, " D"]) -> Float[Array, ""]:
            along = jnp.zeros((L, D)).at[layer].set(vector / jnp.linalg.norm(vector))
            change = unchanged._replace(exchange=Exchange(jnp.zeros(L), along))
            decoder = nnx.merge(base.graphdef, *states)
            rows, marks = unmarked(batch)
            log_prob, _ = target_log_probs(decoder, intervened(decoder, rows, marks, change)[0], rows.target_ids)
            return -(log_prob * rows.target_weight).sum() / rows.target_weight.sum()

        moves, memory = adam.update(jax.grad(loss)(vector), memory)
        return vector + jnp.asarray(moves), memory

    batches = list(_swapped(base, pairs))

    def learnt(layer: int) -> Float[np.ndarray, " D"]:
        vector = jnp.asarray(unit_vectors(1, D, seed)[0])
        memory = adam.init(vector)
        for batch in islice((b for _ in range(UPDATES) for b in batches), UPDATES):
            vector, memory = update(vector, memory, base.states, batch, jnp.int32(layer))
        found = np.asarray(vector, np.float32)
        return found / np.linalg.norm(found)

    with jax.set_mesh(base.mesh):
        return [learnt(layer) for layer in layers]


def unit_vectors(count: int, width: int, seed: int) -> Float[np.ndarray, "count width"]:
    """Random directions, all equally likely."""
    drawn = generator(seed, "switch", "directions").standard_normal((count, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _swapped(base: Base, pairs: Sequence[Group]) -> Iterator[Batch]:
    """The pairs, marked to exchange, each prompt followed by the answer that the other one asks for."""
    items = []
    for pair in pairs:
        core, spurious = pair.queries
        prompts = base.encoder.encode([core.example, spurious.example], pair.instructions)
        items.append(lay_out(ends_exchange(pair, tuple(prompts)), [(spurious.label,), (core.label,)]))
    return one_a_row(base, items)
