"""A forward pass that can be intervened in: vectors added to the residual stream, biases on attention to chosen keys.

Which tokens an intervention concerns rides on the token ids: `mark` adds a mark above the vocabulary's bits, the layout
and the packing carry it along like any token, and `Intervened` takes it off again before the embedding.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Int32

from fit_jax.data.packing import Batch
from fit_jax.models.attention import Rope, Scope
from fit_jax.models.decoder import Block, Decoder, take

_BITS = 24  # token ids are below 2 ** 24
INSTRUCTION, TOWARDS, AWAY = 1, 2, 3  # marks: a focus instruction's token; steered along or against the vector


class Intervention(NamedTuple):
    """What is changed in a forward pass; zeros change nothing.

    Attributes:
        vectors: Added to the residual stream after each layer at tokens marked `TOWARDS`, subtracted at `AWAY`.
        instruction_bias: Added to every attention score of the keys marked `INSTRUCTION`, in nats.
    """

    vectors: Float[Array, "L D"]
    instruction_bias: Float[Array, ""]


def no_intervention(decoder_layers: int, width: int) -> Intervention:
    """The intervention that changes nothing."""
    return Intervention(jnp.zeros((decoder_layers, width), jnp.float32), jnp.zeros((), jnp.float32))


def mark(tokens: Int32[np.ndarray, " n"], kind: int) -> Int32[np.ndarray, " n"]:
    """The tokens with a mark on each."""
    return tokens | np.int32(kind << _BITS)


def unmarked(batch: Batch) -> tuple[Batch, Int[Array, "B T"]]:
    """The batch as the model knows it, and the mark of each token."""
    low = (1 << _BITS) - 1
    return batch._replace(tokens=batch.tokens & low, target_ids=batch.target_ids & low), batch.tokens >> _BITS


def intervened(
    decoder: Decoder, batch: Batch, marks: Int[Array, "B T"], change: Intervention
) -> tuple[Float[Array, "B C D"], Float[Array, "L B C D"]]:
    """Hidden states at the targets under an intervention, and the residual stream there after each layer.

    With nothing marked, or zero vectors and bias, the hidden states are the decoder's own.

    Args:
        decoder: The model.
        batch: Rows without marks.
        marks: The mark of each token.
        change: The intervention.
    """
    config, L = decoder.config, decoder.config.layers
    ropes = decoder.ropes(batch.positions)
    index = jnp.broadcast_to(jnp.arange(batch.tokens.shape[1], dtype=jnp.int32)[None], batch.tokens.shape)
    scope = Scope(index, batch.positions, batch.positions, batch.visible_until)
    sign = ((marks == TOWARDS).astype(jnp.float32) - (marks == AWAY).astype(jnp.float32))[:, :, None]
    bias = change.instruction_bias * (marks == INSTRUCTION).astype(jnp.float32)
    x = decoder.embed_tokens(batch.tokens)
    residuals = []

    if decoder.blocks is not None:
        graphdef, stacked = nnx.split(decoder.blocks)

        def layer(x: Array, scanned: tuple) -> tuple[Array, Array]:
            weights, vector, slides = scanned
            slides = decoder.uniform(slides)
            x = _block(nnx.merge(graphdef, weights), x, None, scope, ropes.of(slides), decoder.window(slides), bias)
            x = x + (sign * vector[None, None]).astype(x.dtype)
            return x, take(x, batch.target_index)

        x, residual = jax.lax.scan(layer, x, (stacked, change.vectors[:-1], decoder.sliding_flags()[:-1]))
        residuals.append(residual)

    slides = config.slides(L - 1)
    rope, window = ropes.of(slides), decoder.window(slides)
    x = _block(decoder.last_block, x, batch.target_index, scope, rope, window, bias)
    x = x + (take(sign, batch.target_index) * change.vectors[-1][None, None]).astype(x.dtype)
    return decoder.final_norm(x), jnp.concatenate([*residuals, x[None]])


def intervened_forward(graphdef: nnx.GraphDef, params: Any, batch: Batch) -> tuple[Decoder, Array, Batch]:
    """For a `Scorer` whose params are (the model's states, an `Intervention`)."""
    states, change = params
    decoder = nnx.merge(graphdef, *states)
    batch, marks = unmarked(batch)
    return decoder, intervened(decoder, batch, marks, change)[0], batch


def _block(
    block: Block,
    x: Float[Array, "B T D"],
    out_index: Int[Array, "B C"] | None,
    scope: Scope,
    rope: Rope,
    window: int | Array | None,
    bias: Float[Array, "B T"],
) -> Array:
    """A layer whose attention scores have `bias` added to each key, at all tokens or at `out_index`."""
    normed, k, v = block.read(x, rope, None)
    if out_index is not None:
        x, normed, rope = (jax.tree.map(lambda a: take(a, out_index), tree) for tree in (x, normed, rope))
        scope = replace(scope, query_index=out_index, query_positions=take(scope.query_positions, out_index))
    attention, config = block.attention, block.config
    # One more dimension a head turns the bias into part of the inner product: q . k * scale + bias.
    scale = (config.query_scale or config.head_width) ** -0.5
    q = _widened(attention.queries(*normed, rope), 1 / scale)
    y = attention.attend(q, _widened(k, bias[:, :, None, None]), _widened(v, 0.0), scope, window)
    y = y.reshape(*y.shape[:2], config.heads, -1)[..., :-1].reshape(*y.shape[:2], -1)
    y = attention.o_proj(y, y)
    y = y if block.attention_out_norm is None else block.attention_out_norm(y)
    x = x + y
    y = block.mlp(block.mlp_norm(x), None, None)
    return x + (y if block.mlp_out_norm is None else block.mlp_out_norm(y))


def _widened(heads: Float[Array, "B T H G"], value: float | Array) -> Float[Array, "B T H G+1"]:
    extra = jnp.broadcast_to(jnp.asarray(value, heads.dtype), (*heads.shape[:3], 1))
    return jnp.concatenate([heads, extra], axis=-1)
