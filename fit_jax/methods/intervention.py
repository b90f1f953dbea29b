"""A forward pass that can be intervened in: vectors added to the residual stream, biases on attention to chosen keys.

Which tokens an intervention concerns rides on the token ids: `mark` adds a mark above the vocabulary's bits, the layout
and the packing carry it along like any token, and `Intervened` takes it off again before the embedding.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Int32

from fit_jax.data.packing import Batch
from fit_jax.models.attention import Scope, take
from fit_jax.models.block import LayerHook
from fit_jax.models.decoder import Decoder

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
    bias = change.instruction_bias * (marks == INSTRUCTION).astype(jnp.float32)
    scope = Scope.of_rows(batch.positions, batch.visible_until, key_bias=bias)
    sign = (marks == TOWARDS).astype(jnp.float32) - (marks == AWAY).astype(jnp.float32)
    config = decoder.config
    shape = (config.layers, *batch.target_index.shape, config.width)
    nothing = jnp.zeros(shape, jnp.dtype(config.compute_dtype))
    hook = _Steering(change.vectors, sign, batch.target_index, nothing)
    hidden, hook = decoder.walk(batch.tokens, scope, hook, batch.target_index)
    return hidden, hook.residuals


def intervened_forward(graphdef: nnx.GraphDef, params: Any, batch: Batch) -> tuple[Decoder, Array, Batch]:
    """For a `Scorer` whose params are (the model's states, an `Intervention`)."""
    states, change = params
    decoder = nnx.merge(graphdef, *states)
    batch, marks = unmarked(batch)
    return decoder, intervened(decoder, batch, marks, change)[0], batch


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Steering(LayerHook):
    """Adds each layer's vector to its output, times the token's sign, and keeps what is then at the targets."""

    vectors: Float[Array, "L D"]
    sign: Float[Array, "B T"]
    target_index: Int[Array, "B C"]
    residuals: Float[Array, "L B C D"]

    def output(
        self, layer: int | Int[Array, ""], x: Float[Array, "B T D"], index_BC: Int[Array, "B C"] | None
    ) -> tuple["_Steering", Float[Array, "B T D"]]:
        """The steered output."""
        sign = self.sign if index_BC is None else take(self.sign, index_BC)
        x = x + (sign[:, :, None] * self.vectors[layer][None, None]).astype(x.dtype)
        at_targets = take(x, self.target_index) if index_BC is None else x
        return replace(self, residuals=self.residuals.at[layer].set(at_targets)), x
