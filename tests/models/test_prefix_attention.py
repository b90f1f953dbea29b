import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fit_jax.config import MeshConfig
from fit_jax.models import kernels
from fit_jax.models.attention import Scope, attention
from fit_jax.models.prefix_attention import prefix_attention
from fit_jax.models.prefix_blocks import Rules, Tiles, blocks_of
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.topology import Topology

from ..closeness import assert_close

PLATFORMS = ("tpu", "gpu")
SEEDS = st.integers(0, 2**32 - 1)
BLOCKS = jax.jit(blocks_of, static_argnums=3)


def forest(rng, rows: int, T: int):
    """Positions and ends of rows that hold trees of random depth, width and lengths, and padding on either side."""
    positions, ends = np.zeros((2, rows, T), np.int32)

    def grow(row: int, start: int, position: int, room: int, depth: int) -> int:
        length = int(rng.integers(1, max(room // 2, 1) + 1))
        positions[row, start : start + length] = np.arange(position, position + length)
        end = start + length
        for _ in range(int(rng.integers(0, 4)) if depth else 0):
            if start + room - end > 1:
                end = grow(row, end, position + length, start + room - end, depth - 1)
        ends[row, start : start + length] = end
        return end

    for row in range(rows):
        at, stop = (int(rng.integers(0, T // 4)) for _ in range(2))
        while at < T - stop - 1:
            at = grow(row, at, 0, T - stop - at, int(rng.integers(0, 4)))
    return positions, ends


def draw(rng, rows: int, T: int, C: int, heads: int, kv_heads: int, width: int, dtype=np.float32):
    """Queries, keys, values, the gradients of results and lse, and what the C queries, drawn from the row, see."""
    q, dy = (jnp.asarray(rng.normal(size=(rows, C, heads, width)), dtype) for _ in range(2))
    k, v = (jnp.asarray(rng.normal(size=(rows, T, kv_heads, width)), dtype) for _ in range(2))
    dlse = rng.normal(size=(rows, heads, C)).astype(np.float32)
    positions, ends = forest(rng, rows, T)
    index = np.stack([np.sort(rng.permutation(T)[:C]) for _ in range(rows)]).astype(np.int32)
    return (q, k, v), (dy, dlse), Scope(index, np.take_along_axis(positions, index, 1), positions, ends)


def plain(q, k, v, scope, window, softcap):
    """Attention by XLA, and the lse."""
    scale, group = q.shape[-1] ** -0.5, q.shape[2] // k.shape[2]
    y = attention(q, k, v, scope, scale=scale, window=window, softcap=softcap, kind="xla")
    keys = jnp.repeat(k, group, axis=2).astype(jnp.float32)
    scores = jnp.einsum("bchg,bthg->bhct", q.astype(jnp.float32) * scale, keys)
    scores = scores if softcap is None else softcap * jnp.tanh(scores / softcap)
    seen = scope.mask(window)
    lse = jax.nn.logsumexp(jnp.where(seen[:, None], scores, -1e30), axis=3)
    return jnp.where(seen.any(2)[:, :, None, None], y, 0), jnp.where(seen.any(2)[:, None], lse, -jnp.inf)


@functools.cache
def program(platform: str, softcap: float | None):
    """Results and gradients by one of the kernels, or by XLA."""

    def results(q, k, v, scope, window):
        if platform == "xla":
            return plain(q, k, v, scope, window, softcap)
        rule = scope.query_index, scope.query_positions, scope.key_positions, scope.visible_until
        options = {"window": window, "softcap": softcap, "platform": platform, "interpret": True}
        return prefix_attention(q, k, v, *rule, scale=q.shape[-1] ** -0.5, **options)

    @jax.jit
    def run(inputs, gradients, scope, window):
        (y, lse), back = jax.vjp(lambda *inputs: results(*inputs, scope, window), *inputs)
        seeing = jnp.isfinite(lse)
        dy = jnp.where(seeing.swapaxes(1, 2)[..., None], gradients[0], 0)
        return y, lse, *back((dy, jnp.where(seeing, gradients[1], 0)))

    return run


def compare(found, expected, tolerance):
    seeing = np.isfinite(expected[1])
    np.testing.assert_array_equal(np.isfinite(found[1]), seeing)
    assert not np.asarray(found[0], np.float32)[~seeing.swapaxes(1, 2)].any(), "a query that sees nothing"
    for name, a, b in zip(("y", "lse", "dq", "dk", "dv"), found, expected):
        assert_close(*(np.where(np.isfinite(x), x, 0).astype(np.float32) for x in (a, b)), tolerance, name)


# Rows, tokens, queries, heads, key heads, width, softcap, whether a window.
NARROW = (2, 300, 300, 4, 2, 64, 5.0, True)
SHAPES = (
    (1, 300, 40, 3, 1, 96, None, True),
    (1, 300, 300, 2, 2, 128, None, False),
    (1, 640, 640, 2, 1, 256, 5.0, False),
    (2, 100, 20, 4, 4, 80, None, False),
)


def agrees(platform, seed, rows, T, C, heads, kv_heads, width, softcap, windowed):
    rng = np.random.default_rng(seed)
    inputs, gradients, scope = draw(rng, rows, T, C, heads, kv_heads, width)
    window = jnp.int32(rng.integers(1, T // 2)) if windowed else None
    found, expected = (program(p, softcap)(inputs, gradients, scope, window) for p in (platform, "xla"))
    compare(found, expected, 2e-5)


@pytest.mark.parametrize("platform", PLATFORMS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_kernels_equal_xla_on_random_forests(platform, seed):
    agrees(platform, seed, *NARROW)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("platform", PLATFORMS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_kernels_equal_xla_for_all_heads_and_targets(platform, shape, seed):
    agrees(platform, seed, *shape)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [None, 1024, 512, 256, 128])
def test_tiles_change_nothing(tile, monkeypatch):
    if tile is not None:
        monkeypatch.setattr("fit_jax.models.prefix_attention_tpu.tiles", lambda *_: Tiles(tile, tile))
    inputs, gradients, scope = draw(np.random.default_rng(3), 1, 1100, 1100, 2, 1, 64)
    found = program.__wrapped__("tpu", None)(inputs, gradients, scope, None)
    compare(found, program("xla", None)(inputs, gradients, scope, None), 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_bfloat16_is_within_its_rounding_of_xla(platform):
    inputs, gradients, scope = draw(np.random.default_rng(0), 2, 300, 300, 4, 2, 64, jnp.bfloat16)
    found, expected = (program(p, None)(inputs, gradients, scope, None) for p in (platform, "xla"))
    for a, b in zip(found, expected):
        a, b = (np.where(np.isfinite(x), x, 0).astype(np.float32) for x in (a, b))
        assert np.sqrt(np.mean((a - b) ** 2)) < 2e-3 * np.abs(b).max()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_blocks_in_which_nothing_is_seen_are_not_read(platform):
    """What is not a number would spread through a product with zero weights."""
    T = 300
    (q, k, v), gradients, scope = draw(np.random.default_rng(0), 2, T, T, 4, 2, 64)
    index = np.broadcast_to(np.arange(T, dtype=np.int32), (2, T))
    first = index < 128
    scope = Scope(index, index, index, np.where(first, 128, T).astype(np.int32))
    k, v = (jnp.where(first[:, :, None, None], jnp.nan, x) for x in (k, v))
    gradients = jnp.where(first[:, :, None, None], 0, gradients[0]), jnp.where(first[:, None], 0, gradients[1])
    y, lse, dq, dk, dv = program(platform, 5.0)((q, k, v), gradients, scope, jnp.int32(T))
    for result in (y, lse.swapaxes(1, 2), dq, dk, dv):
        assert np.isfinite(result[:, 128:]).all()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_each_block_that_sees_is_visited_once(seed):
    rng, T, tile = np.random.default_rng(seed), 96, 16
    positions, ends = forest(rng, 1, T)
    index, window = np.arange(T, dtype=np.int32)[None], int(rng.integers(1, T))
    rules = Rules(Tiles(tile, tile), True, None, True)
    queries, keys = np.stack([index, positions], 1), np.stack([ends, positions], 1)
    blocks = BLOCKS(queries, keys, np.array([window], np.int32), rules)
    seen = np.asarray(Scope(index, positions, positions, ends).mask(window))[0]
    tiled = seen.reshape(T // tile, tile, T // tile, tile).swapaxes(1, 2)
    for walk, pairs in ((blocks.by_query, tiled), (blocks.by_key, tiled.swapaxes(0, 1))):
        for count, visit, row in zip(walk.turns[0].tolist(), walk.visit[0].tolist(), pairs):
            met = {entry // 2: entry % 2 for entry in visit[:count]}
            assert len(met) == count
            assert set(np.flatnonzero(row.any((1, 2)))) <= set(met)
            assert all(row[number].all() for number, every in met.items() if every)
            assert set(visit[count:]) <= {visit[max(count - 1, 0)]}


def test_packed_sequences_cost_their_own_blocks():
    index = np.arange(64, dtype=np.int32)[None]
    queries, keys = np.stack([index, index % 32], 1), np.stack([index // 32 * 32 + 32, index % 32], 1)
    rules = Rules(Tiles(16, 16), False, None, True)
    blocks = BLOCKS(queries, keys, np.zeros(1, np.int32), rules)
    assert blocks.by_query.turns.tolist() == [[1, 2, 1, 2]]
    assert blocks.by_query.visit[0, 1, :2].tolist() == [1, 2]  # the first whole, its own masked
    assert blocks.by_key.turns.tolist() == [[2, 1, 2, 1]]


@pytest.mark.parametrize(
    "mesh",
    [
        MeshConfig(fsdp=2, tensor=2, context=2),
        pytest.param(MeshConfig(data=2, tensor=4), marks=pytest.mark.slow),  # more shards than key heads
    ],
)
def test_a_mesh_changes_nothing(mesh):
    inputs, gradients, scope = draw(np.random.default_rng(0), 2, 300, 300, 4, 2, 64)
    window = jnp.int32(60)
    expected = program("tpu", 5.0)(inputs, gradients, scope, window)
    with jax.set_mesh(make_mesh(mesh)):
        found = program.__wrapped__("tpu", 5.0)(inputs, gradients, scope, window)
    compare(found, expected, 2e-5)


def test_sinks_take_their_share_beside_a_kernel_as_in_xla(monkeypatch):
    """And their gradients; no query of padding, which sees nothing, makes one that is no number."""
    (q, k, v), (dy, _), scope = draw(np.random.default_rng(0), 1, 100, 20, 4, 2, 64)
    sinks = jnp.array([-1.0, 0.5, 3.0, 40.0])
    monkeypatch.setattr(
        "fit_jax.models.attention.prefix_attention", functools.partial(prefix_attention, interpret=True)
    )
    dy = jnp.where(scope.mask(9).any(2)[..., None, None], dy, 0)

    def run(kernel):
        monkeypatch.setattr(kernels, "choose", lambda *_, **__: kernel)
        options = {"scale": 0.125, "window": 9, "kind": kernel}
        y, back = jax.vjp(lambda q, k, v, sinks: attention(q, k, v, scope, sinks=sinks, **options), q, k, v, sinks)
        return y, *back(dy)

    found, expected = jax.jit(lambda: run("tpu"))(), jax.jit(lambda: run("xla"))()
    seeing = np.asarray(scope.mask(9).any(2))[..., None, None]
    assert_close(found[0] * seeing, expected[0] * seeing, 2e-5)
    for a, b in zip(found[1:], expected[1:]):
        assert_close(a, b, 2e-5)
    assert np.abs(found[0][:, :, 3]).max() < 1e-6 * np.abs(found[0]).max()  # all but gone to the sink


def compiled(topology: str, platform: str, C: int, heads: int, kv_heads: int, width: int, softcap, window):
    """A forward and backward pass over rows of 3000 tokens, compiled for a machine."""
    devices = Topology.parse(topology).devices()
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1, tensor=2 if len(devices) > 1 else 1), devices)
    rows, T = len(devices), 3000

    def shape(dtype, *sizes):
        spec = P(("data", "fsdp"), None, *["tensor"] * (len(sizes) == 4))
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=NamedSharding(mesh, spec))

    q, k = shape(jnp.bfloat16, rows, C, heads, width), shape(jnp.bfloat16, rows, T, kv_heads, width)
    rule = [shape(jnp.int32, rows, tokens) for tokens in (C, C, T, T)]

    def run(q, k, v, dy, *rule):
        options = {"scale": 0.1, "window": window, "softcap": softcap, "platform": platform}
        y, back = jax.vjp(lambda q, k, v: prefix_attention(q, k, v, *rule, **options)[0], q, k, v)
        return y, *back(dy)

    with jax.set_mesh(mesh):
        program = jax.jit(run).lower(q, k, k, q, *rule).compile()
    # Less than the scores of a row, and padded copies of keys, values and their gradients, in half precision.
    assert program.memory_analysis().temp_size_in_bytes < 2 * T * (C * heads + 4 * kv_heads * width)
    return program


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler (libtpu)")
@pytest.mark.parametrize(
    ("topology", "shape"),
    [
        ("v5e:2x2", (3000, 8, 2, 128, None, None)),
        ("v5p:1x1x1", (3000, 8, 8, 96, 50.0, 512)),
        ("v6e:1x1", (3000, 4, 1, 256, None, 512)),
        ("v6e:1x1", (24, 8, 2, 64, None, None)),
        *((topology, (3000, 8, 1, 512, None, None)) for topology in ("v5e:1x1", "v5p:1x1x1", "v6e:1x1")),  # Gemma 4
    ],
)
def test_compiles_for_tpus(topology, shape):
    compiled(topology, "tpu", *shape)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs the GPU compiler")
@pytest.mark.parametrize(
    ("topology", "shape"),
    [
        ("h100:1", (3000, 8, 2, 128, None, None)),
        ("a100:1", (3000, 8, 8, 96, 50.0, 512)),
        ("l4:1", (24, 4, 1, 256, None, None)),
    ],
)
def test_compiles_for_gpus(topology, shape):
    compiled(topology, "gpu", *shape)
