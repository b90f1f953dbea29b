"""The prefix-tree attention kernel for TPUs, in Pallas: forward, gradient of the queries, gradient of keys and values.

Scores are held transposed, keys by queries: what belongs to a query (its greatest score, its sum, its lse) is then a
row of lanes, and no array has to hold it once for each lane. After FlashAttention-2 (Dao 2023, arXiv 2307.08691).
"""

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

from fit_jax.models.prefix_blocks import (
    LEAST,
    MASKED,
    BackwardInputs,
    Blocks,
    Rules,
    Tiles,
    Walk,
    capped,
    dot,
    fitting,
    uncapped,
    visible,
)
from fit_jax.models.tile_table import LARGEST, LENGTHS

# Tokens of a block, of which the table says the largest for a width and length. Larger ones mean fewer passes over the
# keys and fewer turns, and more work in blocks that are partly seen.
SIZES = (1024, 512, 384, 256, 128)
# Of 16-bit numbers in a register; a block of a short row is a multiple.
SUBLANES = 16


def tiles(queries: int, keys: int, head_width: int) -> Tiles:
    """Tokens of a block for rows of this many queries and keys."""
    row = LARGEST[next((width for width in LARGEST if head_width <= width), max(LARGEST))]
    largest = row[bisect_right(LENGTHS, keys) - 1] if keys >= LENGTHS[0] else SIZES[1]
    sizes = [size for size in SIZES if size <= largest]
    return Tiles(fitting(queries, sizes, SUBLANES), fitting(keys, sizes, SUBLANES))


def forward(
    q: Float[Array, "B C H G"], k: Float[Array, "B T K G"], v: Float[Array, "B T K G"], blocks: Blocks, rules: Rules
) -> tuple[Float[Array, "B C H G"], Float[Array, "B H C"]]:
    """What the scaled queries gather, and their lse."""
    q, k, v = (_swapped(x) for x in (q, k, v))
    B, H, C, G = q.shape
    keys = k.shape[2] // rules.tiles.keys
    spec = _query_specs(rules.tiles, H // k.shape[1], keys, G)
    row = jax.ShapeDtypeStruct((B, H, 1, C), jnp.float32)
    y, lse = _call(
        _forward,
        rules,
        blocks.by_query,
        grid=(B, H, C // rules.tiles.queries, keys),
        in_specs=[spec.queries, spec.keys, spec.own, spec.other, spec.other],
        out_specs=[spec.own, spec.row],
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), row],
        scratch=[(1, rules.tiles.queries), (1, rules.tiles.queries), (G, rules.tiles.queries)],
    )(blocks.window, blocks.queries, blocks.keys, q, k, v)
    return _swapped(y), lse[:, :, 0]


def backward(
    inputs: BackwardInputs, blocks: Blocks, rules: Rules
) -> tuple[Float[Array, "B C H G"], Float[Array, "B T K G"], Float[Array, "B T K G"]]:
    """Gradients of the scaled queries, of keys and of values."""
    q, k, v, dy, lse, delta = inputs
    q, k, v, dy = (_swapped(x) for x in (q, k, v, dy))
    (B, H, C, G), (K, T) = q.shape, k.shape[1:3]
    group, queries, keys = H // K, C // rules.tiles.queries, T // rules.tiles.keys
    operands = (blocks.window, blocks.queries, blocks.keys, q, k, v, dy, lse[:, :, None], delta[:, :, None])
    spec = _query_specs(rules.tiles, group, keys, G)
    (dq,) = _call(
        _query_gradient,
        rules,
        blocks.by_query,
        grid=(B, H, queries, keys),
        in_specs=[spec.queries, spec.keys, spec.own, spec.other, spec.other, spec.own, spec.row, spec.row],
        out_specs=[spec.own],
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype)],
        scratch=[(G, rules.tiles.queries)],
    )(*operands)
    spec = _key_specs(rules.tiles, group, queries, G)
    dk, dv = _call(
        _key_gradient,
        rules,
        blocks.by_key,
        grid=(B, K, keys, group, queries),
        in_specs=[spec.queries, spec.keys, spec.other, spec.own, spec.own, spec.other, spec.row, spec.row],
        out_specs=[spec.own, spec.own],
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
        scratch=[(rules.tiles.keys, G)] * 2,
    )(*operands)
    return _swapped(dq), _swapped(dk), _swapped(dv)


