"""One layer of the decoder, and the hook through which a caller takes part in each layer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from fit_jax.models.attention import Attention, Scope
from fit_jax.models.config import DecoderConfig
from fit_jax.models.experts import Experts, ExpertsBeside, Routing, SharedExpert
from fit_jax.models.hash_random import Seed, dropout, folded
from fit_jax.models.layer_inputs import LayerInput
from fit_jax.models.layer_kinds import LayerKind
from fit_jax.models.layers import FeedForward, RMSNorm, scaled
from fit_jax.models.linear_attention import LinearAttention, LinearState
from fit_jax.models.lora import Linear
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.rope import Rope

LayerNumber = int | Int[Array, ""]
Gather = Callable[[Array, Scope], Array]
Rescope = Callable[[Scope, Array, Array, Gather], Scope]
Read = Callable[[LinearState | None], tuple[Array, LinearState | None]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerHook:
    """What goes along on `Decoder.walk` and takes part in each layer; this one changes nothing and holds nothing.

    A hook is a pytree that the scan over the layers carries: each layer hands on the hook that its methods return, of
    the same shapes and dtypes.
    """

    def embedded(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What the first layer reads, given the tokens' embeddings."""
        return x

    def keys_values(
        self, layer: LayerNumber, k: Float[Array, "B T K G"], v: Float[Array, "B T K G"]
    ) -> tuple[Self, Float[Array, "B S K G"], Float[Array, "B S K G"]]:
        """The keys and values that the layer attends to, given those of the tokens that are read.

        A layer that attends to those of an earlier one has none, and is not asked.
        """
        return self, k, v

    def carried(self, layer: LayerNumber, read: Read) -> tuple[Self, Float[Array, "B C He"]]:
        """What a layer that keeps a state gathers: what `read` gives for the state before these tokens.

        `read` takes None where nothing was read before, and gives the state after the tokens where it took one.
        """
        return self, read(None)[0]

    def scope(
        self, layer: LayerNumber, scope: Scope, q: Float[Array, "B C H G"], k: Float[Array, "B S K G"], gather: Gather
    ) -> Scope:
        """What the queries see of the keys, given both; `gather` tells what they gather of values under a scope.

        A layer that keeps a state has neither, and is not asked.
        """
        return scope

    def routed(self, layer: LayerNumber, routing: Routing, index_BC: Int[Array, "B C"] | None) -> Self:
        """Where the layer's experts, if it has some, get their tokens: all, or those at `index_BC`."""
        return self

    def output(
        self, layer: LayerNumber, x: Float[Array, "B T D"], index_BC: Int[Array, "B C"] | None
    ) -> tuple[Self, Float[Array, "B T D"]]:
        """The residual stream after the layer: of all tokens, or of those at `index_BC` where that is not None."""
        return self, x


class SublayerInput(NamedTuple):
    """A sublayer's normalised input, as the base sees it and, after the adapter's dropout, as the adapters see it."""

    base: Float[Array, "B T D"]
    adapter: Float[Array, "B T D"]


class Block(nnx.Module):
    """One layer, in two halves between which a caller may drop queries or exchange keys and values with a cache."""

    def __init__(self, kind: LayerKind, config: DecoderConfig, lora: LoraConfig, *, seed: Seed) -> None:
        """Random weights of a layer of this kind."""
        self.config, self.kind = config, kind
        self.adapter_dropout = lora.dropout if lora.rank else 0.0
        self.attention_norm = RMSNorm(config.width, config) if config.pre_norms else None
        self.attention = None if kind.linear else Attention(kind, config, lora, seed=seed.fold(0))
        self.linear_attention = LinearAttention(config, lora, seed=seed.fold(0)) if kind.linear else None
        self.mlp_norm = RMSNorm(config.width, config) if config.pre_norms else None
        mixed, beside, seed_1 = config.experts > 0, config.expert_width is not None, seed.fold(1)
        dense = kind.feed_forward, config, lora
        self.mlp = Experts(config, lora, seed=seed_1) if mixed and not beside else FeedForward(*dense, seed=seed_1)
        around = SharedExpert if config.shared_expert else ExpertsBeside
        self.beside = around(config, lora, seed=seed.fold(3)) if mixed and beside else None
        self.attention_out_norm = RMSNorm(config.width, config) if config.post_norms else None
        self.mlp_out_norm = RMSNorm(config.width, config) if config.post_norms else None
        self.layer_input = LayerInput(config, seed=seed.fold(2)) if config.layer_input else None
        self.layer_scale = nnx.Param(jnp.ones((1,), jnp.dtype(config.param_dtype))) if config.layer_scale else None

    def read(self, x: Float[Array, "B T D"], seed: Seed | None) -> SublayerInput:
        """The attention input of every token."""
        h = _normed(x, self.attention_norm)
        return SublayerInput(h, dropout(h, self.adapter_dropout, folded(seed, 0)))

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
        rescope: Rescope,
        given: Float[Array, "B C P"] | None,
    ) -> tuple[Float[Array, "B C D"], Routing | None]:
        """The residual stream after the layer, of the tokens that `scope` takes as queries, and where experts got them.

        `rescope` is a hook's `scope` for this layer; `given` is its input besides the residual stream, where it has
        one.
        """
        assert self.attention is not None, "of a layer that attends"
        q, gates = self.attention.queries(*normed, rope)
        gather = partial(self.attention.attend, q, k, window=window)
        y = gather(v, rescope(scope, q, k, gather))
        y = y if gates is None else y * gates
        return self.finish(x, y, self.attention.o_proj, seed, given)

    def finish(
        self,
        x: Float[Array, "B C D"],
        y: Float[Array, "B C X"],
        project: Linear,
        seed: Seed | None,
        given: Float[Array, "B C P"] | None,
    ) -> tuple[Float[Array, "B C D"], Routing | None]:
        """As `write` gives it, from what the layer's tokens gathered and its projection; `given` as above."""
        y = project(y, dropout(y, self.adapter_dropout, folded(seed, 1)))
        x = x + self._out(y, self.attention_out_norm, folded(seed, 2))
        h, routing = _normed(x, self.mlp_norm), None
        if isinstance(self.mlp, Experts):
            y, routing = self.mlp(h)
        else:
            y = self.mlp(h, folded(seed, 3), folded(seed, 4))
        if self.beside is not None:
            y, routing = self.beside(h if isinstance(self.beside, SharedExpert) else x, y)
        x = x + self._out(y, self.mlp_out_norm, folded(seed, 5))
        if self.layer_input is not None and given is not None:
            x = x + self.layer_input(x, given)
        if self.layer_scale is not None:
            # Stored with the weights, and no more trained than in transformers.
            x = x * jax.lax.stop_gradient(self.layer_scale[...]).astype(x.dtype)[None, None]
        return x, routing

    def _out(self, y: Array, norm: RMSNorm | None, seed: Seed | None) -> Array:
        return dropout(scaled(_normed(y, norm), self.config.residual_multiplier), self.config.dropout, seed)


def _normed(x: Array, norm: RMSNorm | None) -> Array:
    return x if norm is None else norm(x)
