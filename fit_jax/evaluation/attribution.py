"""Which tokens of a prompt an answer rests on: gradient x input."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fit_jax.data.layout import lay_out
from fit_jax.data.packing import Batch, stack
from fit_jax.evaluation.scoring import row_shape
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.models.attention import Scope
from fit_jax.models.block import LayerHook
from fit_jax.models.decoder import Params
from fit_jax.models.head import target_log_probs
from fit_jax.parallel.config import CONTEXT
from fit_jax.parallel.processes import rows_of_this_process, to_global
from fit_jax.parallel.sharding import row_shards

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens that are decoded before one, so that it is read as it stands in a text.
_BEFORE = 8


class Attributor:
    """Attributes answers to the tokens of their prompts.

    What is explained is the log-odds of an answer, log p(answer) - log sum p(other candidates): unlike the probability
    of a sure model, it has a gradient, and unlike the log-probability alone, it says why this answer and not another
    (Yin and Neubig, 2022). A token's weight is gradient x input (Shrikumar et al., 2016), summed without signs over the
    dimensions of its embedding. With signs the sum would tell what a longer embedding changes, and that is next to
    nothing in a model that normalises what each layer reads.
    """

    def __init__(self, graphdef: nnx.GraphDef, mesh: Mesh, step: int) -> None:
        """An attributor of models of one structure.

        Args:
            graphdef: The model's structure.
            mesh: The mesh its parameters lie on.
            step: Row lengths are multiples of it; for each of them a program is compiled.
        """
        self._mesh = mesh
        self._step = lcm(step, mesh.shape[CONTEXT])
        self._weigh = jax.jit(_weighing_function(graphdef))

    def attribute(self, params: Params, prompt: EncodedPrompt, answer: int) -> Float[np.ndarray, " tokens"]:
        """How much the log-odds of an answer depend on each of the prompt's tokens, in nats; 0 or more.

        Args:
            params: The model's states, as `nnx.merge(graphdef, *params)` takes them.
            prompt: The prompt with two candidates or more.
            answer: Which of the candidates.
        """
        item = lay_out([prompt], [range(len(prompt.answers))])
        rows = [[item], *[[]] * (row_shards(self._mesh) - 1)]
        batch, _ = stack(rows, *row_shape([item], self._step))
        local = rows_of_this_process(len(rows), self._mesh)
        batch = to_global(Batch(*(a[local] for a in batch)), self._mesh)
        with jax.set_mesh(self._mesh):
            weights = self._weigh(params, batch, answer, len(prompt.answers))
        return jax.device_get(weights)[0, : len(prompt.prompt)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _ShiftedEmbeddings(LayerHook):
    """Shifts each token's embedding.

    Attributes:
        by: What is added.
    """

    by: Float[Array, "B T D"]

    def embedded(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The shifted embeddings."""
        return x + self.by


def _weighing_function(graphdef: nnx.GraphDef) -> Callable[[Params, Batch, Array, Array], Float[Array, "B T"]]:
    def log_odds(by: Array, params: Params, batch: Batch, answer: Array, candidates: Array) -> Array:
        decoder = nnx.merge(graphdef, *params)
        scope = Scope.of_rows(batch.positions, batch.visible_until)
        hidden, _ = decoder.walk(batch.tokens, scope, _ShiftedEmbeddings(by), batch.target_index)
        log_prob, _ = target_log_probs(decoder, hidden, batch.target_ids)
        slots = batch.target_slot.shape[1]
        used = jnp.where(batch.target_weight[0] > 0, log_prob[0], 0.0)
        scores = jax.ops.segment_sum(used, batch.target_slot[0], num_segments=slots)
        number = jnp.arange(slots)
        others = (number < candidates) & (number != answer)
        return scores[answer] - jax.nn.logsumexp(scores, where=others)

    def weigh(params: Params, batch: Batch, answer: Array, candidates: Array) -> Float[Array, "B T"]:
        embeddings = nnx.merge(graphdef, *params).embed_tokens(batch.tokens)
        gradient = jax.grad(log_odds)(jnp.zeros_like(embeddings), params, batch, answer, candidates)
        return jnp.abs(gradient.astype(jnp.float32) * embeddings.astype(jnp.float32)).sum(axis=-1)

    return weigh


def pieces(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> Iterator[tuple[str, int]]:
    """The text of tokens as it stands in a whole, each with the number of tokens that it took.

    Together the pieces are the text that the tokens decode to. Tokens that each hold a part of a character come as one.
    """
    start = 0
    while start < len(ids):
        before = ids[max(0, start - _BEFORE) : start]
        known = len(_decoded(tokenizer, before))
        end = start + 1
        while (text := _decoded(tokenizer, [*before, *ids[start:end]])).endswith("\ufffd") and end < len(ids):
            end += 1
        yield text[known:], end - start
        start = end


def _decoded(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    return tokenizer.batch_decode([ids], skip_special_tokens=False, clean_up_tokenization_spaces=False)[0]
