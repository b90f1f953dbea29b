import dataclasses
import logging
import re

import jax
import numpy as np

from fit_jax.config import MeshConfig
from fit_jax.data.packing import stack
from fit_jax.models.config import LoraConfig
from fit_jax.parallel.sharding import named_leaves
from fit_jax.training.step import microbatches

LORA = LoraConfig(rank=4, dropout=0.1)


def same_weights(one, other):
    # Adam divides by the gradient's size, so a tiny gradient's rounding shows in an update, which is of the order 1e-2.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-5), one.trainable, other.trainable)


def test_losses_are_the_same_on_every_mesh(run_steps, tiny, random_batch):
    model = dataclasses.replace(tiny, dropout=0.1)
    batches = [random_batch(8, number % 2) for number in range(20)]  # of random tokens only what recurs can be learnt
    one, _ = run_steps(20, model=model, batches=batches)
    assert one[-1] < one[0]
    for mesh in (MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=8)):
        losses, state = run_steps(20, mesh, 8, model=model, batches=batches)
        np.testing.assert_allclose(losses, one, rtol=1e-5)
        kernel = named_leaves(state.trainable)["blocks.attention.q_proj.kernel"]
        assert len(kernel.addressable_shards) == 8
        assert kernel.addressable_shards[0].data.shape == (2, 32 // mesh.fsdp, 32 // mesh.tensor)


def test_the_step_compiles_exactly_once(run_steps, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run_steps(3, MeshConfig(data=2, fsdp=2, tensor=2), 8)
    assert len(re.findall(r"Finished XLA compilation of jit\(step\)", caplog.text)) == 1


def test_adapters_train_the_same_when_sharded(run_steps):
    one, _ = run_steps(5, lora=LORA)
    sharded, _ = run_steps(5, MeshConfig(fsdp=2, tensor=2), 4, lora=LORA)
    np.testing.assert_allclose(sharded, one, rtol=1e-5)


def test_accumulation_equals_the_large_batch(run_steps):
    whole, after_whole = run_steps(3, rows=32)
    parts, after_parts = run_steps(3, rows=32, accumulate=4)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    same_weights(after_parts, after_whole)


def test_every_device_gives_rows_to_every_microbatch():
    rows = np.arange(8)[:, None]
    np.testing.assert_array_equal(microbatches(rows, 2)[:, :, 0], [[0, 2, 4, 6], [1, 3, 5, 7]])


def test_packed_rows_train_as_single_ones(run_steps, random_items):
    items = random_items(8)
    packed = stack([items[:4], items[4:]], 64, 12)[0]
    single = stack([[item] for item in items], 24, 3)[0]
    a, after_a = run_steps(1, batches=[packed])
    b, after_b = run_steps(1, batches=[single])
    np.testing.assert_allclose(a, b, rtol=1e-6)
    same_weights(after_a, after_b)


def test_lora_trains_the_adapters_alone(run_steps):
    _, before = run_steps(0, lora=LORA)
    _, after = run_steps(2, lora=LORA)
    adapters = named_leaves(after.trainable)
    assert all(name.endswith(("lora_a", "lora_b")) for name in adapters)
    assert all(np.abs(array).max() > 0 for array in adapters.values())
    jax.tree.map(np.testing.assert_array_equal, before.frozen, after.frozen)


def test_bfloat16_compute_keeps_loss_and_optimizer_in_fp32(run_steps, tiny):
    exact, _ = run_steps(5)
    losses, state = run_steps(5, model=dataclasses.replace(tiny, compute_dtype="bfloat16", param_dtype="bfloat16"))
    np.testing.assert_allclose(losses, exact, rtol=0.05)
    assert {str(a.dtype) for a in jax.tree.leaves(state.trainable)} == {"bfloat16"}
    assert {str(a.dtype) for a in jax.tree.leaves(state.opt_state)} == {"float32", "int32"}


def test_seed_draws_weights_and_dropout(run_steps, tiny, random_batch):
    model = dataclasses.replace(tiny, dropout=0.2)
    batches = [random_batch(4)] * 2
    first, _ = run_steps(2, model=model, batches=batches)
    again, _ = run_steps(2, model=model, batches=batches)
    other, _ = run_steps(2, model=model, batches=batches, seed=1)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, rtol=1e-3)
