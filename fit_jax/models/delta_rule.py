"""The gated delta rule along the paths of a prefix tree (Yang et al. 2025, "Gated Delta Networks").

Along a path each token decays a state S (key width by value width), takes out what it holds of the token's key, and
puts the token's value there:

    S <- a S,    u = beta (v - S' k),    S <- S + k u',    o = S' q    (' is the transposed)

With G the sum of log a over a path, u_i = beta_i (v_i - sum_j exp(G_i - G_j) (k_i . k_j) u_j) over the ancestors j of
i, and o_i is the same sum over its ancestors and itself with q_i in place of k_i. In this form no state is carried:
which tokens are ancestors is the rule of `Scope`, so that plain rows, packed rows and trees are one case. The u of a
row are a triangular system, which is solved block by block; its gradient is that of a solution (by the transposed
system), so that no array of tokens by tokens is kept. All of it is in fp32.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fit_jax.models.attention import MASKED, take
from fit_jax.models.token_paths import Paths

# Tokens of a block at most; a power of two. Of wider ones there are fewer, but their inverses cost a token more.
BLOCK = 32
# Sums of decays are kept in two parts: one of multiples of this, which float32 adds without rounding up to 2**18 nats,
# and a small rest. So the difference of two large sums is exact, however long a row is.
_STEP = 2.0**-6
_EXACT = jax.lax.Precision.HIGHEST


class _Sums(NamedTuple):
    """Sums of log decays along paths, in two parts that add up."""

    whole: Float[Array, "*n"]
    rest: Float[Array, "*n"]

    def minus(self, other: "_Sums") -> Float[Array, "*n"]:
        """The difference, without the rounding of large sums."""
        return (self.whole - other.whole) + (self.rest - other.rest)


class _Tokens(NamedTuple):
    """Queries or keys of M tokens, by the K heads that they have and the R heads of values of each.

    Attributes:
        x: Of unit length, or queries of that times a factor.
        sums: Of (B, K, R, M).
        place: Where they stand.
        until: `visible_until`.
    """

    x: Float[Array, "B K M d"]
    sums: _Sums
    place: Int[Array, "B M"]
    until: Int[Array, "B M"]

    def blocks(self, size: int) -> "_Tokens":
        """Blocks of so many tokens, ahead of all other axes."""
        sums = _Sums(*(_blocks(x, 3, size) for x in self.sums))
        return _Tokens(_blocks(self.x, 2, size), sums, _blocks(self.place, 1, size), _blocks(self.until, 1, size))

    def at(self, index_BC: Int[Array, "B C"]) -> "_Tokens":
        """Those at some places of the row."""
        one = index_BC[:, None]
        sums = _Sums(*(jnp.take_along_axis(x, one[:, None], axis=3) for x in self.sums))
        x = jnp.take_along_axis(self.x, one[..., None], axis=2)
        return _Tokens(x, sums, take(self.place, index_BC), take(self.until, index_BC))


def delta_rule(
    q_BTKd: Float[Array, "B T K d"],
    k_BTKd: Float[Array, "B T K d"],
    v_BTHe: Float[Array, "B T H e"],
    decay_BTH: Float[Array, "B T H"],
    beta_BTH: Float[Array, "B T H"],
    paths: Paths,
    index_BC: Int[Array, "B C"] | None = None,
    state: Float[Array, "B H d e"] | None = None,
) -> tuple[Float[Array, "B C H e"], Float[Array, "B H d e"] | None]:
    """What the rule gives at the tokens asked for; nothing of padding.

    Args:
        q_BTKd: Queries; neighbouring heads of values share one.
        k_BTKd: Keys; both are brought to unit length here.
        v_BTHe: Values.
        decay_BTH: Log decays, 0 or less.
        beta_BTH: How much of the value is put in place, from 0 to 1.
        paths: How the tokens follow each other.
        index_BC: Places of the tokens asked for; None means all.
        state: What was read before the row, of which every token is then a descendant, and the row one path.

    Returns:
        Outputs, and where there was a state the one after the row.
    """
    (B, T, K, d), (H, e) = k_BTKd.shape, v_BTHe.shape[2:]
    size = block_of(T)

    def by_head(x_BTX: Array) -> Array:
        """Heads before tokens, these filled up to whole blocks."""
        return jnp.moveaxis(_filled(x_BTX.astype(jnp.float32), size), 1, 2)

    def by_value_head(x_BTX: Array) -> Array:
        x = by_head(x_BTX)
        return x.reshape(B, K, H // K, *x.shape[2:])

    valid = paths.valid[:, :, None]
    beta, decay = (by_value_head(jnp.where(valid, x, 0.0)) for x in (beta_BTH, decay_BTH))
    place, until = _filled(paths.place, size), _filled(paths.until, size)
    keys = _Tokens(by_head(_unit(k_BTKd)), _summed(decay, place, until, size), place, until)
    memory = None if state is None else state.reshape(B, K, H // K, d, e)
    found = by_value_head(v_BTHe)
    if memory is not None:
        found = found - _recalled(keys, memory)
    u = _solved(keys, beta, beta[..., None] * found, size)

    queries = keys._replace(x=by_head(_unit(q_BTKd) * d**-0.5))
    if index_BC is not None:
        queries = queries.at(_filled(index_BC, block_of(index_BC.shape[1])))
    o = _gathered(queries, keys, u)
    after = None
    if memory is not None:
        o = o + _recalled(queries, memory)
        end = _Sums(*(x.sum(axis=-1, keepdims=True) for x in _parts(decay)))
        kept = jnp.exp(end.minus(keys.sums))[..., None] * u
        after = jnp.exp(end.whole + end.rest)[..., None] * memory + jnp.matmul(keys.x.mT[:, :, None], kept)
        after = after.reshape(B, H, d, e)
    count = T if index_BC is None else index_BC.shape[1]
    return jnp.moveaxis(o.reshape(B, H, -1, e)[:, :, :count], 2, 1), after


def _solved(
    keys: _Tokens, beta: Float[Array, "B K R T"], right: Float[Array, "B K R T e"], size: int
) -> Float[Array, "B K R T e"]:
    """The u of (1 + A) u = right, where A_ij is beta_i exp(G_i - G_j) (k_i . k_j) of the ancestors j of i."""
    each = keys.blocks(size), _blocks(beta, 3, size)

    def rows(block: tuple[_Tokens, Array], others: _Tokens) -> Float[Array, "B K R N M"]:
        return _weights(block[0], others, itself=False) * block[1][..., None]

    def product(u: Array) -> Array:
        of_block = jax.checkpoint(lambda block: jnp.matmul(rows(block, keys), u))
        return u + _together(jax.lax.map(of_block, each))

    def inverses() -> Float[Array, "n B K R N N"]:
        return jax.lax.map(lambda block: _inverse(rows(block, block[0])), each)

    def forward(_: object, right: Array) -> Array:
        """From the first block to the last; a block's rows meet zeros where u is not known yet."""

        def step(u: Array, block: tuple[Any, Array, Array, Array]) -> tuple[Array, None]:
            of_block, inverse, right, start = block
            own = jnp.matmul(inverse, right - jnp.matmul(rows(of_block, keys), u))
            return jax.lax.dynamic_update_slice_in_dim(u, own, start, axis=3), None

        known = each, inverses(), _blocks(right, 3, size), _starts(right.shape[3], size)
        return jax.lax.scan(step, jnp.zeros_like(right), known)[0]

    def backward(_: object, right: Array) -> Array:
        """The same of the transposed system, from the last block to the first."""

        def step(w: Array, block: tuple[Any, Array, Array]) -> tuple[Array, None]:
            of_block, inverse, start = block
            own = jnp.matmul(inverse.mT, jax.lax.dynamic_slice_in_dim(w, start, size, axis=3))
            w = w - jnp.matmul(rows(of_block, keys).mT, own)
            return jax.lax.dynamic_update_slice_in_dim(w, own, start, axis=3), None

        return jax.lax.scan(step, right, (each, inverses(), _starts(right.shape[3], size)), reverse=True)[0]

    return jax.lax.custom_linear_solve(product, right, forward, backward)


