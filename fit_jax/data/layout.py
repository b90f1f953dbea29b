"""One example as a prefix tree of tokens, laid out depth first in a line.

The prompts of one example under several focus instructions begin alike (the input stands before the instruction) and
each may be followed by several answers. The prefix tree holds what they share once:

    shared prefix ── rest of prompt 0 ── answer 0
                 │                    └─ answer 1
                 └── rest of prompt 1 ── answer 0

Attention over the line follows one rule, everywhere in this project: query token i sees key token j iff `j <= i` and
`i < visible_until[j]`, where `visible_until[j]` is the end of the subtree of the node that holds j. A token then sees
its ancestors and its own node's past, which is to say the plain sequence prompt + answer that it belongs to. Positions
count along that plain sequence, so every branch computes what it would compute alone in a row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from fit_jax.focus.prompts import EncodedPrompt, common_prefix


class Item(NamedTuple):
    """A prefix tree of n tokens with m targets; indices count from the item's first token.

    Attributes:
        tokens: Token ids. The last token of an answer is only ever predicted, so it is no token here.
        positions: Position of each token in its own plain sequence.
        visible_until: End of the range of queries that see each token.
        target_index: Index of the token whose hidden state predicts each target.
        target_ids: Token id of each target.
        target_slot: Number of the answer each target belongs to; answers count branch by branch.
        slots: Answers in the item.
    """

    tokens: Int32[np.ndarray, " n"]
    positions: Int32[np.ndarray, " n"]
    visible_until: Int32[np.ndarray, " n"]
    target_index: Int32[np.ndarray, " m"]
    target_ids: Int32[np.ndarray, " m"]
    target_slot: Int32[np.ndarray, " m"]
    slots: int


def lay_out(branches: Sequence[EncodedPrompt], answers: Sequence[Sequence[int]]) -> Item:
    """Lays out one example's prompts with the answers to be predicted after each.

    Args:
        branches: The example's prompt under each focus instruction.
        answers: For each branch, which of its answers follow it, as indices into `EncodedPrompt.answers`.

    Raises:
        ValueError: A prompt without tokens: nothing would predict the answer's first token.
    """
    shared = common_prefix([branch.prompt for branch in branches])
    pieces = [branches[0].prompt[:shared]]
    spans = [(0, shared)]  # positions of each node's tokens
    ends = [0]  # end of each node's subtree; the root's is known last
    target_index: list[int] = []
    target_ids: list[np.ndarray] = []
    target_slot: list[int] = []
    n, slot = shared, 0
    for branch, chosen in zip(branches, answers, strict=True):
        length = len(branch.prompt)
        if not length:
            raise ValueError("a prompt needs at least one token, from which its answer is predicted")
        node = len(ends)
        if length > shared:
            pieces.append(branch.prompt[shared:])
            spans.append((shared, length))
            ends.append(0)
            n += length - shared
            last = n - 1
        else:
            last = shared - 1
        for number in chosen:
            answer = branch.answers[number]
            inputs = len(answer) - 1
            pieces.append(answer[:-1])
            spans.append((length, length + inputs))
            target_index += [last, *range(n, n + inputs)]
            target_ids.append(answer)
            target_slot += [slot] * len(answer)
            n += inputs
            ends.append(n)
            slot += 1
        if length > shared:
            ends[node] = n
    ends[0] = n
    return Item(
        tokens=np.concatenate(pieces),
        positions=np.concatenate([np.arange(start, stop, dtype=np.int32) for start, stop in spans]),
        visible_until=np.repeat(np.array(ends, np.int32), [len(piece) for piece in pieces]),
        target_index=np.array(target_index, np.int32),
        target_ids=np.concatenate(target_ids),
        target_slot=np.array(target_slot, np.int32),
        slots=slot,
    )
