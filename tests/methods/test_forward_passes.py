"""Decoder, cache and intervention walk over the layers alike: same numbers, each layer once, same place on a mesh."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from fit_jax.config import MeshConfig
from fit_jax.data.packing import Batch
from fit_jax.methods.intervention import intervened, no_intervention
from fit_jax.models.attention import Scope
from fit_jax.models.block import LayerHook
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.kv_cache import empty_cache, extend
from fit_jax.parallel.hlo import collectives
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import batch_sharding, lay_out_tree

from ..closeness import assert_close

B, T, C = 8, 16, 2
# Every switch that a walk has to respect, layer by layer.
CONFIG = DecoderConfig(
    vocab_size=64,
    layers=4,
    width=32,
    feed_forward=128,
    heads=4,
    kv_heads=2,
    window=4,
    sliding_layers=(0, 2),
    sliding_theta=100.0,
    post_norms=True,
    qk_norm=True,
    embed_scale=True,
    attention_softcap=5.0,
)
GRAPHDEF, SHAPES = nnx.split(nnx.eval_shape(lambda: Decoder(CONFIG, rngs=nnx.Rngs(0))))
ROW = jnp.tile(jnp.arange(T, dtype=jnp.int32)[None], (B, 1))
WANTED = jnp.tile(jnp.array([[T - 1, 9]], jnp.int32), (B, 1))


def by_decoder(state, tokens):
    return nnx.merge(GRAPHDEF, state)(tokens, ROW, jnp.full_like(ROW, T), WANTED)


def by_cache(state, tokens):
    decoder, valid, first = nnx.merge(GRAPHDEF, state), jnp.ones(tokens.shape, bool), 8
    cache = empty_cache(CONFIG, B, T)
    _, cache = extend(decoder, cache, tokens[:, :first], ROW[:, :first], valid[:, :first], WANTED[:, :1] * 0)
    return extend(decoder, cache, tokens[:, first:], ROW[:, first:], valid[:, first:], WANTED - first)[0]


def by_intervention(state, tokens):
    nothing, weight = jnp.zeros_like(WANTED), jnp.ones(WANTED.shape)
    batch = Batch(tokens, ROW, jnp.full_like(ROW, T), WANTED, nothing, nothing, weight)
    change = no_intervention(CONFIG)
    return intervened(nnx.merge(GRAPHDEF, state), batch, jnp.zeros_like(tokens), change)[0]


PASSES = [by_decoder, by_cache, by_intervention]


@pytest.fixture(scope="module")
def weights():
    generator = np.random.default_rng(0)
    draw = lambda a: jnp.asarray(generator.normal(0, 1 if a.ndim == 1 else a.shape[-2] ** -0.5, a.shape), a.dtype)  # noqa: E731
    return jax.tree.map(draw, SHAPES)


def test_all_passes_give_the_same_hidden_states(weights):
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, 64, (B, T), np.int32))
    expected = jax.jit(by_decoder)(weights, tokens)
    for other in (by_cache, by_intervention):
        assert_close(jax.jit(other)(weights, tokens), expected, tolerance=2e-5)


@pytest.mark.parametrize("forward", PASSES)
def test_layers_work_on_the_rows_that_a_device_holds(forward):
    """With weights split over `fsdp` a layer gathers weights; no sum over devices of activations split by width."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    state = jax.tree.map(
        lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
        SHAPES,
        lay_out_tree(SHAPES, mesh).shardings,
    )
    tokens = jax.ShapeDtypeStruct((B, T), jnp.int32, sharding=batch_sharding(mesh, "BT"))
    with jax.set_mesh(mesh):
        compiled = jax.jit(forward, out_shardings=NamedSharding(mesh, PartitionSpec())).lower(state, tokens).compile()
    summed = [c for c in collectives(compiled.as_text(), 8) if c.kind in ("all-reduce", "reduce-scatter")]
    assert [c for c in summed if c.times == CONFIG.layers - 1] == []


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Visits(LayerHook):
    """Counts the keys and values and the outputs of each layer, and replaces one layer's output."""

    keys: jax.Array
    outputs: jax.Array

    def keys_values(self, layer, k, v):
        return replace(self, keys=self.keys.at[layer].add(k.shape[1])), k, v

    def output(self, layer, x, index_BC):
        return replace(self, outputs=self.outputs.at[layer].add(x.shape[1])), jnp.where(layer == 2, 1.0, x)


def test_a_hook_takes_part_in_each_layer_once(weights):
    none = jnp.zeros(CONFIG.layers, jnp.int32)
    scope = Scope.of_rows(ROW, jnp.full_like(ROW, T))

    @jax.jit
    def run(state, tokens):
        return nnx.merge(GRAPHDEF, state).walk(tokens, scope, Visits(none, none), WANTED)

    hidden, visits = run(weights, jnp.zeros_like(ROW))
    assert visits.keys.tolist() == [T] * CONFIG.layers
    assert visits.outputs.tolist() == [T, T, T, C]  # the last layer runs at the positions that are wanted
    other, _ = run(weights, ROW)  # what came before the layer whose output was replaced is forgotten
    np.testing.assert_array_equal(hidden, other)
