"""Decoding token by token: keys and values of what was read stay in a cache."""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fit_jax.models.attention import Scope
from fit_jax.models.block import LayerHook, LayerNumber, Read
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.linear_attention import LinearState, empty_state

_ALWAYS = jnp.iinfo(jnp.int32).max


class Cache(NamedTuple):
    """What the layers read so far; the next token goes into slot `length`, in every row the same.

    A slot that holds padding has `visible_until` 0, so that rows may be padded on either side. `limits` says how many
    tokens each row's sequence may come to hold, which some rotary embeddings ask beforehand (longrope).

    Keys and values are those of layers that have their own, stacked by their shape (`_held`); `states` are those of
    layers that keep one, stacked, and None where none does.
    """

    keys: tuple[Float[Array, "L B S K G"], ...]
    values: tuple[Float[Array, "L B S K G"], ...]
    states: LinearState | None
    positions: Int[Array, "B S"]
    visible_until: Int[Array, "B S"]
    length: Int[Array, ""]
    limits: Int[Array, " B"]


def empty_cache(config: DecoderConfig, rows: int, slots: int) -> Cache:
    """A cache that has read nothing and has room for `slots` tokens of each row, which may all be of one sequence."""
    dtype = jnp.dtype(config.compute_dtype)
    keys, values = (
        tuple(jnp.zeros((len(layers), rows, slots, *shape), dtype) for shape, layers in _held(config).items())
        for _ in range(2)
    )
    nothing = jnp.zeros((rows, slots), jnp.int32)
    limits = jnp.full((rows,), slots, jnp.int32)
    states = None
    if count := len(config.linear.layers or ()):
        states = jax.tree.map(lambda one: jnp.zeros((count, *one.shape), one.dtype), empty_state(config, rows))
    return Cache(keys, values, states, nothing, nothing, jnp.int32(0), limits)


def _held(config: DecoderConfig) -> dict[tuple[int, int], list[int]]:
    """The layers with keys and values of their own by the shape (K, G) of these."""
    found: dict[tuple[int, int], list[int]] = {}
    for layer in range(config.layers):
        kind = config.kind(layer)
        if not (kind.reuses_kv or kind.linear):
            found.setdefault((kind.kv_heads, kind.head_width), []).append(layer)
    return found


def repeated(cache: Cache, times: int) -> Cache:
    """A cache in which each row stands `times` times, one after another."""
    by_layer = cache.keys, cache.values, cache.states
    keys, values, states = jax.tree.map(lambda held: jnp.repeat(held, times, axis=1), by_layer)
    by_row = (cache.positions, cache.visible_until, cache.limits)
    positions, visible_until, limits = (jnp.repeat(held, times, axis=0) for held in by_row)
    return Cache(keys, values, states, positions, visible_until, cache.length, limits)


def select(cache: Cache, chosen_BW: Int[Array, "B W"], start: int) -> Cache:
    """The cache of B rows of W beams in which beam w of row b holds what the row's beam `chosen[b, w]` held.

    That is from slot `start` on. Slots before it stay as they are, and so do positions: this is for beams that were
    read in step. A state goes whole from beam to beam.
    """

    def taken(held: Array) -> Array:
        # Taken row by row, so that a row's beams stay on the device that holds the row.
        by_row = held.reshape(held.shape[0], *chosen_BW.shape, *held.shape[2:])
        index = jnp.expand_dims(chosen_BW, (0, *range(3, by_row.ndim)))
        return jnp.take_along_axis(by_row, index, axis=2).reshape(held.shape)

    def moved(held: Array) -> Array:
        return held.at[:, :, start:].set(taken(held[:, :, start:]))

    keys, values = jax.tree.map(moved, (cache.keys, cache.values))
    return cache._replace(keys=keys, values=values, states=jax.tree.map(taken, cache.states))


