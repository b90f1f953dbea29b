"""The decoder: one architecture whose switches (`DecoderConfig`) cover the families it can be loaded from.

All layers but the last are one stacked block under `jax.lax.scan`. The last is apart: its queries, attention output and
feed-forward layer run only at the positions whose hidden state is asked for, since focus tuning puts loss on a few
tokens of a row.
"""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from fit_jax.models.attention import Scope, take
from fit_jax.models.block import Block, LayerHook
from fit_jax.models.config import DecoderConfig
from fit_jax.models.hash_random import Seed, dropout, folded
from fit_jax.models.layers import RMSNorm, scaled
from fit_jax.models.lora import Linear
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.partition import by_rows
from fit_jax.models.rope import Ropes, ropes_at, sequence_lengths

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Hook = TypeVar("Hook", bound=LayerHook)
# A decoder's states, as `nnx.merge(graphdef, *params)` takes them.
Params = tuple[nnx.State, ...]

# A window that limits nothing, for the full layers of a model whose layers alternate; fits an int32 difference.
UNLIMITED = 2**30


class Embed(nnx.Module):
    """Token embeddings, (V, D)."""

    def __init__(self, config: DecoderConfig, *, seed: Seed) -> None:
        """Random embeddings; where the output shares them, of the scale that suits it."""
        # Adam moves a weight by about the learning rate: embeddings much larger than that learn new words slowly.
        std = 0.02 if config.tied else 0.2
        shape = (config.vocab_size, config.width)
        self.embedding = nnx.Param(seed.weights(shape, std, jnp.dtype(config.param_dtype)))


