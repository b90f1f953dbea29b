"""A forward pass that can be intervened in: the residual stream changed, biases on attention to chosen keys.

Which tokens an intervention concerns rides on the token ids: `mark` adds a mark above the vocabulary's bits, the layout
and the packing carry it along like any token, and `Intervened` takes it off again before the embedding.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int32

from fit_jax.data.packing import Batch
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.models.attention import Scope, take
from fit_jax.models.block import Gather, LayerHook, LayerNumber
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder, Params

_SURE = 1e-6  # shares of attention nearer to 0 and 1 than this count as this
_BITS = 24  # token ids are below 2 ** 24
# Marks: a focus instruction's token; steered one way or the other; exchanged with the next or previous such token.
INSTRUCTION, TOWARDS, AWAY, EXCHANGED = 1, 2, 3, 4


class Exchange(NamedTuple):
    """What pairs of tokens exchange of the residual stream after each layer but the last.

    The first token of a row that is marked `EXCHANGED` and the second are a pair, the third and the fourth, and so on.

    Attributes:
        whole: 1 for a layer after which they exchange all of it, else 0.
        directions: For each layer a unit vector, the component along which they exchange, or zeros.
    """

    whole: Float[Array, " L"]
    directions: Float[Array, "L D"]


class Knob(NamedTuple):
    """A component of the residual stream that is set after a layer; the last layer's stays.

    Attributes:
        directions: For each layer a unit vector, the component along which is set, or zeros.
        towards: What it is set to at tokens marked `TOWARDS`.
        away: What it is set to at tokens marked `AWAY`.
    """

    directions: Float[Array, "L D"]
    towards: Float[Array, ""]
    away: Float[Array, ""]


class Intervention(NamedTuple):
    """What is changed in a forward pass; zeros and None change nothing.

    Attributes:
        vectors: Added to the residual stream after each layer at tokens marked `TOWARDS`, subtracted at `AWAY`.
        head_bias: Added to the attention scores of the keys marked `INSTRUCTION`, by layer and head, in nats.
        target_share: The least share of its attention that every head gives to the keys marked `INSTRUCTION` of which
            it sees any; between 0 and 1. Where it gives less, a bias on their scores brings it there.
        exchange: What pairs of tokens exchange.
        knob: What a component is set to.
    """

    vectors: Float[Array, "L D"]
    head_bias: Float[Array, "L H"] | None = None
    target_share: Float[Array, ""] | None = None
    exchange: Exchange | None = None
    knob: Knob | None = None


def no_intervention(config: DecoderConfig) -> Intervention:
    """The intervention that changes nothing in such a model."""
    return Intervention(jnp.zeros((config.layers, config.width), jnp.float32))


def mark(tokens: Int32[np.ndarray, " n"], kind: int) -> Int32[np.ndarray, " n"]:
    """The tokens with a mark on each."""
    return tokens | np.int32(kind << _BITS)


def marked_end(prompt: EncodedPrompt, kind: int) -> EncodedPrompt:
    """The prompt with a mark on its last token, from which the answer's first is predicted."""
    return replace(prompt, prompt=np.concatenate([prompt.prompt[:-1], mark(prompt.prompt[-1:], kind)]))


def unmarked(batch: Batch) -> tuple[Batch, Int[Array, "B T"]]:
    """The batch as the model knows it, and the mark of each token."""
    low = (1 << _BITS) - 1
    return batch._replace(tokens=batch.tokens & low, target_ids=batch.target_ids & low), batch.tokens >> _BITS


def intervened(
    decoder: Decoder, batch: Batch, marks: Int[Array, "B T"], change: Intervention
) -> tuple[Float[Array, "B C D"], Float[Array, "L B C D"]]:
    """Hidden states at the targets under an intervention, and the residual stream there after each layer.

    With nothing marked, or zero vectors and no bias or share, the hidden states are the decoder's own.

    Args:
        decoder: The model.
        batch: Rows without marks.
        marks: The mark of each token.
        change: The intervention.
    """
    scope = Scope.of_rows(batch.positions, batch.visible_until)
    config = decoder.config
    shape = (config.layers, *batch.target_index.shape, config.width)
    nothing = jnp.zeros(shape, jnp.dtype(config.compute_dtype))
    emphasised = (marks == INSTRUCTION).astype(jnp.float32)
    partner = _partners(marks) if change.exchange is not None else None
    hook = _Steering(change, marks, emphasised, batch.target_index, nothing, partner)
    hidden, hook = decoder.walk(batch.tokens, scope, hook, batch.target_index)
    return hidden, hook.residuals


