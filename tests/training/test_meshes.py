"""Every mesh of eight devices trains as one device does: whole models, adapters, quantised bases, packed rows."""

from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx

from fit_jax.config import MeshConfig, OptimizerConfig
from fit_jax.models.config import LoraConfig, ModelConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.export import save_own
from fit_jax.models.weights import resolve
from fit_jax.parallel.mesh import AXES, make_mesh
from fit_jax.parallel.processes import to_global
from fit_jax.runs.pretrained import pretrained_state
from fit_jax.training.optimizer import make_optimizer
from fit_jax.training.step import compile_train_step

LORA = LoraConfig(rank=4, dropout=0.1)
KINDS = {
    "full": (LoraConfig(), "none"),
    "lora": (LORA, "none"),
    "int8": (LORA, "int8"),
    "nf4": (LORA, "nf4"),
}
SHAPES = [
    (data, fsdp, tensor, 8 // (data * fsdp * tensor))
    for data in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    for tensor in (1, 2, 4, 8)
    if 8 % (data * fsdp * tensor) == 0
]
# What the default run of the tests looks at; `pytest -m slow` looks at all the others.
FEW = {("full", (1, 2, 2, 2)), ("lora", (1, 1, 1, 8)), ("int8", (1, 2, 2, 2)), ("nf4", (2, 2, 1, 2))}


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    """A model on the disk."""
    decoder = Decoder(tiny, rngs=nnx.Rngs(0))
    folder = tmp_path_factory.mktemp("base")
    save_own(folder, decoder, {})
    return str(folder)


@pytest.fixture(scope="module")
def losses(base, random_batch):
    """Losses of three steps on a mesh."""

    def run(kind: str, mesh: MeshConfig, devices: int) -> np.ndarray:
        lora, quantize = KINDS[kind]
        model = resolve(ModelConfig(pretrained=base, dropout=0.1, quantize=quantize))
        grid = make_mesh(mesh, jax.devices()[:devices])
        optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2), 3)
        placed = pretrained_state(model, lora, optimizer, grid, 0)
        state, step, found = placed.state, None, []
        for number in range(3):
            batch = to_global(random_batch(8, number), grid)
            step = step or compile_train_step(placed.graphdef, optimizer, state, batch, accumulate=1, seed=0)
            state, metrics = step(state, batch)
            found.append(float(metrics.sums.loss / metrics.sums.targets))
        return np.array(found)

    return run


@pytest.fixture(scope="module")
def alone(losses):
    """Losses on one device, by kind."""
    return cache(lambda kind: losses(kind, MeshConfig(), 1))


def case(kind, shape):
    marks = () if (kind, shape) in FEW else (pytest.mark.slow,)
    return pytest.param(kind, shape, id=f"{kind}-{'x'.join(map(str, shape))}", marks=marks)


@pytest.mark.parametrize(("kind", "shape"), [case(kind, shape) for kind in KINDS for shape in SHAPES])
def test_a_mesh_trains_as_one_device(kind, shape, alone, losses):
    found = losses(kind, MeshConfig(**dict(zip(AXES, shape))), 8)
    np.testing.assert_allclose(found, alone(kind), rtol=1e-5)
    assert found[-1] != found[0]
