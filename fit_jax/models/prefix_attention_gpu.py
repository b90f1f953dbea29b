"""The prefix-tree attention kernel for GPUs, in Pallas lowered by Triton (Ampere and later).

A program has one block of queries, or for the gradient of keys and values one of keys, and goes through the blocks that
it meets. After FlashAttention-2 (Dao 2023, arXiv 2307.08691).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float

from fit_jax.models import prefix_blocks
from fit_jax.models.prefix_blocks import BackwardInputs, Blocks, Rules, Tiles, Walk, capped, dot, uncapped, visible


def tiles(queries: int, keys: int, head_width: int) -> Tiles:
    """Tokens of a block: fewer for wide heads, whose operands share registers and shared memory with the scores."""
    del queries, keys
    return Tiles(64, 64) if head_width <= 128 else Tiles(32, 32)


def forward(
    q: Float[Array, "B C H G"], k: Float[Array, "B T K G"], v: Float[Array, "B T K G"], blocks: Blocks, rules: Rules
) -> tuple[Float[Array, "B C H G"], Float[Array, "B H C"]]:
    """What the scaled queries gather, and their lse."""
    G, (q, k, v) = q.shape[3], _widened(q, k, v)
    (B, C, H, W), (T, K) = q.shape, k.shape[1:3]
    own, other = _block(rules.tiles.queries, W), _rows(T, W, H // K)
    y, lse = _call(
        _forward,
        rules,
        blocks.by_query,
        grid=(C // rules.tiles.queries, H, B),
        in_specs=[_all(C), _all(T), own, other, other],
        out_specs=[own, _row(rules.tiles.queries)],
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((B, H, C), jnp.float32)],
    )(blocks.window, blocks.queries, blocks.keys, q, k, v)
    return y[..., :G], lse


def backward(
    inputs: BackwardInputs, blocks: Blocks, rules: Rules
) -> tuple[Float[Array, "B C H G"], Float[Array, "B T K G"], Float[Array, "B T K G"]]:
    """Gradients of the scaled queries, of keys and of values."""
    q, k, v, dy, lse, delta = inputs
    G, (q, k, v, dy) = q.shape[3], _widened(q, k, v, dy)
    (B, C, H, W), (T, K), tile = q.shape, k.shape[1:3], rules.tiles
    operands = (blocks.window, blocks.queries, blocks.keys, q, k, v, dy, lse, delta)
    own, other, row = _block(tile.queries, W), _rows(T, W, H // K), _row(tile.queries)
    (dq,) = _call(
        _query_gradient,
        rules,
        blocks.by_query,
        grid=(C // tile.queries, H, B),
        in_specs=[_all(C), _all(T), own, other, other, own, row, row],
        out_specs=[own],
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype)],
    )(*operands)
    own = _block(tile.keys, W)
    other = pl.BlockSpec((None, C, H // K, W), lambda j, h, b: (b, 0, h, 0))
    row = pl.BlockSpec((None, H // K, C), lambda j, h, b: (b, h, 0))
    dk, dv = _call(
        _key_gradient,
        rules,
        blocks.by_key,
        grid=(T // tile.keys, K, B),
        in_specs=[_all(C), _all(T), other, own, own, other, row, row],
        out_specs=[own, own],
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
    )(*operands)
    return dq[..., :G], dk[..., :G], dv[..., :G]


def _widened(*heads: Float[Array, "B T H G"]) -> list[Float[Array, "B T H W"]]:
    """Heads of a width that is a power of two, as Triton wants its blocks; what is added is zeros."""
    more = pl.next_power_of_2(heads[0].shape[3]) - heads[0].shape[3]
    return [jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more))) if more else x for x in heads]


# Operands of a program (block, head, row). Those that it goes through are handed over whole, and loaded in blocks.


def _block(tile: int, width: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, tile, None, width), lambda i, h, b: (b, i, h, 0))


def _rows(tokens: int, width: int, group: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, tokens, None, width), lambda i, h, b: (b, 0, h // group, 0))


def _row(tile: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, tile), lambda i, h, b: (b, h, i))


def _all(tokens: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, 2, tokens), lambda i, h, b: (b, 0, 0))


def _call(body: Any, rules: Rules, walk: Walk, *, in_specs: list[pl.BlockSpec], **options: Any) -> Callable[..., Any]:
    """A program for each block of a walk."""
    N, M = walk.visit.shape[1:]
    lead = [
        pl.BlockSpec((None, N), lambda i, h, b: (b, 0)),
        pl.BlockSpec((None, N, M), lambda i, h, b: (b, 0, 0)),
        pl.BlockSpec((1,), lambda i, h, b: (0,)),
    ]
    run = pl.pallas_call(
        partial(body, rules),
        in_specs=lead + in_specs,
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        interpret=rules.interpret,
        name=f"prefix_attention{body.__name__}",
        **options,
    )
    return partial(run, walk.turns, walk.visit)


def _forward(rules: Rules, count: Any, visit: Any, window: Any, *refs: Any) -> None:
    queries, keys, q_ref, k_ref, v_ref, y, lse = refs
    q, block = q_ref[...], pl.program_id(0)
    own = _span(block, rules.tiles.queries)

    def step(n: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        greatest, total, gathered = carry
        at = _span(visit[block, n] >> 1, rules.tiles.keys)
        scores, seen = _scores(rules, window, queries, own, keys, at, q, k_ref[at])
        scores = jnp.where(seen, scores, prefix_blocks.MASKED)
        high = jnp.maximum(greatest, scores.max(axis=1))
        weights = jnp.exp(scores - high[:, None])
        decay = jnp.exp(greatest - high)
        v = v_ref[at]
        gathered = gathered * decay[:, None] + dot(weights.astype(v.dtype), v, (1, 0))
        return high, total * decay + weights.sum(axis=1), gathered

    row = jnp.zeros(q.shape[0], jnp.float32)
    greatest, total, gathered = jax.lax.fori_loop(
        0, count[block], step, (row + prefix_blocks.LEAST, row, jnp.zeros(q.shape, jnp.float32))
    )
    sums = jnp.where(total == 0, 1.0, total)
    y[...] = (gathered / sums[:, None]).astype(y.dtype)
    lse[...] = jnp.where(total == 0, -jnp.inf, greatest + jnp.log(sums))


def _query_gradient(rules: Rules, count: Any, visit: Any, window: Any, *refs: Any) -> None:
    queries, keys, q_ref, k_ref, v_ref, dy_ref, lse_ref, delta_ref, dq = refs
    q, dy, lse, delta, block = q_ref[...], dy_ref[...], lse_ref[...], delta_ref[...], pl.program_id(0)
    own = _span(block, rules.tiles.queries)

    def step(n: Array, total: Array) -> Array:
        at = _span(visit[block, n] >> 1, rules.tiles.keys)
        k = k_ref[at]
        scored = _scores(rules, window, queries, own, keys, at, q, k)
        _, ds = _gradients(rules, scored, v_ref[at], dy, lse, delta)
        return total + dot(ds.astype(k.dtype), k, (1, 0))

    total = jax.lax.fori_loop(0, count[block], step, jnp.zeros(q.shape, jnp.float32))
    dq[...] = total.astype(dq.dtype)


def _key_gradient(rules: Rules, count: Any, visit: Any, window: Any, *refs: Any) -> None:
    queries, keys, q_ref, k_ref, v_ref, dy_ref, lse_ref, delta_ref, dk, dv = refs
    k, v, block = k_ref[...], v_ref[...], pl.program_id(0)
    own = _span(block, rules.tiles.keys)

    def step(head: Array, n: Array, totals: tuple[Array, Array]) -> tuple[Array, Array]:
        at = _span(visit[block, n] >> 1, rules.tiles.queries)
        q, dy = q_ref[at, head], dy_ref[at, head]
        scored = _scores(rules, window, queries, at, keys, own, q, k)
        weights, ds = _gradients(rules, scored, v, dy, lse_ref[head, at], delta_ref[head, at])
        total_k, total_v = totals
        return total_k + dot(ds.astype(q.dtype), q, (0, 0)), total_v + dot(weights.astype(dy.dtype), dy, (0, 0))

    def steps(head: Array, totals: tuple[Array, Array]) -> tuple[Array, Array]:
        return jax.lax.fori_loop(0, count[block], partial(step, head), totals)

    zeros = jnp.zeros(k.shape, jnp.float32)
    total_k, total_v = jax.lax.fori_loop(0, q_ref.shape[1], steps, (zeros, zeros))
    dk[...] = total_k.astype(dk.dtype)
    dv[...] = total_v.astype(dv.dtype)


def _span(block: Array, tile: int) -> Any:
    return pl.ds(block * tile, tile)


def _scores(
    rules: Rules, window: Any, queries: Any, query_span: Any, keys: Any, key_span: Any, q: Array, k: Array
) -> tuple[Float[Array, "c t"], Bool[Array, "c t"]]:
    """Capped scores of a block, and which of them count."""
    scores = capped(dot(q, k, (1, 1)), rules.softcap)
    key = key_span.start + jnp.arange(k.shape[0], dtype=jnp.int32)
    index, at = queries[0, query_span][:, None], queries[1, query_span][:, None]
    ends, key_at = keys[0, key_span][None], keys[1, key_span][None]
    return scores, visible(index, at, key[None], ends, key_at, window[0] if rules.windowed else None)


def _gradients(
    rules: Rules, scored: tuple[Array, Array], v: Array, dy: Array, lse: Array, delta: Array
) -> tuple[Float[Array, "c t"], Float[Array, "c t"]]:
    """Weights of a block, and gradients of its scores."""
    scores, seen = scored
    weights = jnp.exp(jnp.where(seen, scores, prefix_blocks.MASKED) - lse[:, None])
    return weights, uncapped(weights * (dot(dy, v, (1, 1)) - delta[:, None]), scores, rules.softcap)
