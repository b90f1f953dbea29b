"""A machine that needs no compiler of its own, and tiny workloads to plan for it."""

import math
from dataclasses import replace
from functools import cache

import jax
import pytest
from jax.sharding import Mesh

from fit_jax.config import Config, MeshConfig, OptimizerConfig, load_config
from fit_jax.models.config import DecoderConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.planning.compiled import laid_out, place
from fit_jax.planning.workload import Workload, workload
from fit_jax.training.state import TrainState

TINY = [
    *("--model.layers", "3", "--model.width", "64", "--model.feed_forward", "128", "--model.vocab_size", "96"),
    *("--train.sequence_length", "32", "--train.targets_per_row", "4", "--train.batch_size", "8"),
    *("--evaluation.batch_size", "8", "--lora.rank", "2", "--train.steps", "100"),
]


@pytest.fixture
def tiny():
    """The config of a tiny model with adapters, and what the options change."""

    def make(*options: str) -> Config:
        return load_config([*TINY, *options])

    return make


@cache
def state_of(model: DecoderConfig, lora: LoraConfig, optimizer: OptimizerConfig) -> TrainState:
    """The abstract state of a model on one device."""
    load = replace(workload(Config()), model=model, lora=lora, optimizer=optimizer)
    return place(load, make_mesh(MeshConfig(), jax.devices()[:1])).state


@pytest.fixture
def planned(tiny):
    """A tiny workload with its abstract state on a mesh of simulated devices: (load, state, mesh)."""

    def make(*options: str, **sizes: int) -> tuple[Workload, TrainState, Mesh]:
        load = replace(workload(tiny(*options)), mesh=MeshConfig(**{"data": 1, **sizes}))
        mesh = make_mesh(load.mesh, jax.devices()[: math.prod(sizes.values())])
        # Neither says anything of the state.
        model = replace(load.model, remat="full", attention="auto")
        return load, laid_out(state_of(model, load.lora, load.optimizer), mesh), mesh

    return make
