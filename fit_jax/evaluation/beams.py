"""Beam search over given answers: a trie says which token may follow, the cache holds what was read.

Every answer of a prompt is a path from the root of its trie, so the search only ever writes answers. With a beam for
each inner node of a level it is an exact search over the set, and agrees with scoring each answer by itself
(`fit_jax.evaluation.scoring`); with fewer it is the usual constrained decoding (De Cao et al., 2021), for sets too
large to be scored.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from fit_jax.errors import InputError
from fit_jax.evaluation.decoding import by_length, padded, whole_rows
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.models.decoder import Decoder, Params
from fit_jax.models.export import to_host
from fit_jax.models.kv_cache import Cache, empty_cache, extend, repeated, select
from fit_jax.parallel.mesh import mesh_of
from fit_jax.parallel.processes import split_by_rows

# Nodes are padded to multiples of this, so that few shapes are compiled.
_BUCKET = 16
_IMPOSSIBLE = -jnp.inf


class Trie(NamedTuple):
    """A trie of each row's answers, padded to N nodes of up to F children; NumPy or JAX arrays. Node 0 is the root.

    Attributes:
        tokens: Token on the way to each child.
        children: Node of each child; 0 where there is none.
    """

    tokens: Int32[Any, "B N F"]
    children: Int32[Any, "B N F"]


class AnswerTries(NamedTuple):
    """Tries, the node where each row's answers end, and what a search needs to know of their size.

    Attributes:
        trie: The tries.
        ends: Per row, the node of each answer.
        depth: Tokens of the longest answer.
        width: Inner nodes on the widest level: with so many beams nothing is left out.
    """

    trie: Trie
    ends: list[list[int]]
    depth: int
    width: int


class _Beams(NamedTuple):
    """The W beams of each row after a step.

    Attributes:
        node: Where each beam stands.
        score: log p of the path to it; -inf of a beam that is not in use.
        parent: The beam before the step that each came from.
        token: The last token of each.
        reached: log p of the path to every node, -inf of those not reached so far.
    """

    node: Int[Array, "B W"]
    score: Float[Array, "B W"]
    parent: Int[Array, "B W"]
    token: Int[Array, "B W"]
    reached: Float[Array, "B N"]


def build_tries(answers: Sequence[Sequence[Int[np.ndarray, " n"]]]) -> AnswerTries:
    """The trie of each row's answers; equal answers end at one node, and one may be the beginning of another.

    Raises:
        InputError: A row has no answer, or an answer has no token.
    """
    rows: list[list[dict[int, int]]] = []
    levels: list[list[int]] = []
    ends: list[list[int]] = []
    for sequences in answers:
        nodes, level, leaves = [{}], [0], []
        for sequence in sequences:
            at = 0
            for depth, token in enumerate(np.asarray(sequence).tolist(), start=1):
                if token not in nodes[at]:
                    nodes[at][token] = len(nodes)
                    nodes.append({})
                    level.append(depth)
                at = nodes[at][token]
            leaves.append(at)
        if not leaves or 0 in leaves:
            raise InputError("constrained decoding: a prompt has no answers, or an answer without tokens; give some")
        rows.append(nodes)
        levels.append(level)
        ends.append(leaves)
    N = -(-max(map(len, rows)) // _BUCKET) * _BUCKET
    F = max(len(children) for nodes in rows for children in nodes)
    trie = Trie(*(np.zeros((len(rows), N, F), np.int32) for _ in range(2)))
    width = 1
    for row, (nodes, level) in enumerate(zip(rows, levels)):
        for number, children in enumerate(nodes):
            trie.tokens[row, number, : len(children)] = list(children)
            trie.children[row, number, : len(children)] = list(children.values())
        width = max(width, *np.bincount([d for d, children in zip(level, nodes) if children]).tolist())
    return AnswerTries(trie, ends, max(map(max, levels)), width)


def beam_search(
    graphdef: nnx.GraphDef, params: Params, prompts: Sequence[EncodedPrompt], beams: int | None = None
) -> list[Float32[np.ndarray, " answers"]]:
    """log p(answer | prompt) in nats of the answers that the search reached, -inf of those whose beginning fell out.

    The largest is the answer found. Each prompt may have answers of its own. The prompts are split by rows over the
    mesh that the parameters lie on.

    Args:
        graphdef: The decoder's structure.
        params: Its states, as `nnx.merge(graphdef, *params)` takes them.
        prompts: The prompts with the answers to choose from.
        beams: Beginnings kept at each step; None keeps all of them, which makes the search exact.

    Raises:
        InputError: No beam, an empty prompt, or no answer to choose.
    """
    if beams is not None and beams < 1:
        raise InputError(f"constrained decoding: beams {beams}; take at least 1, or none for an exact search")
    mesh = mesh_of(params)
    filled = whole_rows(prompts, mesh)
    tries = build_tries([p.answers for p in filled])
    width = min(beams or tries.width, tries.width)
    (tokens, valid), trie = split_by_rows((padded([p.prompt for p in filled]), tries.trie), mesh)
    with jax.set_mesh(mesh):  # the model's activations are constrained to the mesh in context
        found = _search(graphdef, width, tries.depth, params, tokens, valid, trie)
    reached = to_host(found)
    return [row[ends] for row, ends, _ in zip(reached, tries.ends, prompts)]


def search_all(
    graphdef: nnx.GraphDef, params: Params, prompts: Sequence[EncodedPrompt], beams: int | None, rows: int
) -> list[Float32[np.ndarray, " answers"]]:
    """As `beam_search` for any number of prompts: `rows` at a time, those of like length together."""
    return by_length(prompts, lambda p: len(p.prompt), rows, lambda _, part: beam_search(graphdef, params, part, beams))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _search(
    graphdef: nnx.GraphDef,
    width: int,
    depth: int,
    params: Params,
    tokens_BT: Int[Array, "B T"],
    valid_BT: Bool[Array, "B T"],
    trie: Trie,
) -> Float[Array, "B N"]:
    """log p of the path to each node, -inf of nodes never reached.

    The beams W of a row share what the cache holds of its prompt's tokens; only what comes after is moved when beams
    are chosen again.
    """
    decoder: Decoder = nnx.merge(graphdef, *params)
    (B, T), W = tokens_BT.shape, width
    rows_B = jnp.arange(B, dtype=jnp.int32)[:, None]
    inner_BN = (trie.children > 0).any(axis=-1)

    positions = jnp.maximum(jnp.cumsum(valid_BT, axis=1, dtype=jnp.int32) - 1, 0)
    last = jnp.max(jnp.where(valid_BT, jnp.arange(T, dtype=jnp.int32)[None], 0), axis=1, keepdims=True)
    length = jnp.repeat(positions.max(axis=1) + 1, W)[:, None]
    cache = empty_cache(decoder.config, B, T + depth - 1)._replace(limits=positions.max(axis=1) + depth)
    hidden, cache = extend(decoder, cache, tokens_BT, positions, valid_BT, last)
    hidden, cache = jnp.repeat(hidden, W, axis=0), repeated(cache, W)

    def grow(hidden: Array, node_BW: Array, score_BW: Array, reached: Array) -> _Beams:
        """The children of all beams, and the best W of those that have children themselves."""
        log_prob = jax.nn.log_softmax(decoder.logits(hidden)[:, 0], axis=-1).reshape(B, W, -1)
        tokens, children = trie.tokens[rows_B, node_BW], trie.children[rows_B, node_BW]
        step = jnp.take_along_axis(log_prob, tokens, axis=-1)
        score = jnp.where(children > 0, score_BW[:, :, None] + step, _IMPOSSIBLE).reshape(B, -1)
        children = children.reshape(B, -1)
        reached = reached.at[rows_B, children].max(score)  # slots without a child put -inf on the root
        score = jnp.where(inner_BN[rows_B, children], score, _IMPOSSIBLE)
        score_BW, best = jax.lax.top_k(score, W)
        node_BW, token_BW = (jnp.take_along_axis(of.reshape(B, -1), best, axis=1) for of in (children, tokens))
        return _Beams(node_BW, score_BW, best // tokens.shape[2], token_BW, reached)

    def more(state: tuple[Array, _Beams, Cache]) -> Array:
        number, beams, _ = state
        return (number < depth) & jnp.isfinite(beams.score).any()

    def step(state: tuple[Array, _Beams, Cache]) -> tuple[Array, _Beams, Cache]:
        number, beams, cache = state
        cache = select(cache, beams.parent, T)
        here, zero = beams.token.reshape(B * W, 1), jnp.zeros((B * W, 1), jnp.int32)
        hidden, cache = extend(decoder, cache, here, length + number - 1, jnp.ones((B * W, 1), bool), zero)
        return number + 1, grow(hidden, beams.node, beams.score, beams.reached), cache

    root = jnp.zeros((B, W), jnp.int32)
    alone = jnp.full((B, W), _IMPOSSIBLE).at[:, 0].set(0.0)  # one beam at the root, or its children would come W times
    first = grow(hidden, root, alone, jnp.full(inner_BN.shape, _IMPOSSIBLE))
    _, beams, _ = jax.lax.while_loop(more, step, (jnp.int32(1), first, cache))
    return beams.reached
