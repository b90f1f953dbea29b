"""Items of many lengths in rows of one length: which items share a row, and the arrays the model takes.

Items in a row do not see each other: the prefix tree rule of attention (`fit_jax.data.layout`) ends each item's
visibility at its own end. Padding has `visible_until` 0, so no token sees it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from fit_jax.data.layout import Item


class Batch(NamedTuple):
    """B rows of T tokens with room for C targets each; NumPy or JAX arrays.

    Attributes:
        tokens: Token ids; 0 in padding.
        positions: Position of each token in its own plain sequence.
        visible_until: Query i sees key j iff j <= i < visible_until[j], both indices in the row.
        target_index: Index in the row of the token that predicts each target; 0 in padding.
        target_ids: Token id of each target; 0 in padding.
        target_slot: Number of the answer each target belongs to, unique in the row and below C.
        target_weight: 1 for a target, 0 for padding.
    """

    tokens: Int32[Any, "B T"]
    positions: Int32[Any, "B T"]
    visible_until: Int32[Any, "B T"]
    target_index: Int32[Any, "B C"]
    target_ids: Int32[Any, "B C"]
    target_slot: Int32[Any, "B C"]
    target_weight: Float32[Any, "B C"]

    @property
    def examples(self) -> Any:
        """How many (x, focus instruction, y_focus) the batch trains on; a scalar array."""
        return ((self.target_slot + 1) * self.target_weight).max(axis=-1).sum()

    @property
    def rows(self) -> "Batch":
        """The batch itself: what a batch of any kind holds (`fit_jax.data.sampler.TrainBatch`)."""
        return self

    @property
    def axes(self) -> "Batch":
        """The dimensions of each field, by letter; they decide how it is split over a mesh."""
        return _AXES


_AXES = Batch("BT", "BT", "BT", "BC", "BC", "BC", "BC")


def first_fit(items: Sequence[Item], T: int, C: int) -> list[list[int]]:
    """Which items share a row: the indices of each row's items; every item stands in exactly one row.

    The better of two first-fit packings: in the order given, which mixes long and short items and so spreads the
    targets evenly over the rows, and by decreasing length, which wins where few items share a row.

    Args:
        items: Items of at most T tokens and C targets each.
        T: Tokens a row holds.
        C: Targets a row holds; answers are numbered below C since each has a target.

    Raises:
        ValueError: An item is larger than a row.
    """
    lengths, targets = _sizes(items)
    return _first_fit(lengths, targets, T, C)


def target_capacity(items: Sequence[Item], T: int) -> int:
    """The smallest capacity C at which rows are hardly ever closed for want of target positions.

    Each of the B x C positions costs a vocabulary projection, used or not. C grows from the mean need of a full row
    until these items, a sample of what will be packed, take at most 1 % more rows than without a limit, and one.
    """
    lengths, targets = _sizes(items)
    unlimited = len(_first_fit(lengths, targets, T, int(targets.sum())))
    C = max(int(targets.max()), -(-int(targets.sum()) * T // int(lengths.sum())))
    while len(_first_fit(lengths, targets, T, C)) > 1.01 * unlimited + 1:
        C += max(1, C // 10)
    return C


def _sizes(items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([len(item.tokens) for item in items]), np.array([len(item.target_ids) for item in items])


def _first_fit(lengths: np.ndarray, targets: np.ndarray, T: int, C: int) -> list[list[int]]:
    if len(lengths) and (lengths.max() > T or targets.max() > C):
        raise ValueError(f"an item of {lengths.max()} tokens, {targets.max()} targets; a row holds {T} and {C}")
    as_given = _in_order(range(len(lengths)), lengths, targets, T, C)
    decreasing = _in_order(np.argsort(-lengths, kind="stable").tolist(), lengths, targets, T, C)
    return min(as_given, decreasing, key=len)


def _in_order(order: Sequence[int], lengths: np.ndarray, targets: np.ndarray, T: int, C: int) -> list[list[int]]:
    """Puts each item, in `order`, into the first row with room for its tokens and its targets."""
    tokens_left = np.full(len(lengths), T)
    targets_left = np.full(len(lengths), C)
    rows: list[list[int]] = []
    for i in order:
        # One more row than is open: an empty row has room for any item.
        at = slice(len(rows) + 1)
        row = int(((tokens_left[at] >= lengths[i]) & (targets_left[at] >= targets[i])).argmax())
        if row == len(rows):
            rows.append([])
        rows[row].append(i)
        tokens_left[row] -= lengths[i]
        targets_left[row] -= targets[i]
    return rows


def stack(rows: Sequence[Sequence[Item]], T: int, C: int) -> tuple[Batch, Int32[np.ndarray, "items 2"]]:
    """The arrays of rows of items, and where each item went.

    Args:
        rows: The items of each row, in order; a row may be empty.
        T: Tokens a row holds.
        C: Targets a row holds.

    Returns:
        The batch, and for each item, row by row, its row and the slot number of its first answer.

    Raises:
        ValueError: A row's items do not fit.
    """
    items = [item for row in rows for item in row]
    row = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    tokens_at, first_token = _places([len(item.tokens) for item in items], row, len(rows), T, "tokens")
    targets_at, _ = _places([len(item.target_ids) for item in items], row, len(rows), C, "targets")
    _, first_slot = _places([item.slots for item in items], row, len(rows), C, "answers")

    def spread(name: str, at: np.ndarray, width: int, first: np.ndarray | None = None) -> np.ndarray:
        out = np.zeros((len(rows), width), np.int32)
        if items:
            pieces = [getattr(item, name) for item in items]
            values = np.concatenate(pieces)
            if first is not None:
                values = values + np.repeat(first, [len(piece) for piece in pieces])
            out.reshape(-1)[at] = values
        return out

    weight = np.zeros((len(rows), C), np.float32)
    weight.reshape(-1)[targets_at] = 1
    batch = Batch(
        tokens=spread("tokens", tokens_at, T),
        positions=spread("positions", tokens_at, T),
        visible_until=spread("visible_until", tokens_at, T, first_token),
        target_index=spread("target_index", targets_at, C, first_token),
        target_ids=spread("target_ids", targets_at, C),
        target_slot=spread("target_slot", targets_at, C, first_slot),
        target_weight=weight,
    )
    return batch, np.stack([row, first_slot], axis=1).astype(np.int32)


def _places(
    counts: Sequence[int], row: np.ndarray, rows: int, capacity: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Flat index of every element of every item in a (rows, capacity) array, and each item's first place in its row."""
    count = np.array(counts, np.int64)
    before = np.concatenate([[0], np.cumsum(count)])
    first_item = np.searchsorted(row, np.arange(rows))
    first = before[:-1] - before[first_item][row]
    if (first + count > capacity).any():
        raise ValueError(f"a row of {int((first + count).max())} {what}; it holds {capacity}")
    return np.repeat(row * capacity + first - before[:-1], count) + np.arange(before[-1]), first
