"""Every mesh of eight devices trains as one device does: whole models, adapters, quantised bases, packed rows."""

import logging
import re
from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx

from fit_jax.config import MeshConfig, OptimizerConfig
from fit_jax.models.config import PROJECTIONS, ModelConfig
from fit_jax.models.export import save_own
from fit_jax.models.families import config_to_hf
from fit_jax.models.linear_config import LINEAR_PROJECTIONS, LINEAR_PROJECTIONS_BY_HEAD, LinearConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import resolve_model
from fit_jax.parallel.config import AXES
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.processes import to_global
from fit_jax.parallel.sharding import named_leaves
from fit_jax.runs.pretrained import pretrained_state
from fit_jax.training.optimizer import make_optimizer
from fit_jax.training.state import init_state
from fit_jax.training.step import compile_train_step

LORA = LoraConfig(rank=4, dropout=0.1)
KINDS = {
    "full": (LoraConfig(), "none"),
    "lora": (LORA, "none"),
    "int8": (LORA, "int8"),
    "nf4": (LORA, "nf4"),
    "experts": (LoraConfig(), "none"),
    "experts_nf4": (LORA, "nf4"),
    "experts_lora": (LoraConfig(rank=4, dropout=0.1, experts=True), "none"),
    "gemma4": (LoraConfig(), "none"),
    "gemma4_nf4": (LORA, "nf4"),
    "gemma4_experts": (LoraConfig(), "none"),
    "linear": (LoraConfig(), "none"),
    "linear_nf4": (LoraConfig(rank=4, dropout=0.1, targets=(*PROJECTIONS, *LINEAR_PROJECTIONS)), "nf4"),
    "linear_experts": (LoraConfig(), "none"),
    "linear_experts_nf4": (LoraConfig(rank=4, dropout=0.1, targets=(*PROJECTIONS, *LINEAR_PROJECTIONS_BY_HEAD)), "nf4"),
}
# Besides the experts.
GPT_OSS = {
    "experts_bias": True,
    "activation": "clamped_swiglu",
    "attention_sinks": True,
    "o_bias": True,
    "qkv_bias": True,
}
# Layers of six kinds, of which two take turns.
GEMMA4 = {
    "layers": 8,
    "window": 6,
    "sliding_layers": (0, 2, 4, 6),
    "sliding_theta": 100.0,
    "full_head_dim": 16,
    "full_kv_heads": 2,
    "keys_as_values": True,
    "sharing_layers": 2,
    "sharing_feed_forward": 64,
    "layer_input": 8,
    "value_norm": True,
    "qk_norm": True,
    "layer_scale": True,
}
# Layers that keep a state, whose heads of keys `tensor` divides on some meshes.
LINEAR = {
    "layers": 3,
    "linear": LinearConfig(layers=(0, 2), key_heads=2, value_heads=4, key_width=8, value_width=10),
    "output_gate": True,
    "qk_norm": True,
    "norm_epsilon": 1e-3,
}
SHAPES = [
    (data, fsdp, tensor, 8 // (data * fsdp * tensor))
    for data in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    for tensor in (1, 2, 4, 8)
    if 8 % (data * fsdp * tensor) == 0
]
# With the experts of a mixture on devices of their own; eight devices do not divide four experts.
APART = [(2, 1, 1, 1, 4), (1, 2, 1, 1, 4), (1, 1, 2, 1, 4), (1, 1, 1, 2, 4), (1, 2, 2, 1, 2), (1, 1, 1, 1, 8)]
MANY_KINDS = ("gemma4", "linear")
MANY_KINDS_ON = ((2, 2, 2, 1), (1, 2, 2, 2))
# What the default run of the tests looks at; `pytest -m slow` looks at all the others.
FEW = {
    ("full", (2, 2, 2, 1)),
    ("nf4", (1, 2, 2, 2)),
    ("experts", (1, 2, 2, 2)),
    ("experts", (1, 1, 2, 1, 4)),
    ("experts_lora", (1, 2, 1, 1, 4)),
}


# Layers of many kinds take long to compile.
CASES = [
    (kind, shape) for kind in KINDS for shape in SHAPES if not kind.startswith(MANY_KINDS) or shape in MANY_KINDS_ON
]
CASES += [(kind, shape) for kind in KINDS for shape in APART if "experts" in kind]


@pytest.fixture(scope="module")
def base(tiny, smallest, tmp_path_factory):
    """A model on the disk, by kind; of one layer where the base is quantised, which compiles slowly."""

    @cache
    def make(kind: str) -> str:
        shape = tiny if KINDS[kind][1] == "none" else smallest
        if kind.startswith("experts"):
            shape = replace(smallest, experts=4)
        if kind == "experts":
            shape = replace(shape, **GPT_OSS)
        if kind.startswith("gemma4"):
            shape = replace(smallest, **GEMMA4)
        if kind.startswith("linear"):
            shape = replace(smallest, **LINEAR)
        if kind.startswith("linear_experts"):
            shape = replace(shape, experts=4, expert_width=24, shared_expert=True)
        if kind == "linear_experts_nf4":
            shape = replace(shape, linear=replace(shape.linear, by_head=True))
        if kind == "gemma4_experts":
            shape = replace(smallest, layers=2, experts=4, expert_width=24, layer_scale=True)
        placed = init_state(shape, LoraConfig(), None, make_mesh(MeshConfig(), jax.devices()[:1]), 0)
        folder = tmp_path_factory.mktemp("base")
        decoder = nnx.merge(placed.graphdef, *placed.state.params)
        save_own(folder, decoder, config_to_hf(decoder.config, max_positions=64, tokens={}))
        return str(folder)

    return make


@pytest.fixture(scope="module")
def trained(base, random_batch):
    """The losses of five steps on a mesh, and the last state."""

    def run(kind: str, mesh: MeshConfig, devices: int):
        lora, quantize = KINDS[kind]
        model = resolve_model(ModelConfig(pretrained=base(kind), dropout=0.1, quantize=quantize))
        grid = make_mesh(mesh, jax.devices()[:devices])
        optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2), 5)
        placed = pretrained_state(model, lora, optimizer, grid, 0)
        state, step, losses = placed.state, None, []
        for number in range(5):
            batch = to_global(random_batch(8, number % 2), grid)  # of random tokens only what recurs can be learnt
            balance = 0.1 if kind == "experts" else 0.0
            step = step or compile_train_step(placed.graphdef, optimizer, state, batch, balance=balance)
            state, metrics = step(state, batch)
            losses.append(float(metrics.sums.loss / metrics.sums.targets))
        return np.array(losses), state

    return run