def _gathered(queries: _Tokens, keys: _Tokens, u: Float[Array, "B K R T e"]) -> Float[Array, "B K R C e"]:
    """What queries gather of the u of their ancestors and of themselves."""
    of_block = jax.checkpoint(lambda block: jnp.matmul(_weights(block, keys, itself=True), u))
    return _together(jax.lax.map(of_block, queries.blocks(block_of(queries.place.shape[1]))))


def _recalled(tokens: _Tokens, memory: Float[Array, "B K R d e"]) -> Float[Array, "B K R M e"]:
    """What tokens find in the state before the row, decayed since."""
    return jnp.exp(tokens.sums.whole + tokens.sums.rest)[..., None] * jnp.matmul(tokens.x[:, :, None], memory)


def _weights(queries: _Tokens, keys: _Tokens, *, itself: bool) -> Float[Array, "B K R N M"]:
    """exp(G_i - G_j) (x_i . x_j) of the ancestors j of i, and with `itself` of i; else 0."""
    scores = jnp.matmul(queries.x, keys.x.mT)
    here, there = queries.place[:, :, None], keys.place[:, None]
    seen = ((there <= here) if itself else (there < here)) & (here < keys.until[:, None])
    gaps = _Sums(*(x[..., None] for x in queries.sums)).minus(_Sums(*(x[..., None, :] for x in keys.sums)))
    return jnp.exp(jnp.where(seen[:, None, None], gaps, MASKED)) * scores[:, :, None]