def extend(
    decoder: Decoder,
    cache: Cache,
    tokens_BT: Int[Array, "B T"],
    positions_BT: Int[Array, "B T"],
    valid_BT: Bool[Array, "B T"],
    out_index_BC: Int[Array, "B C"],
) -> tuple[Float[Array, "B C D"], Cache]:
    """Reads T more tokens of each row.

    Args:
        decoder: The model.
        cache: What was read before; it must have room.
        tokens_BT: Token ids.
        positions_BT: Position of each in its sequence.
        valid_BT: False for padding, which no token sees.
        out_index_BC: Which of the T tokens' hidden states are wanted.

    Returns:
        Hidden states after the final norm, and the longer cache.
    """
    start = cache.length
    index_BT = jnp.broadcast_to(start + jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None], tokens_BT.shape)
    cache = cache._replace(
        positions=jax.lax.dynamic_update_slice(cache.positions, positions_BT, (0, start)),
        visible_until=jax.lax.dynamic_update_slice(cache.visible_until, jnp.where(valid_BT, _ALWAYS, 0), (0, start)),
        length=start + tokens_BT.shape[1],
    )
    lengths = jnp.broadcast_to(cache.limits[:, None], tokens_BT.shape)
    scope = Scope(index_BT, positions_BT, cache.positions, cache.visible_until, lengths=lengths)
    writer = _CacheWriter(cache.keys, cache.values, cache.states, start, decoder.config)
    hidden, held = decoder.walk(tokens_BT, scope, writer, out_index_BC)
    return hidden, cache._replace(keys=held.keys, values=held.values, states=held.states)


@partial(jax.tree_util.register_dataclass, data_fields=("keys", "values", "states", "start"), meta_fields=("config",))
@dataclass(frozen=True)
class _CacheWriter(LayerHook):
    """A cache's keys and values, to which each layer adds those of the tokens that are read, from slot `start` on.

    A layer that keeps a state puts the one after these tokens in place of the one before.
    """

    keys: tuple[Float[Array, "L B S K G"], ...]
    values: tuple[Float[Array, "L B S K G"], ...]
    states: LinearState | None
    start: Int[Array, ""]
    config: DecoderConfig

    def keys_values(
        self, layer: LayerNumber, k: Float[Array, "B T K G"], v: Float[Array, "B T K G"]
    ) -> tuple["_CacheWriter", Float[Array, "B S K G"], Float[Array, "B S K G"]]:
        """The layer's keys and values of all tokens that were ever read."""

        at, place = self._place(layer, k.shape[2:])

        def put(stacks: tuple[Array, ...], new: Array) -> tuple[tuple[Array, ...], Array]:
            held = jax.lax.dynamic_update_slice(stacks[at], new[None], (place, 0, self.start, 0, 0))
            one = jax.lax.dynamic_index_in_dim(held, place, keepdims=False)
            return (*stacks[:at], held, *stacks[at + 1 :]), one

        (keys, k), (values, v) = put(self.keys, k), put(self.values, v)
        return replace(self, keys=keys, values=values), k, v

    def carried(self, layer: LayerNumber, read: Read) -> tuple["_CacheWriter", Float[Array, "B C He"]]:
        """What the layer gathers of all tokens that were ever read."""
        place = self._number(layer, list(self.config.linear.layers or ()))
        before = jax.tree.map(lambda held: jax.lax.dynamic_index_in_dim(held, place, keepdims=False), self.states)
        y, after = read(before)

        def put(held: Array, new: Array) -> Array:
            return jax.lax.dynamic_update_index_in_dim(held, new, place, axis=0)

        return replace(self, states=jax.tree.map(put, self.states, after)), y

    def _place(self, layer: LayerNumber, shape: tuple[int, ...]) -> tuple[int, LayerNumber]:
        """In which stack a layer's keys of this shape (K, G) are, and at which place there."""
        held = _held(self.config)
        at = list(held).index((shape[0], shape[1]))
        return at, self._number(layer, held[shape[0], shape[1]])

    def _number(self, layer: LayerNumber, layers: list[int]) -> LayerNumber:
        """Which of these layers it is; of others that is never asked."""
        if len(layers) == self.config.layers:
            return layer
        places = {number: place for place, number in enumerate(layers)}
        return jnp.array([places.get(number, 0) for number in range(self.config.layers)], jnp.int32)[layer]
