"""The prefix-tree attention kernel for Hopper, in Pallas lowered by Mosaic GPU.

A program has one block of queries, or for the gradient of keys and values one of keys, half of it for each of two
warpgroups that multiply. A third goes ahead of them through the list of blocks that they meet and copies these into
shared memory. After FlashAttention-3 (Shah et al. 2024, arXiv 2407.08608).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from fit_jax.models import prefix_blocks
from fit_jax.models.prefix_blocks import BackwardInputs, Blocks, Rules, Tiles, Walk, capped, dot, uncapped, visible

# Warpgroups that multiply, the rows of one's product, and how many steps the third copies ahead.
_WORKERS, _ROWS, _STAGES = 2, 64, 2
# Of 512 registers that one thread of each shares.
_WORKER_REGISTERS, _LOADER_REGISTERS = 232, 40
_LINE = 128  # bytes of a line of shared memory; a head is padded to whole ones of 16-bit numbers
_LOG2_E = math.log2(math.e)


class _Pass(NamedTuple):
    """What a pass does.

    Attributes:
        rules: What it is compiled for.
        group: Query heads of a key head.
        of_queries: Whether a program's own tokens are queries, and keys what they meet; else the other way round.
        step: Tokens that it meets at once.
    """

    rules: Rules
    group: int
    of_queries: bool
    step: int


def tiles(queries: int, keys: int, head_width: int) -> Tiles:
    """Tokens of a block: what the products of a program have as rows."""
    del queries, keys, head_width
    return Tiles(_WORKERS * _ROWS, _WORKERS * _ROWS)


def forward(
    q: Float[Array, "B C H G"], k: Float[Array, "B T K G"], v: Float[Array, "B T K G"], blocks: Blocks, rules: Rules
) -> tuple[Float[Array, "B C H G"], Float[Array, "B H C"]]:
    """What the scaled queries gather, and their lse."""
    G, (q, k, v) = q.shape[3], _widened(q, k, v)
    lse = jax.ShapeDtypeStruct((q.shape[0], q.shape[2], q.shape[1]), jnp.float32)
    kind = _Pass(rules, q.shape[2] // k.shape[2], True, rules.tiles.keys)
    sides = [q, blocks.queries], [k, _numbered(blocks.keys), v]
    y, lse = _run(_forward, kind, blocks.by_query, blocks.window, *sides, [q, lse])
    return y[..., :G], lse


def backward(
    inputs: BackwardInputs, blocks: Blocks, rules: Rules
) -> tuple[Float[Array, "B C H G"], Float[Array, "B T K G"], Float[Array, "B T K G"]]:
    """Gradients of the scaled queries, of keys and of values."""
    G, (q, k, v, dy) = inputs.q.shape[3], _widened(inputs.q, inputs.k, inputs.v, inputs.dy)
    queries = [q, blocks.queries, dy, jnp.stack([inputs.lse * _LOG2_E, inputs.delta], axis=2)]
    keys = [k, _numbered(blocks.keys), v]
    kind = _Pass(rules, q.shape[2] // k.shape[2], True, _ROWS)
    (dq,) = _run(_query_gradient, kind, blocks.by_query, blocks.window, queries, keys, [q])
    kind = kind._replace(of_queries=False)
    dk, dv = _run(_key_gradient, kind, blocks.by_key, blocks.window, keys, queries, [k, v])
    return dq[..., :G], dk[..., :G], dv[..., :G]


def _widened(*heads: Float[Array, "B T H G"]) -> list[Float[Array, "B T H W"]]:
    """Heads of a width that fills lines of shared memory; what is added is zeros."""
    more = -heads[0].shape[3] % (_LINE // 2)
    return [jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more))) if more else x for x in heads]


def _numbered(keys_B2T: Array) -> Array:
    """Place in the row, `visible_until` and position of each key."""
    place = jnp.arange(keys_B2T.shape[2], dtype=jnp.int32)[None, None]
    return jnp.concatenate([jnp.broadcast_to(place, (len(keys_B2T), 1, place.shape[2])), keys_B2T], axis=1)


def _run(
    work: Callable[..., tuple[Array, ...]],
    kind: _Pass,
    walk: Walk,
    window: Array,
    own: Sequence[Array],
    met: Sequence[Array],
    results: Sequence[Any],
) -> Sequence[Array]:
    """A program for each block of a walk and head; `work` says what a worker makes of its own tokens for `results`.

    What belongs to queries or keys is heads (B, T, H, W), integers (B, n, T), heads, and numbers (B, H, n, T).
    """
    rows, blocks = walk.turns.shape
    run = plgpu.kernel(
        partial(_program, work, kind, (len(own), len(met), len(results))),
        out_type=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],
        scratch_types=[
            *_buffers(own, _WORKERS, _ROWS),
            *_buffers(met, _STAGES, kind.step),
            plgpu.SMEM((_WORKERS, _ROWS), jnp.float32),
            plgpu.Barrier(num_arrivals=len(own), num_barriers=_WORKERS),
            plgpu.Barrier(num_arrivals=len(met), num_barriers=_STAGES),
            plgpu.Barrier(num_arrivals=_WORKERS, num_barriers=_STAGES),
        ],
        grid=(own[0].shape[2], blocks, rows),
        grid_names=("head", "block", "row"),
        num_threads=_WORKERS + 1,
        thread_name="warpgroup",
        kernel_name=f"prefix_attention{work.__name__}",
        compiler_params=plgpu.CompilerParams(approx_math=True),
    )
    return run(walk.turns, walk.visit, window, *own, *met)


def _buffers(side: Sequence[Array], copies: int, tokens: int) -> list[Any]:
    """Shared memory for some tokens of a side's operands."""
    first = side[0]
    lines = (plgpu.TilingTransform((8, _LINE // first.dtype.itemsize)), plgpu.SwizzleTransform(_LINE))
    heads = plgpu.SMEM((copies, tokens, first.shape[3]), first.dtype, transforms=lines)
    integers = plgpu.SMEM((copies, side[1].shape[1], tokens), jnp.int32)
    return [heads, integers, heads, plgpu.SMEM((copies, 2, tokens), jnp.float32)][: len(side)]


def _tokens(side: Sequence[Any], row: Array, head: Array, at: Any) -> list[Any]:
    """Some tokens of a side's operands."""
    places = (row, at, head), (row, slice(None), at), (row, at, head), (row, head, slice(None), at)
    return [ref.at[place] for ref, place in zip(side, places)]


def _program(work: Any, kind: _Pass, counts: Sequence[int], turns: Any, visit: Any, window: Any, *refs: Any) -> None:
    """What the warpgroups of a block and head do."""
    left = iter(refs)
    own, met, results, own_buffers, met_buffers, rest = (
        list(itertools.islice(left, count)) for count in (*counts, *counts[:2], None)
    )
    line, own_ready, ready, done = rest
    row, head, block, thread = (jax.lax.axis_index(name) for name in ("row", "head", "block", "warpgroup"))
    tile, other_tile = kind.rules.tiles if kind.of_queries else kind.rules.tiles[::-1]
    parts = other_tile // kind.step
    # Steps of a turn: a block of queries is met once for each head of the group.
    turn = parts if kind.of_queries else parts * kind.group
    steps = turns[row, block] * turn

    @pl.when(thread == _WORKERS)
    def load() -> None:
        plgpu.set_max_registers(_LOADER_REGISTERS, action="decrease")

        def step(n: Array, _: None) -> None:
            slot, part = jax.lax.rem(n, _STAGES), jax.lax.rem(n, turn)
            pl.when(n >= _STAGES)(lambda: plgpu.barrier_wait(done.at[slot]))

            @pl.when(n < steps)
            def copy() -> None:
                start = (visit[row, block, jax.lax.div(n, turn)] >> 1) * other_tile
                at = pl.ds(start + jax.lax.rem(part, parts) * kind.step, kind.step)
                met_head = head // kind.group if kind.of_queries else head * kind.group + jax.lax.div(part, parts)
                for ref, buffer in zip(_tokens(met, row, met_head, at), met_buffers):
                    plgpu.copy_gmem_to_smem(ref, buffer.at[slot], ready.at[slot])

        jax.lax.fori_loop(0, steps + _STAGES, step, None)

    @pl.when(thread < _WORKERS)
    def compute() -> None:
        plgpu.set_max_registers(_WORKER_REGISTERS, action="increase")
        at = pl.ds(block * tile + thread * _ROWS, _ROWS)
        mine = [buffer.at[thread] for buffer in own_buffers]
        for ref, buffer in zip(_tokens(own, row, head, at), mine):
            plgpu.copy_gmem_to_smem(ref, buffer, own_ready.at[thread])
        plgpu.barrier_wait(own_ready.at[thread])

        def through(add: Callable[..., tuple[Array, ...]], start: tuple[Array, ...]) -> tuple[Array, ...]:
            def step(n: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
                slot = jax.lax.rem(n, _STAGES)
                plgpu.barrier_wait(ready.at[slot])
                every = visit[row, block, jax.lax.div(n, turn)] & 1
                sums = add(sums, every, [buffer.at[slot] for buffer in met_buffers])
                plgpu.barrier_arrive(done.at[slot])
                return sums

            return jax.lax.fori_loop(0, steps, step, start)

        heads = iter(mine[::2])  # nobody reads them any more
        for value, ref in zip(work(kind, window, mine, through), results):
            buffer = line.at[thread] if value.ndim == 1 else next(heads)
            buffer[...] = value.astype(ref.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(buffer, ref.at[(row, head, at) if value.ndim == 1 else (row, at, head)])
        plgpu.wait_smem_to_gmem(0)


def _forward(kind: _Pass, window: Any, own: Sequence[Any], through: Any) -> tuple[Array, ...]:
    def add(sums: tuple[Array, ...], every: Array, met: Sequence[Any]) -> tuple[Array, ...]:
        greatest, total, gathered = sums
        _, scores = _scores(kind, window, every, own, met)
        high = jnp.maximum(greatest, scores.max(axis=1))
        weights = jnp.exp2((scores - _spread(high, scores.shape)) * _LOG2_E)
        decay = jnp.exp2((greatest - high) * _LOG2_E)
        gathered = _plus(kind, gathered * _spread(decay, gathered.shape), weights, met[2])
        return high, total * decay + weights.sum(axis=1), gathered

    start = _filled(kind, (_ROWS,), prefix_blocks.LEAST), _filled(kind, (_ROWS,)), _filled(kind, own[0].shape)
    greatest, total, gathered = through(add, start)
    sums = jnp.where(total == 0, 1.0, total)
    return gathered / _spread(sums, gathered.shape), jnp.where(total == 0, -jnp.inf, greatest + jnp.log(sums))


def _query_gradient(kind: _Pass, window: Any, own: Sequence[Any], through: Any) -> tuple[Array, ...]:
    def add(sums: tuple[Array], every: Array, met: Sequence[Any]) -> tuple[Array]:
        _, ds = _gradients(kind, window, every, own, met)
        return (_plus(kind, sums[0], ds, met[0]),)

    return through(add, (_filled(kind, own[0].shape),))


def _key_gradient(kind: _Pass, window: Any, own: Sequence[Any], through: Any) -> tuple[Array, ...]:
    def add(sums: tuple[Array, Array], every: Array, met: Sequence[Any]) -> tuple[Array, Array]:
        weights, ds = _gradients(kind, window, every, own, met)
        return _plus(kind, sums[0], ds, met[0]), _plus(kind, sums[1], weights, met[2])

    return through(add, (_filled(kind, own[0].shape),) * 2)


def _scores(
    kind: _Pass, window: Any, every: Array, own: Sequence[Any], met: Sequence[Any]
) -> tuple[Float[Array, "own met"], Float[Array, "own met"]]:
    """Capped scores of a step, and those that count, others far below them."""
    scores = capped(_product(kind, own[0], met[0]), kind.rules.softcap)
    queries, keys, axis = (own[1], met[1], 0) if kind.of_queries else (met[1], own[1], 1)

    def masked(scores: Array) -> Array:
        line = partial(_line, kind, scores.shape)
        index, at = line(queries, 0, axis), line(queries, 1, axis)
        key, ends, key_at = (line(keys, number, 1 - axis) for number in range(3))
        seen = visible(index, at, key, ends, key_at, window[0] if kind.rules.windowed else None)
        return jnp.where(seen, scores, prefix_blocks.MASKED)

    return scores, jax.lax.cond(every == 1, lambda scores: scores, masked, scores)


def _gradients(
    kind: _Pass, window: Any, every: Array, own: Sequence[Any], met: Sequence[Any]
) -> tuple[Float[Array, "own met"], Float[Array, "own met"]]:
    """Weights of a step, and gradients of its scores."""
    scores, counted = _scores(kind, window, every, own, met)
    numbers, axis = (own[3], 0) if kind.of_queries else (met[3], 1)
    lse, delta = (_line(kind, scores.shape, numbers, number, axis) for number in range(2))
    weights = jnp.exp2(counted * _LOG2_E - lse)
    return weights, uncapped(weights * (_product(kind, own[2], met[2]) - delta), scores, kind.rules.softcap)


def _spread(x: Array, shape: tuple[int, ...], axis: int = 0) -> Array:
    """One number a row, or with `axis` 1 a column, in all of it."""
    return jax.lax.broadcast_in_dim(x, shape, [axis])


# Pallas' interpreter simulates threads, memory, copies and barriers of Mosaic GPU, but not what follows: layouts of
# registers, transposed operands and products that go on from a sum. There they are plain JAX.


def _line(kind: _Pass, shape: tuple[int, ...], ref: Any, number: int, axis: int) -> Array:
    """A line of integers or numbers of each row, or with `axis` 1 of each column."""
    layout = plgpu.Layout.WGMMA.reduce(1 - axis)
    return _spread(ref[number] if kind.rules.interpret else plgpu.load(ref, (number,), layout=layout), shape, axis)


def _filled(kind: _Pass, shape: tuple[int, ...], value: float = 0.0) -> Array:
    full, layout = jnp.full(shape, value, jnp.float32), plgpu.Layout.WGMMA
    return full if kind.rules.interpret else plgpu.layout_cast(full, layout if len(shape) == 2 else layout.reduce(1))


def _product(kind: _Pass, own: Any, met: Any) -> Float[Array, "own met"]:
    """The products of each head with each."""
    if kind.rules.interpret:
        return dot(own[...], met[...], (1, 1))

    def multiply(total: Any) -> Array:
        plgpu.wgmma(total, own, plgpu.transpose_ref(met, (1, 0)))
        return total[...]

    return pl.run_scoped(multiply, plgpu.WGMMAAccumulatorRef((own.shape[0], met.shape[0]), jnp.float32))


def _plus(kind: _Pass, total: Float[Array, "own W"], weights: Float[Array, "own met"], met: Any) -> Array:
    """The sum of heads by weights, added to a total."""
    weights = weights.astype(met.dtype)
    if kind.rules.interpret:
        return total + dot(weights, met[...], (1, 0))
    start: Any = plgpu.WGMMAAccumulatorRef.init(total)
    return pl.run_state(lambda total: plgpu.wgmma(total, weights, met))(start)