def _parts(decay: Float[Array, "*n"]) -> _Sums:
    """A log decay as a multiple of the step, which carries no gradient, and the rest, which carries all of it."""
    whole = jax.lax.stop_gradient(jnp.round(decay / _STEP) * _STEP)
    return _Sums(whole, decay - whole)


def _summed(decay: Float[Array, "B K R T"], place: Int[Array, "B T"], until: Int[Array, "B T"], size: int) -> _Sums:
    """The sums of log decays over each token's ancestors and itself."""
    both = jnp.stack(_parts(decay), axis=-1).reshape(decay.shape[0], -1, decay.shape[3], 2)

    @jax.checkpoint
    def of_block(here: Int[Array, "B N"]) -> Float[Array, "B KR N 2"]:
        seen = (place[:, None] <= here[:, :, None]) & (here[:, :, None] < until[:, None])
        return jnp.matmul(seen[:, None].astype(jnp.float32), both, precision=_EXACT)

    sums = _together(jax.lax.map(of_block, _blocks(place, 1, size))).reshape(*decay.shape, 2)
    return _Sums(sums[..., 0], sums[..., 1])


def _inverse(below: Float[Array, "*n N N"]) -> Float[Array, "*n N N"]:
    """The inverse of 1 + `below`, which is strictly lower triangular, from those of diagonal blocks ever wider.

    As exact as substitution; a series of powers would cancel where keys are alike.
    """
    N = below.shape[-1]
    row, column = np.arange(N)[:, None], np.arange(N)[None]

    def corners(width: int) -> Array:
        """Of each block twice so wide what lies below its first half and beside its second."""
        within = (row // (2 * width) == column // (2 * width)) & (row // width > column // width)
        return jnp.where(jnp.broadcast_to(within, below.shape), below, 0.0)

    inverse = jnp.broadcast_to(jnp.eye(N), below.shape) - corners(1)
    for doublings in range(1, (N - 1).bit_length()):
        beside = jnp.matmul(corners(1 << doublings), inverse, precision=_EXACT)
        inverse = inverse - jnp.matmul(inverse, beside, precision=_EXACT)
    return inverse


def _unit(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Vectors of unit length, in fp32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def block_of(tokens: int) -> int:
    """Tokens of a block of rows so long."""
    return min(BLOCK, 1 << (tokens - 1).bit_length())


def _filled(x: Array, size: int) -> Array:
    """(B, T, ...) with zeros up to a whole number of blocks."""
    return jnp.pad(x, [(0, 0), (0, -x.shape[1] % size)] + [(0, 0)] * (x.ndim - 2))


def _blocks(x: Array, axis: int, size: int) -> Array:
    """Blocks of an axis, ahead of all others."""
    return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :]), axis, 0)


def _together(blocks: Float[Array, "n *m N e"]) -> Float[Array, "*m nN e"]:
    """Blocks of the last axis but one beside each other."""
    x = jnp.moveaxis(blocks, 0, -3)
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def _starts(tokens: int, size: int) -> Int[Array, " n"]:
    return jnp.arange(0, tokens, size, dtype=jnp.int32)
