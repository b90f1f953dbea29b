"""Attention under the prefix-tree rule as a fused kernel: no array of queries by keys exists, and no mask.

Query c at row index i sees key j iff j <= i < `visible_until[j]`, and in a sliding layer only iff it stands fewer than
`window` positions behind. Blocks in which nothing is seen are neither loaded nor computed, so that packed sequences and
trees cost what they see. The kernels are in `prefix_attention_tpu`, `prefix_attention_gpu` and
`prefix_attention_hopper`.
"""

import importlib
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from fit_jax.models.kernels import OwnKernel
from fit_jax.models.prefix_blocks import BackwardInputs, Blocks, Rules, blocks_of
from fit_jax.parallel.config import CONTEXT, ROWS, TENSOR


class _Program(NamedTuple):
    """Which kernels, with which rules."""

    kernels: ModuleType
    rules: Rules


def prefix_attention(
    q_BCHG: Float[Array, "B C H G"],
    k_BTKG: Float[Array, "B T K G"],
    v_BTKG: Float[Array, "B T K G"],
    query_index_BC: Int[Array, "B C"],
    query_positions_BC: Int[Array, "B C"],
    key_positions_BT: Int[Array, "B T"],
    visible_until_BT: Int[Array, "B T"],
    *,
    scale: float,
    platform: OwnKernel,
    window: int | Int[Array, ""] | None = None,
    softcap: float | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "B C H G"], Float[Array, "B H C"]]:
    """Grouped-query attention, under `shard_map` on the mesh in context; differentiable in queries, keys and values.

    Rows are split over `data`, `fsdp` and `expert`, heads over `tensor` where it divides the key heads, queries over
    `context` where it divides them; keys and values are then gathered over `context`.

    Args:
        q_BCHG: Queries of some tokens of the rows; query heads of one group are neighbours.
        k_BTKG: Keys of all tokens.
        v_BTKG: Values of all tokens.
        query_index_BC: Where in its row each query stands.
        query_positions_BC: Its position in its own sequence.
        key_positions_BT: Position of each key in its own sequence.
        visible_until_BT: Index of the first token of the row that no longer sees the key; 0 for padding.
        scale: Factor on the scores.
        platform: Whose kernels.
        window: Positions a query sees, itself included; may be traced. None means all.
        softcap: tanh cap on the scores; None means none.
        interpret: Run the kernels' bodies as plain JAX, on any platform; Hopper's in JAX's simulator of a GPU alone.

    Returns:
        What each query gathers, and the logarithm of the sum of its scores' exponentials, fp32. A query that sees
        nothing gathers zeros, of lse minus infinity, and hands no gradient on.
    """
    kernels = importlib.import_module(f"fit_jax.models.prefix_attention_{platform}")
    q = q_BCHG * jnp.asarray(scale, q_BCHG.dtype)
    queries = jnp.stack([query_index_BC, query_positions_BC], axis=1).astype(jnp.int32)
    keys = jnp.stack([visible_until_BT, key_positions_BT], axis=1).astype(jnp.int32)
    limit = jnp.asarray(0 if window is None else window, jnp.int32)[None]
    run = partial(_of_a_shard, kernels, window is not None, softcap, interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        heads = TENSOR if k_BTKG.shape[2] % mesh.shape[TENSOR] == 0 else None
        split = CONTEXT if q.shape[1] % mesh.shape[CONTEXT] == 0 else None
        own, all_keys = P(ROWS, split, heads, None), P(ROWS, None, heads, None)
        specs = (own, all_keys, all_keys, P(ROWS, None, split), P(ROWS, None, None), P(None))
        results = (own, P(ROWS, heads, split))
        run = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=results, check_vma=False)
    return run(q, k_BTKG, v_BTKG, queries, keys, limit)


def blocks_of_rows(
    queries: Int[Array, "B 2 C"], keys: Int[Array, "B 2 T"], window: Int[Array, " 1"], rules: Rules
) -> Blocks:
    """The blocks of rows of any length: row index and position of queries, `visible_until` and position of keys."""
    more = ((0, 0), (0, 0), (0, -queries.shape[2] % rules.tiles.queries))
    padded = jnp.pad(queries, more, constant_values=-1)
    return blocks_of(padded, _padded(keys, 2, -keys.shape[2] % rules.tiles.keys), window, rules)


def _of_a_shard(
    kernels: ModuleType,
    windowed: bool,
    softcap: float | None,
    interpret: bool,
    q: Array,
    k: Array,
    v: Array,
    queries: Array,
    keys: Array,
    window: Array,
) -> tuple[Array, Array]:
    """Attention of the rows, heads and queries that a device has, padded to whole blocks."""
    C, T = q.shape[1], k.shape[1]
    rules = Rules(kernels.tiles(C, T, q.shape[3]), windowed, softcap, interpret)
    blocks = blocks_of_rows(queries, keys, window, rules)
    more_queries, more_keys = blocks.queries.shape[2] - C, blocks.keys.shape[2] - T
    q, k, v = _padded(q, 1, more_queries), _padded(k, 1, more_keys), _padded(v, 1, more_keys)
    results: Any = _attend(_Program(kernels, rules), q, k, v, blocks)
    y, lse = results
    return y[:, :C], lse[:, :, :C]


def _padded(x: Array, axis: int, more: int) -> Array:
    return jnp.pad(x, [(0, more if number == axis else 0) for number in range(x.ndim)]) if more else x


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(program: _Program, q: Array, k: Array, v: Array, blocks: Blocks) -> tuple[Array, Array]:
    return program.kernels.forward(q, k, v, blocks, program.rules)


def _attend_forward(program: _Program, q: Array, k: Array, v: Array, blocks: Blocks) -> tuple[Any, Any]:
    y, lse = program.kernels.forward(q, k, v, blocks, program.rules)
    return (y, lse), (q, k, v, blocks, y, lse)


def _attend_backward(program: _Program, kept: Any, gradients: tuple[Array, Array]) -> tuple[Array | None, ...]:
    q, k, v, blocks, y, lse = kept
    dy, dlse = gradients
    delta_BCH = (y.astype(jnp.float32) * dy.astype(jnp.float32)).sum(axis=-1)
    # With an lse of 0 the weights of a query that sees nothing come out as 0 rather than as NaN.
    seeing = jnp.isfinite(lse)
    delta = delta_BCH.swapaxes(1, 2) - jnp.where(seeing, dlse, 0.0)
    inputs = BackwardInputs(q, k, v, dy, jnp.where(seeing, lse, 0.0), delta)
    dq, dk, dv = program.kernels.backward(inputs, blocks, program.rules)
    return dq, dk, dv, None


_attend.defvjp(_attend_forward, _attend_backward)
