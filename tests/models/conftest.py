"""Tiny models and plain rows shared by the tests of the models room."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.lora_config import LoraConfig

PLAIN = LoraConfig()


@pytest.fixture(autouse=True)
def _no_silent_broadcasting():
    with jax.numpy_rank_promotion("raise"):
        yield


class Model(NamedTuple):
    """A decoder split into its definition and weights; calling it runs the decoder under jit."""

    graphdef: nnx.GraphDef
    state: nnx.State

    def __call__(self, *inputs, **options):
        return _run(self.graphdef, self.state, *inputs, **options)

    @property
    def decoder(self) -> Decoder:
        return nnx.merge(self.graphdef, self.state)


@functools.partial(jax.jit, static_argnums=0, static_argnames="deterministic")
def _run(graphdef, state, *inputs, **options):
    return nnx.merge(graphdef, state)(*inputs, **options)


@pytest.fixture(scope="session")
def tiny() -> DecoderConfig:
    return DecoderConfig(vocab_size=97, layers=3, width=32, feed_forward=48, heads=4, kv_heads=2)


@pytest.fixture(scope="session")
def build():
    """Builds a model with random weights everywhere, drawn without compiling; adapters are no identity."""

    def make(config: DecoderConfig, lora: LoraConfig = PLAIN, seed: int = 0, **changes) -> Model:
        config = dataclasses.replace(config, **changes)
        graphdef, abstract = nnx.split(nnx.eval_shape(lambda: Decoder(config, lora, rngs=nnx.Rngs(0))))
        generator = np.random.default_rng(seed)

        def draw(path, leaf):
            name = jax.tree_util.keystr(path)
            if "scale" in name or "magnitude" in name:
                drawn = generator.uniform(0.5, 1.5, leaf.shape)
            else:
                drawn = generator.normal(0, 1.0 if "embed" in name else leaf.shape[-2:][0] ** -0.5, leaf.shape)
            return jnp.asarray(drawn, leaf.dtype)

        return Model(graphdef, jax.tree.map_with_path(draw, abstract))

    return make


@pytest.fixture(scope="session")
def row():
    """Tokens of plain rows, one sequence each: (tokens, positions, visible_until)."""

    def make(rows: int, tokens: int, vocab: int, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
        ids = np.random.default_rng(seed).integers(0, vocab, (rows, tokens), np.int32)
        positions = np.tile(np.arange(tokens, dtype=np.int32), (rows, 1))
        return jnp.asarray(ids), jnp.asarray(positions), jnp.full((rows, tokens), tokens, jnp.int32)

    return make
