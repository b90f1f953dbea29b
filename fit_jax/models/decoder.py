"""The decoder: one architecture whose switches (`DecoderConfig`) cover the families it can be loaded from.

All layers but the last are one stacked block under `jax.lax.scan`. The last is apart: its queries, attention output and
feed-forward layer run only at the positions whose hidden state is asked for, since focus tuning puts loss on a few
tokens of a row.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from fit_jax.models.attention import Attention, Rope, Scope, rope_at
from fit_jax.models.config import DecoderConfig, LoraConfig, RopeConfig
from fit_jax.models.hash_random import Seed, dropout
from fit_jax.models.layers import FeedForward, RMSNorm
from fit_jax.models.lora import Linear
from fit_jax.models.partition import by_rows

# A window that limits nothing, for the full layers of a model whose layers alternate; fits an int32 difference.
UNLIMITED = 2**30


class Ropes(NamedTuple):
    """Rotary angles of some tokens in full and in sliding layers; `sliding` is None where they do not differ."""

    full: Rope
    sliding: Rope | None

    def of(self, slides: bool | Array) -> Rope:
        """The angles of one layer; `slides` may be traced."""
        if self.sliding is None:
            return self.full
        if isinstance(slides, bool):
            return self.sliding if slides else self.full
        return jax.tree.map(lambda s, f: jnp.where(slides, s, f), self.sliding, self.full)


class SublayerInput(NamedTuple):
    """A sublayer's normalised input, as the base sees it and, after the adapter's dropout, as the adapters see it."""

    base: Float[Array, "B T D"]
    adapter: Float[Array, "B T D"]


class Block(nnx.Module):
    """One layer, in two halves between which a caller may drop queries or exchange keys and values with a cache."""

    def __init__(self, config: DecoderConfig, lora: LoraConfig, *, seed: Seed) -> None:
        """Random weights."""
        self.config = config
        self.adapter_dropout = lora.dropout if lora.rank else 0.0
        self.attention_norm = RMSNorm(config.width, config)
        self.attention = Attention(config, lora, seed=seed.fold(0))
        self.mlp_norm = RMSNorm(config.width, config)
        self.mlp = FeedForward(config, lora, seed=seed.fold(1))
        self.attention_out_norm = RMSNorm(config.width, config) if config.post_norms else None
        self.mlp_out_norm = RMSNorm(config.width, config) if config.post_norms else None

    def read(
        self, x: Float[Array, "B T D"], rope: Rope, seed: Seed | None
    ) -> tuple[SublayerInput, Float[Array, "B T K G"], Float[Array, "B T K G"]]:
        """The attention input, and the keys and values, of every token."""
        h = self.attention_norm(x)
        normed = SublayerInput(h, dropout(h, self.adapter_dropout, _fold(seed, 0)))
        return normed, *self.attention.keys_values(*normed, rope)

    def write(
        self,
        x: Float[Array, "B C D"],
        normed: SublayerInput,
        k: Float[Array, "B T K G"],
        v: Float[Array, "B T K G"],
        scope: Scope,
        rope: Rope,
        window: int | Int[Array, ""] | None,
        seed: Seed | None,
    ) -> Float[Array, "B C D"]:
        """The residual stream after attention and feed-forward, of the tokens that `scope` takes as queries."""
        y = self.attention.attend(self.attention.queries(*normed, rope), k, v, scope, window)
        y = self.attention.o_proj(y, dropout(y, self.adapter_dropout, _fold(seed, 1)))
        x = x + self._out(y, self.attention_out_norm, _fold(seed, 2))
        y = self.mlp(self.mlp_norm(x), _fold(seed, 3), _fold(seed, 4))
        return x + self._out(y, self.mlp_out_norm, _fold(seed, 5))

    def _out(self, y: Array, norm: RMSNorm | None, seed: Seed | None) -> Array:
        return dropout(y if norm is None else norm(y), self.config.dropout, seed)


class Embed(nnx.Module):
    """Token embeddings, (V, D)."""

    def __init__(self, config: DecoderConfig, *, seed: Seed) -> None:
        """Random embeddings; where the output shares them, of the scale that suits it."""
        # Adam moves a weight by about the learning rate: embeddings much larger than that learn new words slowly.
        std = 0.02 if config.tied else 0.2
        shape = (config.vocab_size, config.width)
        self.embedding = nnx.Param(seed.weights(shape, std, jnp.dtype(config.param_dtype)))


class Decoder(nnx.Module):
    """Decoder-only transformer. Parameter tree: embed, blocks (stacked), last_block, final_norm, [lm_head]."""

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
        trees: bool = True,
    ) -> Float[Array, "B C D"]:
        """Hidden states after the final norm.

        Args:
            tokens_BT: Token ids; several sequences may share a row.
            positions_BT: Position of each token in its own sequence.
            visible_until_BT: Token i sees token j iff j <= i < visible_until[j]; 0 for padding.
            out_index_BC: Row indices of the tokens wanted; None means all T. The last layer runs at these alone.
            deterministic: No dropout.
            dropout_key: Draws the dropout; needed unless `deterministic`.
            trees: Whether rows may hold items that branch; attention kernels for packed sequences run only if not.

        Raises:
            ValueError: Neither `deterministic` nor a `dropout_key`.
        """
        if not deterministic and dropout_key is None:
            raise ValueError("dropout needs a dropout_key unless deterministic")
        seed = None if deterministic else Seed.of(dropout_key)
        config, L = self.config, self.config.layers
        ropes = self.ropes(positions_BT)
        index_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None], tokens_BT.shape)
        scope = Scope(index_BT, positions_BT, positions_BT, visible_until_BT, sequences=not trees)
        x = dropout(by_rows(self.embed_tokens(tokens_BT)), config.dropout, _fold(seed, L))

        if self.blocks is not None:
            graphdef, stacked = nnx.split(self.blocks)

            def layer(x: Array, scanned: tuple) -> tuple[Array, None]:
                weights, number, slides = scanned
                slides, layer_seed = self.uniform(slides), _fold(seed, number)
                with jax.named_scope("block"):
                    block = nnx.merge(graphdef, weights)
                    rope = ropes.of(slides)
                    normed, k, v = block.read(x, rope, layer_seed)
                    return by_rows(block.write(x, normed, k, v, scope, rope, self.window(slides), layer_seed)), None

            numbers = jnp.arange(L - 1, dtype=jnp.int32)
            x, _ = jax.lax.scan(self._remat(layer, in_scan=True), x, (stacked, numbers, self.sliding_flags()[:-1]))

        return self.final_norm(self._remat(self._last)(x, scope, ropes, out_index_BC, _fold(seed, L - 1)))

    def _last(self, x: Array, scope: Scope, ropes: Ropes, out_index_BC: Array | None, seed: Seed | None) -> Array:
        slides = self.config.slides(self.config.layers - 1)
        rope = ropes.of(slides)
        with jax.named_scope("last_block"):
            normed, k, v = self.last_block.read(x, rope, seed)
            if out_index_BC is not None:
                x, normed, rope = (jax.tree.map(lambda a: take(a, out_index_BC), tree) for tree in (x, normed, rope))
                query_positions = take(scope.query_positions, out_index_BC)
                scope = replace(scope, query_index=out_index_BC, query_positions=query_positions, sequences=False)
            return self.last_block.write(x, normed, k, v, scope, rope, self.window(slides), seed)

    def _remat(self, function: Any, in_scan: bool = False) -> Any:
        if self.config.remat == "none":
            return function
        save = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if self.config.remat == "dots" else None
        # Inside a scan, forward and backward are different loops, which the compiler cannot merge into one anyway.
        return jax.checkpoint(function, policy=save, prevent_cse=not in_scan)

    def embed_tokens(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Embeddings in the compute dtype, scaled where the family does."""
        x = self.embed.embedding[...][tokens].astype(jnp.dtype(self.config.compute_dtype))
        return x * jnp.asarray(self.config.width**0.5, x.dtype) if self.config.embed_scale else x

    def ropes(self, positions: Int[Array, "B T"]) -> Ropes:
        """Rotary angles of tokens at these positions, for both kinds of layers."""
        config, G = self.config, self.config.head_width
        sliding = None
        if config.sliding_theta is not None:
            sliding = rope_at(positions, RopeConfig(theta=config.sliding_theta), G)
        return Ropes(rope_at(positions, config.rope, G), sliding)

    def sliding_flags(self) -> np.ndarray:
        """Which layers slide, (L,) bool."""
        return np.array([self.config.slides(layer) for layer in range(self.config.layers)])

    def uniform(self, slides: Array) -> bool | Array:
        """A scanned layer's flag, as a Python bool where all layers agree, so that nothing is chosen at run time."""
        flags = self.sliding_flags()
        return bool(flags[0]) if (flags == flags[0]).all() else slides

    def window(self, slides: bool | Array) -> int | Array | None:
        """The window of a layer with this flag."""
        if isinstance(slides, bool):
            return self.config.window if slides else None
        return jnp.where(slides, self.config.window, UNLIMITED)

    def logits(self, hidden: Float[Array, "B C D"]) -> Float[Array, "B C V"]:
        """Next-token logits of hidden states, fp32, soft-capped where the family does."""
        if self.lm_head is None:
            kernel, contract = self.embed.embedding[...], "bcd,vd->bcv"
        else:
            kernel, contract = self.lm_head.kernel[...], "bcd,dv->bcv"
        logits = jnp.einsum(contract, hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)
        cap = self.config.logit_softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)


def take(x_BTX: Array, index_BC: Int[Array, "B C"]) -> Array:
    """Row entries at the given indices: (B, T, ...) and (B, C) -> (B, C, ...)."""
    return jax.vmap(lambda row, index: row[index])(x_BTX, index_BC)


def _fold(seed: Seed | None, number: int | Array) -> Seed | None:
    return None if seed is None else seed.fold(number)


def _stack(count: int, config: DecoderConfig, lora: LoraConfig, seed: Seed) -> Block:
    """A block whose parameters carry a leading axis of `count` layers."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Block(config, lora, seed=seed)))
    weights = jax.vmap(lambda layer: nnx.state(Block(config, lora, seed=seed.fold(layer))))(jnp.arange(count))
    return nnx.merge(graphdef, weights)
