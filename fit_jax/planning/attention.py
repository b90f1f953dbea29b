"""What the prefix-tree kernel computes and moves: the blocks that its own lists name, times what each of them costs.

A plan knows no data, so it takes every row to be one text, in which queries meet all that came before; packed examples
and branches meet less, and `visits` counts them for a batch that is given.
"""

import importlib
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fit_jax.models.config import DecoderConfig
from fit_jax.models.kernels import OwnKernel
from fit_jax.models.prefix_attention import blocks_of_rows
from fit_jax.models.prefix_blocks import Rules, Tiles

# Matrix products of a block that is visited: scores and what is gathered; scores, the weights' gradient and that of the
# queries; scores, the weights' gradient, and those of keys and of values.
FORWARD, QUERY_GRADIENT, KEY_GRADIENT = 2, 3, 4


class Visits(NamedTuple):
    """Blocks that the passes of one head over some rows visit.

    Attributes:
        tiles: Tokens of a block.
        queries: Of the rows, those that fill their last block up included.
        keys: The same of keys.
        by_query: Blocks of keys, summed over blocks of queries: of the forward pass and of the queries' gradient.
        by_key: Blocks of queries, summed over blocks of keys: of the gradient of keys and values.
    """

    tiles: Tiles
    queries: int
    keys: int
    by_query: int
    by_key: int


class Work(NamedTuple):
    """Operations, and bytes read from and written to a device's memory, of all devices."""

    flops: float
    bytes: float


def visits(
    queries_B2C: np.ndarray, keys_B2T: np.ndarray, head_width: int, platform: OwnKernel, window: int | None = None
) -> Visits:
    """Counts the blocks of rows.

    Args:
        queries_B2C: Row index and position of each query.
        keys_B2T: `visible_until` and position of each key.
        head_width: Of queries and keys.
        platform: Whose kernel.
        window: Positions that a query sees, itself included; None means all.
    """
    kernels = importlib.import_module(f"fit_jax.models.prefix_attention_{platform}")
    return visits_by(queries_B2C, keys_B2T, kernels.tiles(queries_B2C.shape[2], keys_B2T.shape[2], head_width), window)


def visits_by(queries_B2C: np.ndarray, keys_B2T: np.ndarray, tiles: Tiles, window: int | None = None) -> Visits:
    """Counts the blocks of rows that are cut by the given tiles."""
    rules = Rules(tiles, window is not None, None, False)
    limit = jnp.asarray(window or 0, jnp.int32)[None]
    blocks = blocks_of_rows(jnp.asarray(queries_B2C), jnp.asarray(keys_B2T), limit, rules)
    met = (int(walk.turns.sum()) for walk in (blocks.by_query, blocks.by_key))
    return Visits(tiles, blocks.queries[:, 0].size, blocks.keys[:, 0].size, *met)


def layer_work(
    found: Visits, heads: int, kv_heads: int, head_width: int, item: int, *, forwards: int, backward: bool
) -> Work:
    """Of one layer: so many forward passes, and the backward pass. The integers of the mask are left out.

    Args:
        found: What one head visits.
        heads: Of queries.
        kv_heads: Of keys and values.
        head_width: Of all of them.
        item: Bytes of a number.
        forwards: How often the forward pass is done.
        backward: Whether gradients are wanted.
    """
    tiles, number = found.tiles, 4  # bytes of an lse, and of what else is kept of each query in fp32
    token = item * head_width
    product = 2 * tiles.queries * tiles.keys * head_width
    visited_keys = found.by_query * 2 * tiles.keys * token
    flops = forwards * FORWARD * found.by_query * product
    moved = forwards * (found.queries * (2 * token + number) + visited_keys)
    shared = 0
    if backward:
        flops += (QUERY_GRADIENT * found.by_query + KEY_GRADIENT * found.by_key) * product
        moved += found.queries * (3 * token + 2 * number) + visited_keys
        moved += found.by_key * tiles.queries * (2 * token + 2 * number)
        shared = found.keys * 4 * token
    return Work(heads * flops, heads * moved + kv_heads * shared)


def kernel_work(
    config: DecoderConfig,
    rows: int,
    sequence_length: int,
    targets: int,
    kernel: Callable[[int], OwnKernel],
    *,
    backward: bool,
) -> Work:
    """Of all layers that attend, on rows of one text each; with `backward`, of a train step, remat's repeats too.

    `kernel` gives the one that computes heads of a width.
    """
    item, total = jnp.dtype(config.compute_dtype).itemsize, np.zeros(2)
    forwards = 1 + (backward and config.remat != "none")
    for layer in range(config.layers):
        if config.linear.has(layer):
            continue
        queries = targets if layer == config.layers - 1 else sequence_length
        window, kind = config.window if config.slides(layer) else None, config.kind(layer)
        found = _of_whole_row(queries, sequence_length, kind.head_width, kernel(kind.head_width), window)
        shape = config.heads, kind.kv_heads, kind.head_width
        total += layer_work(found, *shape, item, forwards=forwards, backward=backward)
    return Work(*(rows * total).tolist())


@cache
def _of_whole_row(queries: int, tokens: int, head_width: int, platform: OwnKernel, window: int | None) -> Visits:
    """Of a row that is one text, with its queries evenly over it."""
    index = (np.arange(1, queries + 1, dtype=np.int64) * tokens // queries - 1).astype(np.int32)
    keys = np.stack([np.full(tokens, tokens), np.arange(tokens)]).astype(np.int32)
    return visits(np.stack([index, index])[None], keys[None], head_width, platform, window)
