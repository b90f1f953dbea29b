"""How the tokens of a row follow each other, by the rule of `Scope`: their ancestors, and convolutions over these."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fit_jax.models.attention import Scope, take


class Paths(NamedTuple):
    """How the T tokens of each row follow each other.

    Attributes:
        place: Where each stands in its row.
        until: `visible_until` of each; a token that does not see itself is padding.
        taps: The n nearest ancestors of each, the nearest first, among n tokens read before the row and the row's own.
        tail: The n nearest ancestors of a token that would follow the last one, the farthest first.
    """

    place: Int[Array, "B T"]
    until: Int[Array, "B T"]
    taps: Int[Array, "B T n"]
    tail: Int[Array, "B n"]

    @property
    def valid(self) -> Bool[Array, "B T"]:
        """Which tokens are no padding."""
        return self.place < self.until


def paths_of(scope: Scope, ancestors: int) -> Paths:
    """The paths of the tokens that a scope takes as queries, and so many nearest ancestors of each."""
    place, n = scope.query_index, ancestors
    until, number = take(scope.visible_until, place), jnp.arange(place.shape[1], dtype=jnp.int32)
    earlier = (place[:, None] < place[:, :, None]) & (place[:, :, None] < until[:, None])
    # A token without an ancestor in the row follows the last one before it.
    parent = jnp.where(earlier, number[None, None], -1).max(axis=2) + n
    before = jnp.broadcast_to(jnp.maximum(jnp.arange(n, dtype=jnp.int32) - 1, 0)[None], (place.shape[0], n))
    parents = jnp.concatenate([before, parent], axis=1)
    last = jnp.where(place < until, number[None], -1).max(axis=1, keepdims=True) + n

    def chain(at: Int[Array, "B C"], count: int) -> list[Array]:
        """So many tokens upwards, from those at these places on."""
        found = [at]
        while len(found) < count:
            found.append(jnp.take_along_axis(parents, found[-1], axis=1))
        return found[:count]

    taps, tail = chain(parent, n), chain(last, n)
    taps = jnp.stack(taps, axis=2) if taps else jnp.zeros((*place.shape, 0), jnp.int32)
    return Paths(place, until, taps, jnp.concatenate([last[:, :0], *tail[::-1]], axis=1))


def convolved(extended: Float[Array, "B nT C"], weights: Float[Array, "C n1"], paths: Paths) -> Float[Array, "B T C"]:
    """Each channel's causal convolution along the paths, in fp32.

    Args:
        extended: The n inputs before the row, or zeros, and those of the row.
        weights: Of n + 1 tokens, that of the token itself last.
        paths: Of the row.
    """
    n = paths.taps.shape[2]
    x, w = extended.astype(jnp.float32), weights.astype(jnp.float32)
    y = x[:, n:] * w[:, n][None, None]
    for number in range(n):
        y = y + take(x, paths.taps[:, :, number]) * w[:, n - 1 - number][None, None]
    return y