def intervened_forward(
    graphdef: nnx.GraphDef, params: tuple[Params, Intervention], batch: Batch
) -> tuple[Decoder, Array, Batch]:
    """For a `Scorer` whose params are (the model's states, an `Intervention`)."""
    states, change = params
    decoder = nnx.merge(graphdef, *states)
    batch, marks = unmarked(batch)
    return decoder, intervened(decoder, batch, marks, change)[0], batch


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Steering(LayerHook):
    """Biases attention to emphasised keys; adds each layer's vector to its output and keeps what is at the targets.

    Attributes:
        change: The intervention.
        marks: The mark of each token.
        emphasised: 1 for a key marked `INSTRUCTION`, else 0.
        target_index: The targets.
        residuals: What is kept.
        partner: Index of the token that each token exchanges with, its own for most; None where none exchange.
    """

    change: Intervention
    marks: Int[Array, "B T"]
    emphasised: Float[Array, "B T"]
    target_index: Int[Array, "B C"]
    residuals: Float[Array, "L B C D"]
    partner: Int[Array, "B T"] | None = None

    def scope(
        self, layer: LayerNumber, scope: Scope, q: Float[Array, "B C H G"], k: Float[Array, "B S K G"], gather: Gather
    ) -> Scope:
        """The scope with a bias on the emphasised keys."""
        bias_BCH = jnp.zeros(q.shape[:3], jnp.float32)
        if self.change.head_bias is not None:
            bias_BCH += self.change.head_bias[layer][None, None]
        if self.change.target_share is not None:
            # What a head gathers of values that are 1 at these keys and 0 at others is its share.
            value = jnp.broadcast_to(self.emphasised[:, :, None, None], k.shape).astype(k.dtype)
            share = gather(value, scope).astype(jnp.float32).reshape(q.shape)[..., 0]
            bias_BCH += jnp.where(share > 0, jnp.maximum(_logit(self.change.target_share) - _logit(share), 0.0), 0.0)
        if self.change.head_bias is None and self.change.target_share is None:
            return scope
        return replace(scope, key_bias=bias_BCH[..., None] * self.emphasised[:, None, None])

    def output(
        self, layer: LayerNumber, x: Float[Array, "B T D"], index_BC: Int[Array, "B C"] | None
    ) -> tuple["_Steering", Float[Array, "B T D"]]:
        """The steered output."""
        marks = self.marks if index_BC is None else take(self.marks, index_BC)
        towards, away = (marks == TOWARDS)[:, :, None], (marks == AWAY)[:, :, None]
        x = x + ((towards.astype(jnp.float32) - away) * self.change.vectors[layer][None, None]).astype(x.dtype)
        if index_BC is None:
            x = self._turned(layer, self._exchanged(layer, x), towards, away)
        at_targets = take(x, self.target_index) if index_BC is None else x
        return replace(self, residuals=self.residuals.at[layer].set(at_targets)), x

    def _exchanged(self, layer: LayerNumber, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        if self.partner is None or self.change.exchange is None:
            return x
        whole, direction = self.change.exchange.whole[layer], self.change.exchange.directions[layer]
        difference = take(x, self.partner).astype(jnp.float32) - x  # nothing at a token that is its own partner
        return x + (whole * difference + (difference @ direction)[..., None] * direction[None, None]).astype(x.dtype)

    def _turned(
        self, layer: LayerNumber, x: Float[Array, "B T D"], towards: Bool[Array, "B T 1"], away: Bool[Array, "B T 1"]
    ) -> Float[Array, "B T D"]:
        if self.change.knob is None:
            return x
        knob, direction = self.change.knob, self.change.knob.directions[layer]
        component = (x.astype(jnp.float32) @ direction)[..., None]
        wanted = jnp.where(towards, knob.towards, jnp.where(away, knob.away, component))
        return x + ((wanted - component) * direction[None, None]).astype(x.dtype)


def _partners(marks: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """For each token the index of the one that it exchanges with, or its own."""
    T = marks.shape[1]

    def row(marks: Int[Array, " T"]) -> Int[Array, " T"]:
        (at,) = jnp.nonzero(marks == EXCHANGED, size=T + T % 2, fill_value=T)
        other = at.reshape(-1, 2)[:, ::-1].reshape(-1)
        return jnp.arange(T).at[at].set(other, mode="drop")

    return jax.vmap(row)(marks)


def _logit(share: Float[Array, "*n"]) -> Float[Array, "*n"]:
    share = jnp.clip(share, _SURE, 1 - _SURE)
    return jnp.log(share) - jnp.log1p(-share)
