"""Training against the spurious correlation: product of experts, and group DRO.

Both train on true labels without focus instructions, over the candidates of each example:

    loss_i = -log softmax_c(log p(answer c | x_i) + a * log p_bias(c | s_i))[y_i]

Product of experts (paper, section 4; Mahabadi et al., 2020) takes the bias-only model's p_bias in, and leaves it out at
test time. Group DRO (Sagawa et al., 2020) has a = 0 and weighs the mean losses of the groups (y, s) by weights that
grow with the loss.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Key

from fit_jax.focus.example import Example
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.methods.candidates import Candidate, CandidateBatch, candidate_batches, plain
from fit_jax.models.head import target_log_probs
from fit_jax.parallel.processes import rows_of_this_process, to_global
from fit_jax.training.optimizer import Optimizer
from fit_jax.training.state import TrainState, in_fp32, purpose_key


class Robust(NamedTuple):
    """What to train against.

    Attributes:
        bias_weight: a, the weight of the bias-only model's log-probabilities; 0 leaves it out.
        group_step: Step size of the groups' weights; 0 means the mean over examples, no group DRO.
    """

    bias_weight: float
    group_step: float


class Budget(NamedTuple):
    """How much is trained: steps of `rows` rows of `tokens` tokens, and the seed of order and dropout."""

    steps: int
    rows: int
    tokens: int
    seed: int


def train_robust(
    graphdef: nnx.GraphDef,
    state: TrainState,
    optimizer: Optimizer,
    examples: Sequence[Example],
    encoder: PromptEncoder,
    mesh: Mesh,
    robust: Robust,
    budget: Budget,
) -> tuple[TrainState, list[float]]:
    """Trains on `examples`; the state given is donated.

    Returns:
        The trained state, and each step's mean loss over its examples, in nats.
    """
    candidates, groups = read_candidates(examples, robust)
    step = _compile(graphdef, state, optimizer, robust.group_step, budget.seed)
    weights = jax.device_put(np.full(groups, 1 / groups, np.float32), NamedSharding(mesh, PartitionSpec()))
    local = rows_of_this_process(budget.rows, mesh)
    losses = []
    stream = candidate_batches(candidates, encoder, budget.rows, budget.tokens, budget.seed)
    for _, batch in zip(range(budget.steps), stream):
        batch = to_global(CandidateBatch(*(a[local] for a in batch)), mesh)
        state, weights, loss = step(state, weights, batch)
        losses.append(loss)
    return state, [float(loss) for loss in jax.device_get(losses)]


def read_candidates(examples: Sequence[Example], robust: Robust) -> tuple[list[Candidate], int]:
    """The examples with the bias-only model's prior and their group (y, s), and how many groups there are.

    The bias-only model sees a feature's value and the label tied to it alone. Its maximum-likelihood form is the share
    of examples with y = y_s for each value (with one example of either kind added, so that no answer is ruled out).
    """
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    groups: dict[tuple, int] = {}
    for example in examples:
        groups.setdefault(_group(example), len(groups))
        for feature, (value, label) in example.spurious.items():
            hits[feature, value].append(example.label == label)
    agreement = {key: (sum(h) + 1) / (len(h) + 2) for key, h in hits.items()}
    candidates = [
        Candidate(example, robust.bias_weight * bias_log_probs(example, agreement), groups[_group(example)])
        for example in examples
    ]
    return candidates, len(groups)


def bias_log_probs(example: Example, agreement: Mapping[tuple[str, str], float]) -> Float[np.ndarray, " candidates"]:
    """log p_bias of each candidate: the share of y = y_s for y_s, the rest spread evenly; features are multiplied."""
    total = np.zeros(len(example.candidates))
    for feature, (value, label) in example.spurious.items():
        share = agreement[feature, value]
        logs = np.full(len(total), np.log((1 - share) / (len(total) - 1)))
        logs[label] = np.log(share)
        total += logs
    return total - np.log(np.exp(total).sum())


def candidate_losses(log_prob_BC: Float[Array, "B C"], whole: CandidateBatch) -> Float[Array, "B C"]:
    """-log softmax over each example's candidates of the true one, at its slot; 0 elsewhere."""
    C = log_prob_BC.shape[1]

    def row(log_prob: Array, slot: Array, owner: Array, prior: Array, chosen: Array) -> Array:
        score = jax.ops.segment_sum(log_prob, slot, num_segments=C) + prior
        top = jax.lax.stop_gradient(jax.ops.segment_max(score, owner, num_segments=C))[owner]
        total = jax.ops.segment_sum(jnp.exp(score - top), owner, num_segments=C)[owner]
        return jnp.where(chosen > 0, jnp.log(jnp.where(chosen > 0, total, 1.0)) + top - score, 0.0)

    log_prob_BC = jnp.where(whole.target_weight > 0, log_prob_BC, 0.0)
    return jax.vmap(row)(log_prob_BC, whole.target_slot, whole.target_owner, whole.target_prior, whole.target_chosen)


def group_objective(
    losses_BC: Float[Array, "B C"], whole: CandidateBatch, weights: Float[Array, " groups"], step: float
) -> tuple[Float[Array, ""], Float[Array, " groups"]]:
    """Group DRO's loss, and the groups' weights after this batch: each grows by exp(step * the group's mean loss)."""
    zero = jnp.zeros_like(weights)
    sums = zero.at[whole.target_group].add(losses_BC)
    means = sums / jnp.maximum(zero.at[whole.target_group].add(whole.target_chosen), 1.0)
    weights = jax.nn.softmax(jnp.log(weights) + step * jax.lax.stop_gradient(means))
    return (weights * means).sum(), weights


def _compile(graphdef: nnx.GraphDef, state: TrainState, optimizer: Optimizer, group_step: float, seed: int) -> Any:
    """The step (state, group weights, batch) -> (state, group weights, mean loss)."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    everywhere = NamedSharding(state.step.sharding.mesh, PartitionSpec())

    def objective(
        trainable: nnx.State, frozen: nnx.State, weights: Array, whole: CandidateBatch, key: Key[Array, ""]
    ) -> tuple[Array, tuple[Array, Array]]:
        decoder, b = nnx.merge(graphdef, trainable, frozen), plain(whole)
        hidden = decoder(b.tokens, b.positions, b.visible_until, b.target_index, deterministic=False, dropout_key=key)
        losses = candidate_losses(target_log_probs(decoder, hidden, b.target_ids)[0], whole)
        mean = losses.sum() / whole.target_chosen.sum()
        if not group_step:
            return mean, (weights, mean)
        loss, weights = group_objective(losses, whole, weights, group_step)
        return loss, (weights, mean)

    def step(state: TrainState, weights: Array, whole: CandidateBatch) -> tuple[TrainState, Array, Array]:
        key = jax.random.fold_in(purpose_key(seed, "dropout"), state.step)
        grads, (weights, mean) = jax.grad(objective, has_aux=True)(state.trainable, state.frozen, weights, whole, key)
        grads = jax.lax.with_sharding_constraint(in_fp32(grads), shardings.trainable)
        params = in_fp32(state.trainable)
        updates, opt_state = optimizer.transform.update(grads, state.opt_state, params)
        trainable = jax.tree.map(lambda old, p, u: (p + u).astype(old.dtype), state.trainable, params, updates)
        return TrainState(state.step + 1, trainable, state.frozen, opt_state), weights, mean

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere, everywhere))


def _group(example: Example) -> tuple:
    return example.label, *sorted((feature, value) for feature, (value, _) in example.spurious.items())
