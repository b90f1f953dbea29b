"""One optimizer step, whatever the objective, as a pure function of state and batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from fit_jax.data.packing import Batch, stack
from fit_jax.data.sampler import BatchType, TrainBatch
from fit_jax.models.block import LayerHook
from fit_jax.parallel.mesh import mesh_of
from fit_jax.parallel.sharding import batch_sharding
from fit_jax.training.expert_balance import ExpertBalance, row_shares
from fit_jax.training.objective import CROSS_ENTROPY, Losses, LossSums, Objective, target_scores
from fit_jax.training.optimizer import Optimizer
from fit_jax.training.rehearsal import Rehearsal, RehearsalSums, rehearsal_sums, shares
from fit_jax.training.state import TrainState, in_fp32, purpose_key


class StepMetrics(NamedTuple):
    """What a step reports; scalars, the same on every device.

    Attributes:
        sums: Loss, targets and correct targets before the update.
        tokens: Tokens that are no padding.
        target_tokens: Tokens that the model was asked to predict.
        examples: Examples trained on, each under one focus instruction.
        grad_norm: Global norm of the gradient, before clipping.
        learning_rate: The update's.
        rehearsal: Sums of rehearsal before the update; None where there is none.
        uneven: How unevenly tokens are spread over the experts before the update, 1 for evenly; None where no loss is
            over it.
    """

    sums: LossSums
    tokens: Int[Array, ""]
    target_tokens: Int[Array, ""]
    examples: Int[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    rehearsal: RehearsalSums | None = None
    uneven: Float[Array, ""] | None = None


def compile_train_step(
    graphdef: nnx.GraphDef,
    optimizer: Optimizer,
    state: TrainState,
    batch: TrainBatch,
    *,
    objective: Objective[Any] = CROSS_ENTROPY,
    rehearsal: Rehearsal | None = None,
    balance: float = 0.0,
    accumulate: int = 1,
    seed: int = 0,
) -> jax.stages.Compiled:
    """Compiles the train step, `(state, batch) -> (state, StepMetrics)`; the state it is called with is donated.

    Args:
        graphdef: The model's structure.
        optimizer: The optimizer.
        state: Gives shapes and shardings: arrays or `jax.ShapeDtypeStruct`s.
        batch: Likewise; `WithRehearsal` where there is `rehearsal`.
        objective: What is minimised; by default the cross-entropy of the targets.
        rehearsal: What is minimised besides; by default nothing.
        balance: Weight of the loss that balances a mixture's experts (`expert_balance`); 0 means none.
        accumulate: Microbatches of a step; divides the batch's rows, and those of rehearsal.
        seed: Draws the dropout, with the step and the microbatch.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    mesh = mesh_of(state)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def step(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        step_key = jax.random.fold_in(purpose_key(seed, "dropout"), state.step)

        def loss(trainable: nnx.State, part: Weighed, number: int | Array) -> tuple[Array, _StepLosses]:
            decoder, key = nnx.merge(graphdef, trainable, state.frozen), jax.random.fold_in(step_key, number)
            hook = LayerHook() if part.shares is None else ExpertBalance.of(part.task.rows)
            scores, hook = target_scores(decoder, part.task.rows, key, hook)
            losses, uneven, rehearsed = objective.losses(scores, part.task), None, None
            total = jnp.sum(part.weights * losses.loss)
            if isinstance(hook, ExpertBalance):
                uneven = hook.uneven / decoder.config.layers
                total += balance * jnp.sum(part.shares * uneven)
            if rehearsal is not None and part.texts is not None:
                key = jax.random.fold_in(key, 1)  # other masks than those of the task's rows
                rows, share = part.texts
                rehearsed = rehearsal.losses(decoder, state.frozen, rows, key)
                total += rehearsal.total(*rehearsed, share)
            return total, _StepLosses(losses, rehearsed, uneven)

        def gradient(part: Weighed, number: int | Array) -> tuple[nnx.State, _StepLosses]:
            grads, losses = jax.grad(loss, has_aux=True)(state.trainable, part, number)
            # Without the constraint the partitioner may keep whole gradients on every device.
            return jax.lax.with_sharding_constraint(in_fp32(grads), shardings.trainable), losses

        task, texts = (batch, None) if rehearsal is None else (batch.task, batch.rehearsal)
        weights = objective.weights(task, state.objective)
        shared = row_shares(task.rows) if balance else None
        whole = Weighed(task, weights, None if texts is None else (texts, shares(texts)), shared)
        grads, (losses, rehearsed, uneven) = _over_microbatches(gradient, state.trainable, whole, accumulate)
        own = objective.update(state.objective, task, losses.loss)
        counted = objective.counted(task)
        metrics = StepMetrics(
            LossSums(jnp.sum(losses.loss * counted), jnp.sum(counted), jnp.sum(losses.correct * counted)),
            jnp.sum(task.rows.visible_until > 0),
            jnp.sum(task.rows.target_weight > 0),
            task.examples.astype(jnp.int32),
            optax.global_norm(grads),
            optimizer.schedule(state.step),
            None if texts is None or rehearsed is None else rehearsal_sums(texts, *rehearsed),
            None if shared is None or uneven is None else jnp.sum(shared * uneven),
        )
        return _updated(state, grads, optimizer)._replace(objective=own), metrics

    with jax.set_mesh(mesh):
        return jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere)).lower(state, batch).compile()