def _swapped(x: Array) -> Array:
    """Heads and tokens exchanged; a block's tokens and head width must be last."""
    return x.swapaxes(1, 2)


def _call(
    body: Any, rules: Rules, walk: Walk, *, grid: tuple[int, ...], scratch: list[tuple[int, ...]], **specs: Any
) -> Callable[..., Any]:
    """A pass over the blocks of a walk; of the grid, rows come first, the walk's blocks third and its turns last."""
    shapes = specs.pop("out_shape")
    run = pl.pallas_call(
        partial(body, rules),
        out_shape=shapes,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=grid,
            scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
            **specs,
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",) * (len(grid) - 3)),
        interpret=rules.interpret,
        name=f"prefix_attention{body.__name__}",
    )
    return partial(run, walk.turns.reshape(-1), walk.visit.reshape(-1))


class _Specs(NamedTuple):
    """Blocks of operands: a pass's own, those it visits, one number a query, and what queries and keys see."""

    own: pl.BlockSpec
    other: pl.BlockSpec
    row: pl.BlockSpec
    queries: pl.BlockSpec
    keys: pl.BlockSpec


def _query_specs(tiles: Tiles, group: int, keys: int, width: int) -> _Specs:
    """Of a pass over (row, head, block of queries, turn)."""

    def met(b: Array, i: Array, n: Array, visit: Any) -> Array:
        return visit[(b * pl.num_programs(2) + i) * keys + n] >> 1

    return _Specs(
        own=pl.BlockSpec((None, None, tiles.queries, width), lambda b, h, i, n, *_: (b, h, i, 0)),
        other=pl.BlockSpec(
            (None, None, tiles.keys, width),
            lambda b, h, i, n, count, visit, *_: (b, h // group, met(b, i, n, visit), 0),
        ),
        row=pl.BlockSpec((None, None, 1, tiles.queries), lambda b, h, i, n, *_: (b, h, 0, i)),
        queries=pl.BlockSpec((None, 2, tiles.queries), lambda b, h, i, n, *_: (b, 0, i)),
        keys=pl.BlockSpec((None, 2, tiles.keys), lambda b, h, i, n, count, visit, *_: (b, 0, met(b, i, n, visit))),
    )


def _key_specs(tiles: Tiles, group: int, queries: int, width: int) -> _Specs:
    """Of a pass over (row, key head, block of keys, query head of the group, turn)."""

    def met(b: Array, j: Array, n: Array, visit: Any) -> Array:
        return visit[(b * pl.num_programs(2) + j) * queries + n] >> 1

    return _Specs(
        own=pl.BlockSpec((None, None, tiles.keys, width), lambda b, h, j, r, n, *_: (b, h, j, 0)),
        other=pl.BlockSpec(
            (None, None, tiles.queries, width),
            lambda b, h, j, r, n, count, visit, *_: (b, h * group + r, met(b, j, n, visit), 0),
        ),
        row=pl.BlockSpec(
            (None, None, 1, tiles.queries),
            lambda b, h, j, r, n, count, visit, *_: (b, h * group + r, 0, met(b, j, n, visit)),
        ),
        queries=pl.BlockSpec(
            (None, 2, tiles.queries), lambda b, h, j, r, n, count, visit, *_: (b, 0, met(b, j, n, visit))
        ),
        keys=pl.BlockSpec((None, 2, tiles.keys), lambda b, h, j, r, n, *_: (b, 0, j)),
    )


def _forward(rules: Rules, count: Any, visit: Any, window: Any, *refs: Any) -> None:
    *inputs, v, y, lse, greatest, total, gathered = refs

    @pl.when(pl.program_id(3) == 0)
    def start() -> None:
        greatest[...] = jnp.full_like(greatest, LEAST)
        total[...] = jnp.zeros_like(total)
        gathered[...] = jnp.zeros_like(gathered)

    def step(block: Array, masked: bool) -> None:
        scores, seen = _scores(rules, masked, block, window, *inputs)
        scores = scores if seen is None else jnp.where(seen, scores, MASKED)
        high = jnp.maximum(greatest[...], scores.max(axis=0, keepdims=True))
        weights = jnp.exp(scores - high)
        decay = jnp.exp(greatest[...] - high)
        greatest[...] = high
        total[...] = total[...] * decay + weights.sum(axis=0, keepdims=True)
        gathered[...] = gathered[...] * decay + dot(v[...], weights.astype(v.dtype), (0, 0))

    _at_turn(count, visit, 3, step)

    @pl.when(pl.program_id(3) == pl.num_programs(3) - 1)
    def end() -> None:
        sums = total[...]
        y[...] = (gathered[...] / jnp.where(sums == 0, 1.0, sums)).T.astype(y.dtype)
        lse[...] = jnp.where(sums == 0, -jnp.inf, greatest[...] + jnp.log(sums))


def _query_gradient(rules: Rules, count: Any, visit: Any, window: Any, *refs: Any) -> None:
    *inputs, dq, total = refs
    k = inputs[3]

    @pl.when(pl.program_id(3) == 0)
    def start() -> None:
        total[...] = jnp.zeros_like(total)

    def step(block: Array, masked: bool) -> None:
        _, ds = _gradients(rules, masked, block, window, *inputs)
        total[...] += dot(k[...], ds.astype(k.dtype), (0, 0))

    _at_turn(count, visit, 3, step)

    @pl.when(pl.program_id(3) == pl.num_programs(3) - 1)
    def end() -> None:
        dq[...] = total[...].T.astype(dq.dtype)


def _key_gradient(rules: Rules, count: Any, visit: Any, window: Any, *refs: Any) -> None:
    *inputs, dk, dv, total_k, total_v = refs
    q, dy, own = inputs[2], inputs[5], pl.program_id(2)

    @pl.when((pl.program_id(3) == 0) & (pl.program_id(4) == 0))
    def start() -> None:
        total_k[...] = jnp.zeros_like(total_k)
        total_v[...] = jnp.zeros_like(total_v)

    def step(_: Array, masked: bool) -> None:
        weights, ds = _gradients(rules, masked, own, window, *inputs)
        total_v[...] += dot(weights.astype(dy.dtype), dy[...], (1, 0))
        total_k[...] += dot(ds.astype(q.dtype), q[...], (1, 0))

    _at_turn(count, visit, 4, step)

    @pl.when((pl.program_id(3) == pl.num_programs(3) - 1) & (pl.program_id(4) == pl.num_programs(4) - 1))
    def end() -> None:
        dk[...] = total_k[...].astype(dk.dtype)
        dv[...] = total_v[...].astype(dv.dtype)


def _at_turn(count: Any, visit: Any, axis: int, step: Callable[[Array, bool], None]) -> None:
    """Runs `step` on the block that is met at this turn, if any; with a mask where the block needs one."""
    turn, turns = pl.program_id(axis), pl.num_programs(axis)
    at = pl.program_id(0) * pl.num_programs(2) + pl.program_id(2)
    entry = visit[at * turns + turn]
    live, every = turn < count[at], entry & 1
    pl.when(live & (every == 1))(lambda: step(entry >> 1, False))
    pl.when(live & (every == 0))(lambda: step(entry >> 1, True))


def _scores(
    rules: Rules, masked: bool, block: Array, window: Any, queries: Any, keys: Any, q: Any, k: Any
) -> tuple[Float[Array, "t c"], Bool[Array, "t c"] | None]:
    """Capped scores of a block of keys, keys by queries, and which of them count; None means all."""
    scores = capped(dot(k[...], q[...], (1, 1)), rules.softcap)
    if not masked:
        return scores, None
    key = block * rules.tiles.keys + jax.lax.broadcasted_iota(jnp.int32, (scores.shape[0], 1), 0)
    limit = window[0] if rules.windowed else None
    return scores, visible(queries[:1], queries[1:], key, keys[:1].T, keys[1:].T, limit)


def _gradients(
    rules: Rules, masked: bool, block: Array, window: Any, *inputs: Any
) -> tuple[Float[Array, "t c"], Float[Array, "t c"]]:
    """Weights of a block of keys, and gradients of its scores, keys by queries."""
    queries, keys, q, k, v, dy, lse, delta = inputs
    scores, seen = _scores(rules, masked, block, window, queries, keys, q, k)
    weights = jnp.exp((scores if seen is None else jnp.where(seen, scores, MASKED)) - lse[...])
    ds = weights * (dot(v[...], dy[...], (1, 1)) - delta[...])
    return weights, uncapped(ds, scores, rules.softcap)
