"""Blocks of prefix-tree attention: which of them hold a pair that sees, and the scores of one; for every platform.

A block is some neighbouring queries against some neighbouring keys. Whether it is empty follows from the least and the
greatest row index of its queries and the greatest `visible_until` of its keys; whether all of it is seen, so that it
needs no mask, from the least of each. With a window, positions say the same once more.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# The score of a key that is not seen, and the least maximum of a query: the exponential of their difference is 0.
MASKED, LEAST = -1e30, -0.5e30
_FAR = jnp.iinfo(jnp.int32).max


class Tiles(NamedTuple):
    """Tokens of a block."""

    queries: int
    keys: int


class Rules(NamedTuple):
    """What a program is compiled for.

    Attributes:
        tiles: Tokens of a block.
        windowed: Whether queries see a limited number of positions.
        softcap: tanh cap on the scores.
        interpret: Run the kernel's body as plain JAX, on any platform.
    """

    tiles: Tiles
    windowed: bool
    softcap: float | None
    interpret: bool


class Walk(NamedTuple):
    """Which of M blocks each of N blocks meets: the first `turns` entries of `visit`.

    An entry is twice the number of the block that is met, plus 1 where every query in it sees every key. What follows
    them repeats the last, so that a pipeline with nothing to compute has nothing to load either.
    """

    turns: Int[Array, "B N"]
    visit: Int[Array, "B N M"]


class Blocks(NamedTuple):
    """What queries and keys see of each other, token by token and block by block.

    Attributes:
        queries: Row index and position of each query; the index is -1 in padding.
        keys: `visible_until` and position of each key; the former is 0 in padding.
        window: Positions a query sees, itself included; read only where `Rules.windowed`.
        by_query: The blocks of keys that each block of queries meets.
        by_key: The blocks of queries that each block of keys meets.
    """

    queries: Int[Array, "B 2 C"]
    keys: Int[Array, "B 2 T"]
    window: Int[Array, " 1"]
    by_query: Walk
    by_key: Walk


class BackwardInputs(NamedTuple):
    """What the backward pass knows of each query, key and value.

    Attributes:
        q: Scaled queries.
        k: Keys.
        v: Values.
        dy: Gradient of what each query gathers.
        lse: Logarithm of the sum of its scores' exponentials, 0 where it sees nothing.
        delta: Sum of what it gathers times the gradient of that, less the gradient of its lse.
    """

    q: Float[Array, "B C H G"]
    k: Float[Array, "B T K G"]
    v: Float[Array, "B T K G"]
    dy: Float[Array, "B C H G"]
    lse: Float[Array, "B H C"]
    delta: Float[Array, "B H C"]


def blocks_of(
    queries_B2C: Int[Array, "B 2 C"], keys_B2T: Int[Array, "B 2 T"], window: Int[Array, " 1"], rules: Rules
) -> Blocks:
    """The blocks of rows whose lengths are multiples of the tiles."""
    tiles = rules.tiles
    index, at = (queries_B2C[:, row].reshape(len(queries_B2C), -1, tiles.queries) for row in (0, 1))
    ends, key_at = (keys_B2T[:, row].reshape(len(keys_B2T), -1, tiles.keys) for row in (0, 1))
    query, key = index >= 0, ends > 0
    first = jnp.arange(0, keys_B2T.shape[2], tiles.keys, dtype=jnp.int32)[None, None]
    last = first + (tiles.keys - 1)
    some = (first <= _each_query(index.max(-1))) & (_each_query(_least(index, query)) < _each_key(ends.max(-1)))
    every = (last <= _each_query(index.min(-1))) & (_each_query(index.max(-1)) < _each_key(ends.min(-1)))
    if rules.windowed:
        some &= _each_query(_least(at, query)) - _each_key(_greatest(key_at, key)) < window[0]
        every &= _each_query(at.max(-1)) - _each_key(key_at.min(-1)) < window[0]
    walks = _walk(some, every), _walk(some.swapaxes(1, 2), every.swapaxes(1, 2))
    return Blocks(queries_B2C, keys_B2T, window, *walks)


def fitting(tokens: int, sizes: Sequence[int], step: int) -> int:
    """The first of `sizes`, which fall, that pads a row by at most a quarter; a multiple of `step` for short rows."""
    if tokens <= sizes[-1]:
        return -(-tokens // step) * step
    return next((size for size in sizes if -tokens % size <= tokens // 4), sizes[-1])


def visible(
    index: Int[Array, "..."],
    at: Int[Array, "..."],
    key: Int[Array, "..."],
    ends: Int[Array, "..."],
    key_at: Int[Array, "..."],
    window: Int[Array, ""] | None,
) -> Bool[Array, "..."]:
    """The prefix-tree rule for queries and keys of shapes that broadcast; `key` is a key's place in its row."""
    seen = (key <= index) & (index < ends)
    return seen if window is None else seen & (at - key_at < window)


def capped(scores: Float[Array, "..."], softcap: float | None) -> Float[Array, "..."]:
    """Scores under the cap."""
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def uncapped(gradient: Float[Array, "..."], scores: Float[Array, "..."], softcap: float | None) -> Array:
    """The gradient before the cap, from that of the capped `scores`."""
    return gradient if softcap is None else gradient * (1 - jnp.square(scores / softcap))


def _walk(some_BNM: Bool[Array, "B N M"], every_BNM: Bool[Array, "B N M"]) -> Walk:
    met = jnp.cumsum(some_BNM, axis=2, dtype=jnp.int32)
    count = met[:, :, -1]
    M = some_BNM.shape[2]
    turn = jnp.minimum(jnp.arange(M, dtype=jnp.int32)[None, None], jnp.maximum(count - 1, 0)[:, :, None])
    # The block met at a turn is the number of blocks that do not bring the count beyond it.
    visit = (met[:, :, None] <= turn[:, :, :, None]).sum(axis=3, dtype=jnp.int32)
    visit = jnp.minimum(visit, M - 1)
    return Walk(count, 2 * visit + jnp.take_along_axis(every_BNM, visit, axis=2).astype(jnp.int32))


def _least(values: Int[Array, "B N t"], where: Bool[Array, "B N t"]) -> Int[Array, "B N"]:
    return jnp.where(where, values, _FAR).min(axis=-1)


def _greatest(values: Int[Array, "B N t"], where: Bool[Array, "B N t"]) -> Int[Array, "B N"]:
    return jnp.where(where, values, 0).max(axis=-1)


def _each_query(values_BN: Int[Array, "B N"]) -> Int[Array, "B N 1"]:
    return values_BN[:, :, None]


def _each_key(values_BM: Int[Array, "B M"]) -> Int[Array, "B 1 M"]:
    return values_BM[:, None]


def dot(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
    """The product over an axis of each matrix, summed in fp32."""
    axes = (contracted[:1], contracted[1:])
    return jax.lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=jnp.float32)