class Weighed(NamedTuple):
    """A batch or a microbatch, and what its losses weigh in the global batch.

    Attributes:
        task: The method's batch.
        weights: Of its losses.
        texts: The rows of rehearsal, and what each of their targets weighs in a mean; None where there are none.
        shares: What each row weighs in the mean of how evenly experts are used; None where no loss is over that.
    """

    task: TrainBatch
    weights: Float[Array, "B C"]
    texts: tuple[Batch, Float[Array, "B C"]] | None
    shares: Float[Array, " B"] | None


class _StepLosses(NamedTuple):
    """The losses of the task's batch, of rehearsal's, and each row's unevenness of experts, where there are such."""

    task: Losses
    rehearsed: tuple[Array, Array] | None
    uneven: Float[Array, " B"] | None


def _over_microbatches(
    gradient: Callable[[Weighed, int | Array], tuple[nnx.State, _StepLosses]],
    trainable: nnx.State,
    batch: Weighed,
    count: int,
) -> tuple[nnx.State, _StepLosses]:
    """The gradient summed over `count` microbatches, and the losses of the whole batch."""
    if count == 1:
        return gradient(batch, 0)
    parts = jax.tree.map(lambda array: microbatches(array, count), batch)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), trainable)

    def add(total: nnx.State, x: tuple[Weighed, Array]) -> tuple[nnx.State, _StepLosses]:
        grads, losses = gradient(*x)
        return jax.tree.map(jnp.add, total, grads), losses

    grads, losses = jax.lax.scan(add, zero, (parts, jnp.arange(count)))
    return grads, jax.tree.map(lambda array: array.swapaxes(0, 1).reshape(-1, *array.shape[2:]), losses)


def _updated(state: TrainState, grads: nnx.State, optimizer: Optimizer) -> TrainState:
    params = in_fp32(state.trainable)
    updates, opt_state = optimizer.transform.update(grads, state.opt_state, params)
    trainable = jax.tree.map(
        lambda old, param, update: (param + update).astype(old.dtype), state.trainable, params, updates
    )
    return state._replace(step=state.step + 1, trainable=trainable, opt_state=opt_state)


def microbatches(array: Array, count: int) -> Array:
    """(B, ...) -> (count, B / count, ...); every device keeps its rows, since each gives some to every microbatch."""
    rows = array.shape[0] // count
    return array.reshape(rows, count, *array.shape[1:]).swapaxes(0, 1)


def abstract_batch(rows: int, tokens: int, targets: int, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a global batch of B rows, T tokens and C targets each."""
    return abstract_like(stack([[]] * rows, tokens, targets)[0], mesh)


def abstract_like(batch: BatchType, mesh: Mesh) -> BatchType:
    """Shapes, dtypes and shardings of global batches like this one."""
    return jax.tree.map(
        lambda array, axes: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=batch_sharding(mesh, axes)),
        batch,
        batch.axes,
    )
