"""Attention: the prefix-tree rule of what a query sees, and the attention sublayer."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from fit_jax.models import kernels
from fit_jax.models.config import DecoderConfig
from fit_jax.models.hash_random import Seed
from fit_jax.models.layer_kinds import LayerKind
from fit_jax.models.layers import RMSNorm, normalized
from fit_jax.models.lora import Linear
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.prefix_attention import prefix_attention
from fit_jax.models.rope import Rope, rotate

# Masked scores. Finite, so that a query that sees nothing (padding) averages all values instead of giving NaN.
MASKED = -1e30


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("query_index", "query_positions", "key_positions", "visible_until", "key_bias", "lengths"),
    meta_fields=(),
)
@dataclass(frozen=True)
class Scope:
    """What the C queries of each row see of its T keys.

    Query c, which stands at row index i = `query_index[c]`, sees key j iff j <= i < `visible_until[j]`; in a sliding
    layer also only iff `query_positions[c]` - `key_positions[j]` < window. `key_bias`, where there is one, is added to
    the scores of a query and head, in nats. `lengths` says how many tokens the sequence of each query may come to hold;
    None means that the queries are whole rows, which say it themselves.
    """

    query_index: Int[Array, "B C"]
    query_positions: Int[Array, "B C"]
    key_positions: Int[Array, "B T"]
    visible_until: Int[Array, "B T"]
    key_bias: Float[Array, "B C H T"] | None = None
    lengths: Int[Array, "B C"] | None = None

    @classmethod
    def of_rows(cls, positions: Int[Array, "B T"], visible_until: Int[Array, "B T"]) -> "Scope":
        """What the tokens of whole rows see of each other."""
        index = jnp.broadcast_to(jnp.arange(positions.shape[1], dtype=jnp.int32)[None], positions.shape)
        return cls(index, positions, positions, visible_until)

    def at(self, index_BC: Int[Array, "B C"]) -> "Scope":
        """What some of the queries see."""
        index, positions = take(self.query_index, index_BC), take(self.query_positions, index_BC)
        return replace(self, query_index=index, query_positions=positions)

    def mask(self, window: int | Int[Array, ""] | None) -> Bool[Array, "B C T"]:
        """True where a query sees a key."""
        index = jnp.arange(self.visible_until.shape[1], dtype=jnp.int32)[None, None]
        query = self.query_index[:, :, None]
        seen = (index <= query) & (query < self.visible_until[:, None])
        if window is not None:
            seen &= self.query_positions[:, :, None] - self.key_positions[:, None] < window
        return seen


def attention(
    q_BCHG: Float[Array, "B C H G"],
    k_BTKG: Float[Array, "B T K G"],
    v_BTKG: Float[Array, "B T K G"],
    scope: Scope,
    *,
    scale: float,
    window: int | Int[Array, ""] | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
    kind: str = "auto",
) -> Float[Array, "B C H G"]:
    """Grouped-query attention under the prefix-tree rule of `Scope`; the softmax is in fp32.

    On TPU, and in half precision on GPU, a fused kernel may compute it (`kernels.choose`), which never holds all
    scores; what a query that sees nothing (padding) gathers from ours is zeros, and else of no meaning.

    Args:
        q_BCHG: Queries of the tokens at `scope.query_index`; query heads of one group are neighbours.
        k_BTKG: Keys of the whole row.
        v_BTKG: Values of the whole row.
        scope: What each query sees.
        scale: Factor on the scores.
        window: Tokens a query sees, itself included; None means all.
        softcap: tanh cap on the scores; None means none.
        sinks: A score of each head that takes part in the softmax, with nothing to gather; None means none.
        kind: `DecoderConfig.attention`.

    Raises:
        InputError: A kernel is asked for that the platform does not have.
    """
    kernel = kernels.choose(kind, q_BCHG, softcap, biased=scope.key_bias is not None, sinks=sinks is not None)
    if kernel == "tpu" or kernel == "gpu" or kernel == "hopper":
        rule = scope.query_index, scope.query_positions, scope.key_positions, scope.visible_until
        options = {"scale": scale, "platform": kernel, "window": window, "softcap": softcap}
        y, lse = prefix_attention(q_BCHG, k_BTKG, v_BTKG, *rule, **options)
        return y if sinks is None else beside_sinks(y, lse, sinks)
    if kernel == "cudnn":
        return kernels.cudnn(q_BCHG, k_BTKG, v_BTKG, scope.mask(window), scale=scale)
    B, C, H, G = q_BCHG.shape
    K = k_BTKG.shape[2]
    # Batched dimensions lead and the queries of a group lie below each other, as many as a token has: the form that XLA
    # multiplies as is, and that it can split by tokens. The division by the softmax's sum is left for the end, where
    # there are G numbers a query and not T.
    q_BKCRG = (q_BCHG * jnp.asarray(scale, q_BCHG.dtype)).reshape(B, C, K, H // K, G).transpose(0, 2, 1, 3, 4)
    k_BKGT, v_BKTG = k_BTKG.transpose(0, 2, 3, 1), v_BTKG.transpose(0, 2, 1, 3)
    scores = jnp.matmul(q_BKCRG.reshape(B, K, -1, G), k_BKGT, preferred_element_type=jnp.float32)
    scores = scores.reshape(B, K, C, H // K, -1)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if scope.key_bias is not None:
        scores = scores + scope.key_bias.reshape(B, C, K, H // K, -1).transpose(0, 2, 1, 3, 4)
    scores = jnp.where(scope.mask(window)[:, None, :, None], scores, MASKED)
    largest = scores.max(axis=-1, keepdims=True)
    sink = None if sinks is None else sinks.astype(jnp.float32).reshape(1, K, 1, H // K, 1)
    largest = jax.lax.stop_gradient(largest if sink is None else jnp.maximum(largest, sink))
    weights = jnp.exp(scores - largest)
    sums = weights.sum(axis=-1, keepdims=True)
    if sink is not None:
        sums = sums + jnp.exp(sink - largest)
    weights = weights.astype(v_BTKG.dtype).reshape(B, K, -1, weights.shape[-1])
    # Kept in fp32 until it is divided: rounded before, its gradient would not cancel with that of the sums.
    y_BKCRG = jnp.matmul(weights, v_BKTG, preferred_element_type=jnp.float32).reshape(B, K, C, H // K, G)
    y_BKCRG = (y_BKCRG / sums).astype(v_BTKG.dtype)
    return y_BKCRG.transpose(0, 2, 1, 3, 4).reshape(B, C, H, G)


def beside_sinks(
    y_BCHG: Float[Array, "B C H G"], lse_BHC: Float[Array, "B H C"], sinks_H: Float[Array, " H"]
) -> Float[Array, "B C H G"]:
    """What queries gather where a sink takes its share of the softmax, given what they gather without and their lse."""
    share_BHC = jax.nn.sigmoid(lse_BHC - sinks_H.astype(jnp.float32)[None, :, None])
    return (y_BCHG.astype(jnp.float32) * share_BHC.swapaxes(1, 2)[..., None]).astype(y_BCHG.dtype)


def take(x_BTX: Array, index_BC: Int[Array, "B C"]) -> Array:
    """Row entries at the given indices: (B, T, ...) and (B, C) -> (B, C, ...)."""
    return jax.vmap(lambda row, index: row[index])(x_BTX, index_BC)


class Attention(nnx.Module):
    """Projections around `attention`, with the families' biases, query/key norms and sinks."""

    def __init__(self, kind: LayerKind, config: DecoderConfig, lora: LoraConfig, *, seed: Seed) -> None:
        """Random weights of the projections that the kind has; the output projection is scaled down by the depth."""
        D, H, K, G = config.width, config.heads, kind.kv_heads, kind.head_width
        bias, depth = config.qkv_bias, (2 * config.layers) ** -0.5
        self.config, self.kind = config, kind
        queries = H * G * (1 + config.output_gate)
        self.q_proj = Linear("q_proj", D, queries, config, lora, bias=bias, seed=seed.fold(0))
        own_values = kind.own_values and not kind.reuses_kv
        inputs = D, K * G, config, lora
        self.k_proj = None if kind.reuses_kv else Linear("k_proj", *inputs, bias=bias, seed=seed.fold(1))
        self.v_proj = Linear("v_proj", *inputs, bias=bias, seed=seed.fold(2)) if own_values else None
        self.o_proj = Linear("o_proj", H * G, D, config, lora, bias=config.o_bias, scale=depth, seed=seed.fold(3))
        self.sinks = nnx.Param(jnp.zeros((H,), jnp.dtype(config.param_dtype))) if config.attention_sinks else None
        # Over each head, or over all heads side by side.
        heads, kv_heads = (H, K) if config.qk_norm_whole else (1, 1)
        self.q_norm = RMSNorm(heads * G, config) if config.qk_norm else None
        self.k_norm = RMSNorm(kv_heads * G, config) if config.qk_norm and not kind.reuses_kv else None

    def queries(
        self, x: Float[Array, "B C D"], adapter_x: Float[Array, "B C D"], rope: Rope
    ) -> tuple[Float[Array, "B C H G"], Float[Array, "B C HG"] | None]:
        """Rotated queries of normalised inputs, and the gates of what they gather, where there are some."""
        projected, gates = self.q_proj(x, adapter_x), None
        if self.config.output_gate:  # of each head the query, then the gate
            both = projected.reshape(*x.shape[:2], -1, 2, self.kind.head_width)
            projected, gates = (both[:, :, :, n].reshape(*x.shape[:2], -1) for n in range(2))
            gates = jax.nn.sigmoid(gates)
        q = rotate(self._heads(projected, self.q_norm), rope)
        if rope.temperature is not None:
            q = q * rope.temperature.astype(q.dtype)[:, :, None, None]
        return q, gates

    def keys_values(
        self, x: Float[Array, "B T D"], adapter_x: Float[Array, "B T D"], rope: Rope
    ) -> tuple[Float[Array, "B T K G"], Float[Array, "B T K G"]]:
        """Rotated keys and values of normalised inputs, of a layer that has its own."""
        assert self.k_proj is not None, "of a layer that reuses no keys"
        projected = self.k_proj(x, adapter_x)
        k = rotate(self._heads(projected, self.k_norm), rope)
        v = self._heads(projected if self.v_proj is None else self.v_proj(x, adapter_x), None)
        if self.config.value_norm:
            v = normalized(v.astype(jnp.float32), self.config.norm_epsilon).astype(v.dtype)
        return k, v

    def _heads(self, x: Float[Array, "B T HG"], norm: RMSNorm | None) -> Float[Array, "B T H G"]:
        """Heads apart, normalised."""
        shape = (*x.shape[:2], -1, self.kind.head_width)
        if norm is None:
            return x.reshape(shape)
        return norm(x).reshape(shape) if self.config.qk_norm_whole else norm(x.reshape(shape))

    def attend(
        self,
        q: Float[Array, "B C H G"],
        k: Float[Array, "B T K G"],
        v: Float[Array, "B T K G"],
        scope: Scope,
        window: int | Int[Array, ""] | None,
    ) -> Float[Array, "B C HG"]:
        """What the queries gather, heads side by side; `o_proj` is yet to be applied."""
        y = attention(
            q,
            k,
            v,
            scope,
            scale=self.config.score_scale(self.kind),
            window=window,
            softcap=self.config.attention_softcap,
            sinks=None if self.sinks is None else self.sinks[...],
            kind=self.config.attention,
        )
        return y.reshape(*y.shape[:2], -1)
