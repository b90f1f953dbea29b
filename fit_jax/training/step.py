"""One optimizer step as a pure function of state and batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from fit_jax.data.packing import Batch
from fit_jax.parallel.sharding import batch_sharding
from fit_jax.training.loss import LossSums, loss_sums
from fit_jax.training.optimizer import Optimizer
from fit_jax.training.state import TrainState, in_fp32, purpose_key


class StepMetrics(NamedTuple):
    """What a step reports; scalars, the same on every device.

    Attributes:
        sums: Loss, targets and correct targets before the update.
        tokens: Tokens that are no padding.
        examples: Answers trained on, each an example under one focus instruction.
        grad_norm: Global norm of the gradient of the mean loss, before clipping.
        learning_rate: The update's.
    """

    sums: LossSums
    tokens: Int[Array, ""]
    examples: Int[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]


def compile_train_step(
    graphdef: nnx.GraphDef,
    optimizer: Optimizer,
    state: TrainState,
    batch: Batch,
    *,
    accumulate: int = 1,
    seed: int = 0,
    trees: bool = True,
) -> jax.stages.Compiled:
    """Compiles the train step, `(state, batch) -> (state, StepMetrics)`; the state it is called with is donated.

    The gradient is the sum over all microbatches' targets divided by their number, so that microbatches with few
    targets weigh no more than their share.

    Args:
        graphdef: The model's structure.
        optimizer: The optimizer.
        state: Gives shapes and shardings: arrays or `jax.ShapeDtypeStruct`s.
        batch: Likewise.
        accumulate: Microbatches of a step; divides the batch's rows.
        seed: Draws the dropout, with the step and the microbatch.
        trees: Whether rows may hold items that branch (several focus instructions on one input).
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    everywhere = NamedSharding(state.step.sharding.mesh, PartitionSpec())

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        return _step(graphdef, optimizer, shardings.trainable, accumulate, seed, trees, state, batch)

    with jax.set_mesh(everywhere.mesh):
        return jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere)).lower(state, batch).compile()


def _step(
    graphdef: nnx.GraphDef,
    optimizer: Optimizer,
    shardings: nnx.State,
    accumulate: int,
    seed: int,
    trees: bool,
    state: TrainState,
    batch: Batch,
) -> tuple[TrainState, StepMetrics]:
    step_key = jax.random.fold_in(purpose_key(seed, "dropout"), state.step)

    def loss(trainable: nnx.State, part: Batch, number: int | Array) -> tuple[Array, LossSums]:
        decoder = nnx.merge(graphdef, trainable, state.frozen)
        sums = loss_sums(decoder, part, jax.random.fold_in(step_key, number), trees)
        return sums.loss, sums

    def gradient(part: Batch, number: int | Array) -> tuple[nnx.State, LossSums]:
        grads, sums = jax.grad(loss, has_aux=True)(state.trainable, part, number)
        # Without the constraint the partitioner may keep whole gradients on every device.
        return jax.lax.with_sharding_constraint(in_fp32(grads), shardings), sums

    if accumulate == 1:
        total = gradient(batch, 0)
    else:
        parts = jax.tree.map(lambda array: microbatches(array, accumulate), batch)
        first = jax.tree.map(lambda array: array[0], parts)
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), jax.eval_shape(gradient, first, 0))
        total, _ = jax.lax.scan(
            lambda total, x: (jax.tree.map(jnp.add, total, gradient(*x)), None), zero, (parts, jnp.arange(accumulate))
        )
    grads, sums = total
    grads = jax.tree.map(lambda grad: grad / sums.targets, grads)
    params = in_fp32(state.trainable)
    updates, opt_state = optimizer.transform.update(grads, state.opt_state, params)
    trainable = jax.tree.map(
        lambda old, param, update: (param + update).astype(old.dtype), state.trainable, params, updates
    )
    metrics = StepMetrics(
        sums,
        jnp.sum(batch.visible_until > 0),
        batch.examples.astype(jnp.int32),
        optax.global_norm(grads),
        optimizer.schedule(state.step),
    )
    return TrainState(state.step + 1, trainable, state.frozen, opt_state), metrics


def microbatches(array: Array, count: int) -> Array:
    """(B, ...) -> (count, B / count, ...); every device keeps its rows, since each gives some to every microbatch."""
    rows = array.shape[0] // count
    return array.reshape(rows, count, *array.shape[1:]).swapaxes(0, 1)


def abstract_batch(rows: int, tokens: int, targets: int, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a global batch of B rows, T tokens and C targets each."""

    def leaf(field: str) -> jax.ShapeDtypeStruct:
        is_target = field.startswith("target")
        dtype = jnp.float32 if field == "target_weight" else jnp.int32
        shape = (rows, targets if is_target else tokens)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh, tokens=not is_target))

    return Batch(*(leaf(field) for field in Batch._fields))
