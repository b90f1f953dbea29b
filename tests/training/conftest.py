"""A tiny model and random packed rows, shared by the tests of training.

What costs time here is compiling: one step of the smallest model takes seconds. So tests share programs where they can:
the same shapes, the same number of steps in the schedule, and one layer where layers do not matter.
"""

from functools import cache

import jax
import numpy as np
import pytest

from fit_jax.config import MeshConfig, OptimizerConfig
from fit_jax.data.layout import lay_out
from fit_jax.data.packing import Batch, first_fit, stack
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.models.config import DecoderConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.processes import to_global
from fit_jax.training.optimizer import make_optimizer
from fit_jax.training.state import init_state
from fit_jax.training.step import compile_train_step

VOCAB = 97
T, C = 48, 12  # tokens and targets of a row
RATE = 1e-2


@pytest.fixture(autouse=True)
def _strict(no_silent_broadcasting):
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def tiny() -> DecoderConfig:
    """Scanned layers and a last one."""
    return DecoderConfig(vocab_size=VOCAB, layers=2, width=32, feed_forward=48, heads=4, kv_heads=2)


@pytest.fixture(scope="session")
def smallest(tiny) -> DecoderConfig:
    """One layer."""
    return DecoderConfig(vocab_size=VOCAB, layers=1, width=32, feed_forward=48, heads=4, kv_heads=2)


@pytest.fixture(scope="session")
def random_items():
    return _random_items


@pytest.fixture(scope="session")
def random_batch():
    return _random_batch


def _random_items(count: int, seed: int = 0) -> list:
    """Items of 6 to 16 prompt tokens and one answer of 1 to 3 tokens."""
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> np.ndarray:
        return rng.integers(1, VOCAB, rng.integers(low, high + 1)).astype(np.int32)

    return [lay_out([EncodedPrompt(tokens(6, 16), (tokens(1, 3),))], [[0]]) for _ in range(count)]


def _random_batch(rows: int, seed: int = 0) -> Batch:
    """Full packed rows; what targets they hold differs from row to row."""
    items = _random_items(6 * rows, seed)
    packed = [[items[i] for i in row] for row in first_fit(items, T, C)[:rows]]
    assert len(packed) == rows
    return stack(packed, T, C)[0]


@pytest.fixture(scope="session")
def run_steps(smallest):
    """Trains on random batches: (losses, final state) of some steps under a mesh."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=RATE), 20)

    @cache
    def compiled(model, lora, mesh, devices, rows, accumulate, seed):
        grid = make_mesh(mesh, jax.devices()[:devices])
        placed = init_state(model, lora, optimizer, grid, 0)
        batch = to_global(_random_batch(rows), grid)
        return grid, compile_train_step(
            placed.graphdef, optimizer, placed.state, batch, accumulate=accumulate, seed=seed
        )

    def run(
        steps: int,
        mesh: MeshConfig = MeshConfig(),  # noqa: B008
        devices: int = 1,
        *,
        rows: int = 8,
        model: DecoderConfig = smallest,
        lora: LoraConfig = LoraConfig(),  # noqa: B008
        accumulate: int = 1,
        batches=None,
        seed: int = 0,
    ):
        grid, step = compiled(model, lora, mesh, devices, rows, accumulate, seed)
        state, losses = init_state(model, lora, optimizer, grid, 0).state, []
        for number in range(steps):
            batch = to_global(_random_batch(rows, number) if batches is None else batches[number], grid)
            state, metrics = step(state, batch)
            losses.append(float(metrics.sums.loss / metrics.sums.targets))
        return np.array(losses), state

    return run