class Decoder(nnx.Module):
    """Decoder-only transformer. Parameters: embed, blocks (stacked), last_block, final_norm, [lm_head]."""

    def __init__(self, config: DecoderConfig, lora: LoraConfig = LoraConfig(), *, rngs: nnx.Rngs) -> None:  # noqa: B008
        """Random weights."""
        self.config = config
        seed, L = Seed.of(rngs.params()), config.layers
        self.embed = Embed(config, seed=seed.fold(L))
        self.blocks = _stack(L - 1, config, lora, seed) if L > 1 else None
        self.last_block = Block(config, lora, seed=seed.fold(L - 1))
        self.final_norm = RMSNorm(config.width, config)
        if config.tied:
            self.lm_head = None
        else:
            head = ("lm_head", config.width, config.vocab_size)
            self.lm_head = Linear(*head, config, LoraConfig(), seed=seed.fold(L + 1))

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        visible_until_BT: Int[Array, "B T"],
        out_index_BC: Int[Array, "B C"] | None = None,
        *,
        deterministic: bool = True,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B C D"]:
        """Hidden states after the final norm.

        Args:
            tokens_BT: Token ids; several sequences may share a row.
            positions_BT: Position of each token in its own sequence.
            visible_until_BT: Token i sees token j iff j <= i < visible_until[j]; 0 for padding.
            out_index_BC: Row indices of the tokens wanted; None means all T. The last layer runs at these alone.
            deterministic: No dropout.
            dropout_key: Draws the dropout; needed unless `deterministic`.

        Raises:
            ValueError: Neither `deterministic` nor a `dropout_key`.
        """
        if not deterministic and dropout_key is None:
            raise ValueError("dropout needs a dropout_key unless deterministic")
        seed = None if dropout_key is None or deterministic else Seed.of(dropout_key)
        scope = Scope.of_rows(positions_BT, visible_until_BT)
        return self.walk(tokens_BT, scope, LayerHook(), out_index_BC, seed)[0]

    def walk(
        self,
        tokens_BT: Int[Array, "B T"],
        scope: Scope,
        hook: Hook,
        out_index_BC: Int[Array, "B C"] | None = None,
        seed: Seed | None = None,
    ) -> tuple[Float[Array, "B C D"], Hook]:
        """From tokens through all layers: the one forward pass, which training, cache and interventions share.

        Args:
            tokens_BT: Token ids.
            scope: What each of these tokens sees, and at which position it stands.
            hook: Takes part in each layer.
            out_index_BC: Which of the T tokens are wanted; None means all. The last layer runs at these alone.
            seed: Draws the dropout; None means none.

        Returns:
            Hidden states after the final norm, and the hook that the last layer handed on.
        """
        ropes, last = self.ropes(scope.query_positions, scope.lengths), self.config.layers - 1

        def visit(
            block: Block, x: Array, hook: Hook, number: int | Array, index_BC: Array | None = None
        ) -> tuple[Array, Hook]:
            slides, layer_seed, queries = self._flag(self.config.slides, number), folded(seed, number), scope
            rope = ropes.of(slides, self._flag(self.config.rotates, number))
            normed, k, v = block.read(x, rope, layer_seed)
            hook, k, v = hook.keys_values(number, k, v)
            if index_BC is not None:
                x, normed, rope = jax.tree.map(lambda a: take(a, index_BC), (x, normed, rope))
                queries = scope.at(index_BC)
            rescope = partial(hook.scope, number)
            x = block.write(x, normed, k, v, queries, rope, self.window(slides), layer_seed, rescope)
            hook, x = hook.output(number, x, index_BC)
            return x, hook

        x = dropout(
            hook.embedded(by_rows(self.embed_tokens(tokens_BT))), self.config.dropout, folded(seed, self.config.layers)
        )
        if self.blocks is not None:
            graphdef, stacked = nnx.split(self.blocks)

            @partial(self._remat, in_scan=True)
            def scanned(carry: tuple[Array, Hook], layer: tuple[nnx.State, Array]) -> tuple[tuple[Array, Hook], None]:
                weights, number = layer
                with jax.named_scope("block"):
                    x, hook = visit(nnx.merge(graphdef, weights), *carry, number)
                    return (by_rows(x), hook), None

            (x, hook), _ = jax.lax.scan(scanned, (x, hook), (stacked, jnp.arange(last, dtype=jnp.int32)))

        @self._remat
        def last_layer(x: Array, hook: Hook) -> tuple[Array, Hook]:
            with jax.named_scope("last_block"):
                return visit(self.last_block, x, hook, last, out_index_BC)

        x, hook = last_layer(x, hook)
        return self.final_norm(x), hook

    def _remat(self, function: Callable[Arguments, Result], in_scan: bool = False) -> Callable[Arguments, Result]:
        """The function, of which a backward pass, where there is one, computes again what `config.remat` says."""
        if self.config.remat == "none":
            return function
        save = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if self.config.remat == "dots" else None
        # Inside a scan, forward and backward are different loops, which the compiler cannot merge into one anyway.
        return jax.checkpoint(function, policy=save, prevent_cse=not in_scan)

    def embed_tokens(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Embeddings in the compute dtype, scaled where the family does."""
        x = self.embed.embedding[...][tokens].astype(jnp.dtype(self.config.compute_dtype))
        x = x * jnp.asarray(self.config.width**0.5, x.dtype) if self.config.embed_scale else x
        return scaled(x, self.config.embed_multiplier)

    def ropes(self, positions: Int[Array, "B T"], lengths: Int[Array, "B T"] | None = None) -> Ropes:
        """Rotary angles of tokens at these positions, for both kinds of layers.

        Args:
            positions: Of the tokens in their sequences.
            lengths: Tokens that each one's sequence may come to hold; None means that the tokens are whole rows.
        """
        if lengths is None and self.config.rope.kind == "longrope":
            lengths = sequence_lengths(positions)
        return ropes_at(positions, self.config, lengths)

    def _flag(self, of: Callable[[int], bool], layer: int | Array) -> bool | Array:
        """A flag of a layer; as a Python bool where all scanned layers agree, so that no step has to choose."""
        if isinstance(layer, int):
            return of(layer)
        flags = [of(scanned) for scanned in range(self.config.layers - 1)]
        return jnp.array(flags)[layer] if any(flags) and not all(flags) else any(flags)

    def window(self, slides: bool | Array) -> int | Array | None:
        """The window of a layer with this flag."""
        if isinstance(slides, bool):
            return self.config.window if slides else None
        return jnp.where(slides, self.config.window or UNLIMITED, UNLIMITED)

    def logits(self, hidden: Float[Array, "B C D"]) -> Float[Array, "B C V"]:
        """Next-token logits of hidden states, fp32, scaled and soft-capped where the family does."""
        if self.lm_head is None:
            kernel, contract = self.embed.embedding[...].astype(hidden.dtype), "bcd,vd->bcv"
        else:
            kernel, contract = self.lm_head.weight(hidden.dtype), "bcd,dv->bcv"
        logits = jnp.einsum(contract, hidden, kernel, preferred_element_type=jnp.float32)
        if self.config.logit_divisor != 1:
            logits = logits / self.config.logit_divisor
        cap = self.config.logit_softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)


def _stack(count: int, config: DecoderConfig, lora: LoraConfig, seed: Seed) -> Block:
    """A block whose parameters carry a leading axis of `count` layers."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Block(config, lora, seed=seed)))
    weights = jax.vmap(lambda layer: nnx.state(Block(config, lora, seed=seed.fold(layer))))(jnp.arange(count))
    return nnx.merge(graphdef, weights)