@pytest.fixture(scope="module")
def alone(trained):
    """Losses on one device, by kind."""
    return cache(lambda kind: trained(kind, MeshConfig(), 1)[0])


def case(kind, shape):
    marks = () if (kind, shape) in FEW else (pytest.mark.slow,)
    return pytest.param(kind, shape, id=f"{kind}-{'x'.join(map(str, shape))}", marks=marks)


@pytest.mark.parametrize(("kind", "shape"), [case(*pair) for pair in CASES])
def test_a_mesh_trains_as_one_device_and_compiles_once(kind, shape, alone, trained, caplog):
    expected = alone(kind)
    mesh = MeshConfig(**dict(zip(AXES, shape)))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        found, state = trained(kind, mesh, 8)
    assert len(re.findall(r"Finished XLA compilation of jit\(step\)", caplog.text)) == 1
    # The first losses tell whether the forward pass is the same, the last ones whether the updates are.
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[-1] < found[0]
    if kind == "full":
        kernel = named_leaves(state.trainable)["blocks.attention.q_proj.kernel"]
        assert len(kernel.addressable_shards) == 8
        assert kernel.addressable_shards[0].data.shape == (1, 32 // mesh.fsdp, 32 // mesh.tensor)
    if mesh.expert > 1:
        parameters = named_leaves(state.trainable) | named_leaves(state.frozen)
        of_experts = r"beside\.experts\.up_proj\.kernel" if kind.startswith("linear") else r"up_proj\.(lora_b|kernel)"
        kernel = next(value for path, value in parameters.items() if re.search(of_experts, path))
        assert kernel.addressable_shards[0].data.shape[-3] == (4 if 4 % mesh.expert else 4 // mesh.expert)
