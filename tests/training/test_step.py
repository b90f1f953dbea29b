"""The train step on one device: what it computes does not depend on how rows are filled or divided."""

import dataclasses

import jax
import numpy as np

from fit_jax.config import MeshConfig, OptimizerConfig
from fit_jax.data.packing import stack
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.processes import to_global
from fit_jax.parallel.sharding import named_leaves
from fit_jax.training.optimizer import make_optimizer
from fit_jax.training.state import init_state
from fit_jax.training.step import compile_train_step, microbatches

from .conftest import RATE, C, T


def same_weights(one, other):
    # Adam divides by the gradient's size, so the rounding of a tiny gradient shows in an update as large as the rate.
    differences = jax.tree.map(lambda a, b: np.abs(a - b).ravel(), one.trainable, other.trainable)
    assert np.quantile(np.concatenate(jax.tree.leaves(differences)), 0.999) < 0.01 * RATE


def test_accumulation_equals_the_large_batch(run_steps):
    whole, after_whole = run_steps(3)
    parts, after_parts = run_steps(3, accumulate=4)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    same_weights(after_parts, after_whole)
    assert whole[-1] != whole[0]


def test_every_device_gives_rows_to_every_microbatch():
    rows = np.arange(8)[:, None]
    np.testing.assert_array_equal(microbatches(rows, 2)[:, :, 0], [[0, 2, 4, 6], [1, 3, 5, 7]])


def test_packed_rows_train_as_single_ones(run_steps, random_items):
    items = random_items(8)
    packed = stack([items[:2], items[2:4], items[4:6], items[6:], [], [], [], []], T, C)[0]
    single = stack([[item] for item in items], T, C)[0]
    a, after_a = run_steps(1, batches=[packed])
    b, after_b = run_steps(1, batches=[single])
    np.testing.assert_allclose(a, b, rtol=1e-5)
    same_weights(after_a, after_b)


def test_lora_trains_the_adapters_alone(run_steps):
    lora = LoraConfig(rank=4)
    _, before = run_steps(0, lora=lora)
    _, after = run_steps(2, lora=lora)
    adapters = named_leaves(after.trainable)
    assert all(name.endswith(("lora_a", "lora_b")) for name in adapters)
    assert all(np.abs(array).max() > 0 for array in adapters.values())
    jax.tree.map(np.testing.assert_array_equal, before.frozen, after.frozen)


def test_bfloat16_compute_keeps_loss_and_optimizer_in_fp32(run_steps, smallest):
    exact, _ = run_steps(5)
    low = dataclasses.replace(smallest, compute_dtype="bfloat16", param_dtype="bfloat16")
    losses, state = run_steps(5, model=low)
    np.testing.assert_allclose(losses, exact, rtol=0.05)
    assert {str(a.dtype) for a in jax.tree.leaves(state.trainable)} == {"bfloat16"}
    assert {str(a.dtype) for a in jax.tree.leaves(state.opt_state)} == {"float32", "int32"}


def test_dropout_is_drawn_by_seed_and_step(run_steps, smallest, random_batch):
    model = dataclasses.replace(smallest, dropout=0.2)
    batches = [random_batch(8)] * 2
    first, _ = run_steps(2, model=model, batches=batches)
    again, _ = run_steps(2, model=model, batches=batches)
    other, _ = run_steps(2, model=model, batches=batches, seed=1)
    without, _ = run_steps(2, batches=batches)
    np.testing.assert_array_equal(first, again)
    assert len({round(float(losses[0]), 3) for losses in (first, other, without)}) == 3


def test_dropout_is_another_in_each_step(smallest, random_batch):
    """Of one state and batch, whose losses differ by nothing else."""
    grid, optimizer = make_mesh(MeshConfig(), jax.devices()[:1]), make_optimizer(OptimizerConfig(), 5)
    placed = init_state(dataclasses.replace(smallest, dropout=0.2), LoraConfig(), optimizer, grid, 0)
    batch = to_global(random_batch(8), grid)
    step = compile_train_step(placed.graphdef, optimizer, placed.state, batch)

    def loss(number: int) -> float:
        state = jax.tree.map(lambda a: jax.device_put(np.array(a), a.sharding), placed.state)  # as it is donated
        state = state._replace(step=jax.device_put(np.int32(number), state.step.sharding))
        return float(step(state, batch)[1].sums.loss)

    assert loss(0) == loss(0) != loss(1)
